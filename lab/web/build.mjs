// Builds the page: node build.mjs [folder], by default dist beside this file. What it makes
// depends on the sources alone, for a test compares it to what is committed.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const here = dirname(fileURLToPath(import.meta.url));
const dist = resolve(process.argv[2] ?? join(here, "dist"));

execFileSync(process.execPath, [join(here, "node_modules/typescript/bin/tsc"), "-p", here], { stdio: "inherit" });
rmSync(dist, { recursive: true, force: true });

// Names without hashes: the lab says itself how long they may be kept.
const names = { entryFileNames: "[name].js", chunkFileNames: "[name].js", assetFileNames: "[name][extname]" };
const common = {
  root: here,
  configFile: false,
  logLevel: "warn",
  define: { "process.env.NODE_ENV": '"production"' },
};
const output = { outDir: dist, target: ["chrome123", "firefox121", "safari17.5"], assetsInlineLimit: 0, modulePreload: { polyfill: false } };
const checks = { checks: { pluginTimings: false } };
await build({ ...common, build: { ...output, rolldownOptions: { ...checks, output: names } } });
// The stage is a classic script of one file: a sandboxed frame has no origin, and would
// need CORS to load a module.
await build({
  ...common,
  build: { ...output, emptyOutDir: false, rolldownOptions: { ...checks, input: join(here, "src/stage/main.ts"), output: { ...names, format: "iife", entryFileNames: "stage.js" } } },
});
copyFileSync(join(here, "stage.html"), join(dist, "stage.html"));

// The model, and the component of explain/web. Of the WebAssembly only the compressed copy
// is kept: every browser takes it.
const model = mkdtempSync(join(tmpdir(), "moat-lab-model-"));
try {
  execFileSync("/bin/sh", [join(here, "../../explain/web/build.sh"), model], {
    stdio: ["ignore", "ignore", "inherit"],
    // Another compiler makes another file. This one is fetched if it is not there.
    env: { ...process.env, GOTOOLCHAIN: "go1.26.8", GOFLAGS: "-buildvcs=false" },
  });
  mkdirSync(join(dist, "model"), { recursive: true });
  for (const name of ["moat.wasm.gz", "wasm_exec.js", "moat-explain.js", "engine.js", "worker.js", "dom.js", "form.js", "share.js", "style.js", "view.js", "presets.json"]) {
    copyFileSync(join(model, name), join(dist, "model", name));
  }
} finally {
  rmSync(model, { recursive: true });
}
