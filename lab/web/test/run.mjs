// Runs the tests of the page's logic: node test/run.mjs. They are TypeScript, as what they
// test is, so they are bundled first.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const here = dirname(fileURLToPath(import.meta.url));
const built = mkdtempSync(join(tmpdir(), "moat-lab-test-"));
const tests = readdirSync(here).filter((name) => name.endsWith(".test.ts"));
let status = 1;
try {
  await build({
    root: join(here, ".."), configFile: false, logLevel: "warn",
    build: { ssr: true, outDir: built, emptyOutDir: false, target: "node20", rolldownOptions: { input: tests.map((t) => join(here, t)), output: { entryFileNames: "[name].mjs", chunkFileNames: "[name].mjs" } } },
    ssr: { noExternal: true },
  });
  ({ status } = spawnSync(process.execPath, ["--test", ...tests.map((t) => join(built, t.replace(/\.ts$/, ".mjs")))], { stdio: "inherit" }));
} finally {
  rmSync(built, { recursive: true });
}
process.exit(status ?? 1);
