// What is shown, as the fragment of a URL: fragments are never sent to a server. The
// form is "#1." and the base64url of the raw deflate of JSON. A fragment comes from
// whoever wrote the link, so it is bounded before it is read.

const prefix = "1.";
const maxFragment = 64 * 1024;
const maxText = 256 * 1024;

async function through(bytes, stream, limit) {
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader();
  const parts = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > limit) {
      reader.cancel().catch(() => {});
      throw new Error("it is too large");
    }
    parts.push(value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Writes a state as a fragment, without the "#". */
export async function pack(state) {
  const text = new TextEncoder().encode(JSON.stringify(state));
  if (text.length > maxText) throw new Error("there is too much for a link");
  const bytes = await through(text, new CompressionStream("deflate-raw"), maxFragment);
  let binary = "";
  for (const b of bytes) binary += String.fromCharCode(b);
  const fragment = prefix + btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  if (fragment.length > maxFragment) throw new Error("there is too much for a link");
  return fragment;
}

/** Reads a fragment. Whatever is wrong with it is an Error with a text for people. */
export async function unpack(fragment) {
  if (fragment.length > maxFragment) throw new Error("it is too large");
  if (!fragment.startsWith(prefix) || !/^[A-Za-z0-9_-]+$/.test(fragment.slice(prefix.length))) {
    throw new Error("it is not one of this page's");
  }
  let state;
  try {
    const binary = atob(fragment.slice(prefix.length).replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (c) => c.charCodeAt(0));
    const text = await through(bytes, new DecompressionStream("deflate-raw"), maxText);
    state = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
  } catch (error) {
    if (error.message === "it is too large") throw error;
    throw new Error("it is damaged: perhaps it was cut off");
  }
  if (state === null || typeof state !== "object" || Array.isArray(state)) {
    throw new Error("it is not one of this page's");
  }
  return state;
}
