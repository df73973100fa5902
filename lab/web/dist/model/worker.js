// The worker in which the model runs. wasm_exec.js is Go's own; it leaves globals behind,
// which here disturb nobody.
import "./wasm_exec.js";

async function load() {
  const go = new globalThis.Go();
  const response = await fetch(new URL("moat.wasm", import.meta.url));
  if (!response.ok) throw new Error(`moat.wasm: status ${response.status}`);
  const typed = (response.headers.get("Content-Type") ?? "").startsWith("application/wasm");
  const { instance } = typed
    ? await WebAssembly.instantiateStreaming(response, go.importObject)
    : await WebAssembly.instantiate(await response.arrayBuffer(), go.importObject);
  go.run(instance).then(() => postMessage({ dead: "the model has stopped" }));
  return globalThis.moat;
}

const loaded = load();
loaded.catch((error) => postMessage({ dead: `the model could not be loaded (${error.message})` }));

onmessage = async ({ data: { id, name, input } }) => {
  const moat = await loaded;
  postMessage({ id, answer: moat[name](input) });
};
