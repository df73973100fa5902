// What was composed, in a URL's fragment: "1." and the base64url of raw deflate of JSON,
// as explain/web has it. Whoever wrote the link wrote what is in it, so that it is bounded
// before it is read, and checked before it is believed.

const prefix = "1.";
export const maxFragment = 32 * 1024;
const maxText = 128 * 1024;

async function through(bytes: BlobPart, stream: CompressionStream | DecompressionStream, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  const reader = new Blob([bytes]).stream().pipeThrough(stream as unknown as ReadableWritablePair<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>).getReader();
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > limit) {
      reader.cancel().catch(() => {});
      throw new TooLarge();
    }
    parts.push(value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

class TooLarge extends Error {
  constructor() {
    super("The link is too large.");
  }
}

/** Writes a state for a fragment. */
export async function pack(state: unknown): Promise<string> {
  const bytes = await through(new TextEncoder().encode(JSON.stringify(state)), new CompressionStream("deflate-raw"), maxFragment);
  let binary = "";
  for (const b of bytes) binary += String.fromCharCode(b);
  const packed = prefix + btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  if (packed.length > maxFragment) throw new TooLarge();
  return packed;
}

/** Reads what pack wrote. Whatever is wrong with it is an Error with a text for people. */
export async function unpack(packed: string): Promise<unknown> {
  if (packed.length > maxFragment) throw new TooLarge();
  if (!packed.startsWith(prefix) || !/^[A-Za-z0-9_-]+$/.test(packed.slice(prefix.length))) throw new Error("The link is not one of the composer's.");
  try {
    const binary = atob(packed.slice(prefix.length).replaceAll("-", "+").replaceAll("_", "/"));
    const text = await through(Uint8Array.from(binary, (c) => c.charCodeAt(0)), new DecompressionStream("deflate-raw"), maxText);
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
  } catch (e) {
    if (e instanceof TooLarge) throw e;
    throw new Error("The link is damaged: perhaps it was cut off.");
  }
}
