// How many nonces one thread tries in a second, with WebAssembly and with JavaScript. In Node:
//
//   node speed.mjs
//
// and in a browser, which prints the same:
//
//   node speed.mjs page >speed.html && chromium --headless --no-sandbox --timeout=10000 --dump-dom speed.html
import { build } from "esbuild";
import { plugin } from "./kernel.mjs";

const measured = `
import { engine } from "./src/engine.js";
import { kernel, wasm } from "./src/kernel.js";

const rate = async (wasm) => {
  const search = (await engine(kernel, wasm))(new Uint8Array(36), 0, 32);
  for (let i = 0; i < 50; i++) search(65536);
  const from = performance.now();
  let n = 0;
  for (; performance.now() - from < 2000; n += 65536) search(65536);
  return (n / (performance.now() - from) / 1000).toFixed(1) + " million a second";
};
const text = "WebAssembly: " + (await rate(wasm)) + "; JavaScript: " + (await rate(""));
if (globalThis.document) document.body.textContent = text;
else console.log(text);
`;
const { outputFiles } = await build({
  stdin: { contents: measured, resolveDir: import.meta.dirname ?? "." },
  bundle: true,
  minify: true,
  format: "esm",
  write: false,
  target: "es2022",
  plugins: [plugin],
});
const { text } = outputFiles[0];
if (process.argv[2] === "page") console.log(`<!doctype html><meta charset="utf-8"><body><script type="module">${text}</script>`);
else await import("data:text/javascript;base64," + Buffer.from(text).toString("base64"));
