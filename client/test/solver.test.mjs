import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { solve } from "../dist/solver.js";
import { solves } from "./format.mjs";

const holds = async (length, puzzles, bits) => {
  const challenge = randomBytes(length);
  const progress = [];
  const solution = await solve({ token: challenge.toString("base64url"), puzzles, bits }, (done) => progress.push(done));
  assert.ok(solves(challenge, Buffer.from(solution), puzzles, bits), `${length} bytes, ${puzzles} puzzles, ${bits} bits`);
  assert.deepEqual(progress, Array.from({ length: puzzles + 1 }, (_, i) => i / puzzles));
};

const ways = {
  "with WebAssembly": () => {},
  "where WebAssembly is not allowed": (t) => {
    const { instantiate } = WebAssembly;
    WebAssembly.instantiate = async () => {
      throw new WebAssembly.CompileError("unsafe-eval");
    };
    t.after(() => (WebAssembly.instantiate = instantiate));
  },
};

for (const [way, prepare] of Object.entries(ways)) {
  test(`the gate's challenges are solved ${way}`, async (t) => {
    prepare(t);
    for (const bits of [0, 1, 5, 11, 14]) await holds(36, 16, bits);
    await holds(36, 255, 4);
    await holds(36, 1, 18);
  });

  test(`challenges of any length are solved ${way}`, async (t) => {
    prepare(t);
    for (let length = 1; length < 140; length++) await holds(length, 2, 6);
  });
}

test("more than any gate asks for is refused at once", async () => {
  for (const [puzzles, bits] of [[16, 25], [0, 1], [256, 1], [1, 33], [1, -1], [NaN, 1], [1, NaN]]) {
    await assert.rejects(solve({ token: "AAAA", puzzles, bits }), /too hard/);
  }
});
