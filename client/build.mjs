// Builds the client: node build.mjs [folder], by default dist beside this file.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { plugin } from "./kernel.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const dist = resolve(process.argv[2] ?? join(here, "dist"));

const common = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  target: "es2022",
  legalComments: "none",
  // The solver comes when there is a challenge, from beside the client.
  external: ["./solver.js"],
};
await build({ ...common, entryPoints: ["src/index.ts"], format: "esm", outfile: join(dist, "client.mjs") });
await build({ ...common, entryPoints: ["src/script.ts"], format: "iife", outfile: join(dist, "moat.js") });
await build({ ...common, entryPoints: ["src/solver.ts"], format: "esm", outfile: join(dist, "solver.js"), external: [], plugins: [plugin] });

// The types are checked, and the declarations of what the package exports are kept.
const types = mkdtempSync(join(tmpdir(), "moat-client-"));
try {
  execFileSync(process.execPath, [join(here, "node_modules/typescript/bin/tsc"), "-p", here, "--outDir", types], { stdio: "inherit" });
  // In one file: without what the parts import from one another, and without make, which is the package's own.
  const declared = (name) => readFileSync(join(types, name + ".d.ts"), "utf8").replace(/^(import|export (type )?\{).*\n/gm, "");
  const inside = /\/\*\*[^*]*\*\/\nexport declare function make[^;]*;\n/;
  writeFileSync(join(dist, "client.d.ts"), declared("error") + declared("fetch").replace(inside, "") + declared("index"));
} finally {
  rmSync(types, { recursive: true });
}

for (const name of ["client.mjs", "moat.js", "solver.js"]) {
  const bytes = readFileSync(join(dist, name));
  console.log(`${name}: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} gzipped`);
}
