import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { offersAt } from "../src/tools/schema";
import { namesUnder, placeAt } from "../src/tools/yamlpath";

const schema = JSON.parse(readFileSync(join(process.cwd(), "../../config/moat.schema.json"), "utf8"));

// The cursor is where the bar stands.
const at = (marked) => [marked.replace("|", ""), marked.indexOf("|")];
const place = (marked) => placeAt(...at(marked));
const labels = (marked) => (offersAt(...at(marked), schema)?.offers ?? []).map((o) => o.label);

test("the path of the cursor", () => {
  for (const [marked, path, kind] of [
    ["|", [], "key"],
    ["ver|", [], "key"],
    ["version: |", ["version"], "value"],
    ["policies:\n  pages:\n    |", ["policies", "pages"], "key"],
    ["policies:\n  pages:\n    cors:\n      cre|", ["policies", "pages", "cors"], "key"],
    ["policies:\n  pages:\n    cors:\n      credentials: tr|", ["policies", "pages", "cors", "credentials"], "value"],
    ["policies:\n  pages:\n    origins: [a]\n  |", ["policies"], "key"],
    ["routes:\n  - match: /\n    |", ["routes", 0], "key"],
    ["routes:\n  - match: /\n  - match: /a\n    au|", ["routes", 1], "key"],
    ["routes:\n- match: /\n- |", ["routes", 1], "either"],
    ["routes:\n  - {match: /, au|", ["routes", 0], "key"],
    ["routes:\n  - {match: /, auth: pu|", ["routes", 0, "auth"], "value"],
    ["policies:\n  p: {modes: {cors: |", ["policies", "p", "modes", "cors"], "value"],
    ["policies:\n  p: {origins: [a, b|", ["policies", "p", "origins", 1], "value"],
    ["policies:\n  p: {\n    modes: {\n      co|", ["policies", "p", "modes"], "key"],
    ["a: {b: c}\nd: |", ["d"], "value"],
    ["a: \"x: {\"\nb|", [], "key"],
    ["public_origins: # {\n  - |", ["public_origins", 0], "either"],
    ["\"a key\":\n  b|", ["a key"], "key"],
  ]) {
    const p = place(marked);
    assert.deepEqual(p && [p.path, p.kind], [path, kind], marked);
  }
});

test("there is nothing to offer in comments and block texts, and right behind a colon", () => {
  for (const marked of ["# ver|", "a: b # c|", "a: |\n".replace("|", "|-") + "  te|", "version:|"]) {
    const cut = marked.lastIndexOf("|");
    assert.equal(placeAt(marked.slice(0, cut) + marked.slice(cut + 1), cut), null, marked);
  }
});

test("keys come from the schema, with what they mean", () => {
  assert.ok(labels("|").includes("public_origins"));
  assert.ok(labels("policies:\n  pages:\n    |").includes("origins"), "below a name that the file gives");
  assert.ok(labels("policies:\n  pages:\n    cors:\n      |").includes("credentials"));
  assert.ok(labels("routes:\n  - match: /\n    |").includes("side_effects"));
  assert.ok(labels("policies:\n  p: {modes: {|").includes("cross_site"));
  const [offer] = offersAt(...at("pub|"), schema).offers.filter((o) => o.label === "public_origins");
  assert.match(offer.info, /\w{4}/);
  assert.equal(offer.apply, "public_origins: ");
});

test("a key that is there is not offered again", () => {
  assert.ok(!labels("routes:\n  - match: /\n    |\n    auth: public").includes("auth"));
  assert.ok(!labels("routes:\n  - match: /\n    |").includes("match"));
  assert.ok(labels("routes:\n  - auth: public\n  - match: /\n    |").includes("auth"), "of another item");
  assert.ok(labels("routes:\n  - match: /\n    |\n  - auth: public").includes("auth"), "of the next item");
  assert.ok(!labels("routes:\n  - {match: /, |").includes("match"));
});

test("values: enumerations, truth, and names that the file gives", () => {
  assert.deepEqual(labels("policies:\n  p:\n    modes:\n      cors: |").sort(), ["enforce", "off", "report"]);
  assert.deepEqual(labels("routes:\n  - side_effects: |").sort(), ["false", "true"]);
  assert.ok(labels("policies:\n  pages: {}\n  strict: {}\nroutes:\n  - policy: |").includes("strict"));
  assert.ok(labels("upstreams:\n  api: {url: x}\nroutes:\n  - {match: /, upstream: |").includes("api"));
  assert.deepEqual(namesUnder("upstreams: {api: {url: x}, other: {url: y}}\nb: 1", "upstreams"), ["api", "other"]);
});

test("whatever stands before the cursor, it comes to an end", () => {
  const text = readFileSync(join(process.cwd(), "../../config/starters/app.yaml"), "utf8");
  for (let i = 0; i <= text.length; i++) offersAt(text, i, schema);
  for (const hostile of ["{".repeat(5000), "- ".repeat(5000), "a:\n ".repeat(2000), "[{'\"#".repeat(2000), "__proto__:\n  ", "constructor: "]) offersAt(hostile, hostile.length, schema);
});
