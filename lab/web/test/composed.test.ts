import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateRawSync } from "node:zlib";
import { first, headerOf, linesOf, read, runOf } from "../src/tools/composed";
import { maxFragment, pack, unpack } from "../src/tools/link";

const packed = (text) => "1." + deflateRawSync(Buffer.from(text)).toString("base64url");

test("a link holds all that was composed", async () => {
  const state = {
    ...first, sandboxed: true, target: "gate", cookies: ["session=1; SameSite=Lax"], policy: "version: 1\n# ünïcödé\n",
    request: { api: "fetch", url: "{target}/transfer?amount=50", method: "POST", headers: [["X-A", "1"]], body: { kind: "text", text: "{}" }, credentials: "include", cache: "no-store" },
    answers: [{ on: "preflight", status: 200, origin: ["{bank}"], path: "/a", headers: [["A", "b"]] }],
  };
  assert.deepEqual(read(await unpack(await pack(state))), state);
  assert.deepEqual(read(await unpack(await pack(first))), first);
});

test("a link that is no link of the composer's is refused", async () => {
  for (const [bad, why] of [
    ["", /not one of/], ["2.AAAA", /not one of/], ["1.<script>", /not one of/], ["1.AAAA", /damaged/], [packed("{"), /damaged/], ["1." + "A".repeat(maxFragment), /too large/],
    [packed(JSON.stringify("x".repeat(200_000))), /too large/],
  ]) await assert.rejects(unpack(bad), why, bad.slice(0, 20));
});

test("what a link says is checked before it is believed", () => {
  const base = JSON.parse(JSON.stringify(first));
  const bad = (change, why) => {
    const state = JSON.parse(JSON.stringify(base));
    change(state);
    assert.throws(() => read(state), why ?? /does not know/, change.toString());
  };
  bad((s) => { s.from = "api"; });
  bad((s) => { s.target = "http://evil.example"; });
  bad((s) => { s.request.api = "constructor"; });
  bad((s) => { s.request.body = { kind: "toString" }; });
  bad((s) => { s.request.headers = [["a"]]; });
  bad((s) => { s.request.headers = [["a", "b", "c"]]; });
  bad((s) => { s.request.method = {}; });
  bad((s) => { s.request.credentials = "everything"; });
  bad((s) => { s.answers = Array(51).fill({}); });
  bad((s) => { s.answers = [{ status: 1e9 }]; });
  bad((s) => { s.cookies = "x"; });
  bad((s) => { s.policy = "x".repeat(100_000); });
  for (const state of [null, 1, "x", [], {}]) assert.throws(() => read(state));
});

test("no link leads a request elsewhere than to the target", () => {
  for (const url of ["https://evil.example/", "//evil.example", "{stranger}/x", "javascript:alert(1)", "{target}@evil.example", "{target:ws}/a"]) {
    assert.match(read({ ...first, request: { api: "fetch", url } }).request.url, /^\{target\}\//, url);
  }
});

test("only the fields that an API has are sent", () => {
  const run = runOf({ ...first, from: "lab", sandboxed: true, request: { api: "img", url: "{target}/x", method: "POST", headers: [["A", "b"]], body: { kind: "text", text: "x" }, credentials: "include" } });
  assert.deepEqual(run.requests, [{ api: "img", url: "{target}/x" }]);
  assert.equal(run.sandboxed, undefined);
  assert.deepEqual(runOf({ ...first, request: { api: "websocket", url: "{target}/x" } }).requests[0].url, "{target:ws}/x");
  assert.equal(runOf({ ...first, request: { api: "form", url: "{target}/x", body: { kind: "blob", text: "" } } }).requests[0].body, undefined);
});

test("header lines, and back", () => {
  assert.deepEqual(headerOf("A: b\n\n C :  d: e \nF"), [["A", "b"], ["C", "d: e"], ["F", ""]]);
  assert.equal(linesOf([["A", "b"], ["C", "d"]]), "A: b\nC: d");
});
