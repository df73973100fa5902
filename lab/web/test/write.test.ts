import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { curlOf, harOf, vectorOf } from "../src/tools/write";

const url = "http://api.bank.localhost:7700/transfer";
const post = { api: "fetch", url, method: "POST", headers: [["Content-Type", "application/json"]], body: { kind: "text", text: '{"to": "o\'hara"}' } };

// What a shell makes of a line.
const words = (line) => JSON.parse(execFileSync("sh", ["-c", `${process.execPath} -e 'console.log(JSON.stringify(process.argv.slice(1)))' -- ${line.replace(/^curl /, "")}`], { encoding: "utf8" }));

test("curl sends what the browser would, whatever the shell thinks of quotes", () => {
  assert.deepEqual(words(curlOf({ requests: [post] }, "http://stranger.localhost:7700")), [
    "-i", "-H", "Origin: http://stranger.localhost:7700", "-H", "Content-Type: application/json", "--data-raw", '{"to": "o\'hara"}', url,
  ]);
  assert.deepEqual(words(curlOf({ requests: [{ api: "fetch", url: url + "?a=$(id)&b=`id`" }] }, "")), ["-i", url + "?a=$(id)&b=`id`"]);
  assert.deepEqual(words(curlOf({ requests: [{ api: "form", url, method: "POST", body: { kind: "form-data", text: "a=1&b=@x" } }] }, "null")), ["-i", "-H", "Origin: null", "--form-string", "a=1", "--form-string", "b=@x", url]);
  assert.deepEqual(words(curlOf({ requests: [{ api: "fetch", url, method: "PUT", body: { kind: "buffer", text: "x" } }] }, "")), ["-i", "-X", "PUT", "-H", "Content-Type:", "--data-raw", "x", url]);
  assert.deepEqual(words(curlOf({ requests: [{ api: "fetch", url, method: "HEAD" }] }, "")), ["-i", "-I", url]);
  assert.deepEqual(words(curlOf({ requests: [{ api: "websocket", url: "ws://api.bank.localhost:7700/live" }] }, "")), ["-i", "http://api.bank.localhost:7700/live"]);
});

const origin = ["Origin", "http://stranger.localhost:7700"];
const events = [
  { seq: 1, run: 1, kind: "arrived", at: 3, request: 1, method: "OPTIONS", url, preflight: true, headers: [origin, ["Access-Control-Request-Method", "POST"], ["Access-Control-Request-Headers", "content-type"]] },
  { seq: 2, run: 1, kind: "answered", at: 5, request: 1, answer: { status: 204, headers: [["Access-Control-Allow-Origin", "*"], ["Access-Control-Allow-Headers", "content-type"]] } },
  { seq: 3, run: 1, kind: "arrived", at: 9, request: 2, method: "POST", url, body: "{}", headers: [origin, ["Cookie", "session=secret; b=hidden"], ["Authorization", "Bearer secret"], ["Content-Type", "application/json"]] },
  { seq: 4, run: 1, kind: "ran", at: 10, request: 2, did: "moved" },
  { seq: 5, run: 1, kind: "answered", at: 12, request: 2, answer: { status: 200, headers: [["Content-Type", "application/json"], ["Set-Cookie", "session=secret; HttpOnly"]] } },
];

test("HAR 1.2 has the requests and their answers, and no secrets", () => {
  const text = harOf({ run: { requests: [post] } }, events, origin[1], new Date("2026-01-02T03:04:05Z"));
  const { log } = JSON.parse(text);
  assert.equal(log.version, "1.2");
  assert.deepEqual(log.entries.map((e) => [e.request.method, e.response.status, e.startedDateTime, e.time]), [["OPTIONS", 204, "2026-01-02T03:04:05.003Z", 2], ["POST", 200, "2026-01-02T03:04:05.009Z", 3]]);
  assert.deepEqual(log.entries[1].request.postData, { mimeType: "application/json", text: "{}" });
  for (const entry of log.entries) {
    for (const part of ["cookies", "headers", "queryString", "headersSize", "bodySize"]) assert.ok(part in entry.request, part);
    for (const part of ["statusText", "httpVersion", "cookies", "headers", "content", "redirectURL"]) assert.ok(part in entry.response, part);
  }
  assert.doesNotMatch(text, /secret|hidden/);
  assert.match(text, /session=…; b=…/);
  // Go reads it back: TestPageLogic.
  if (process.env.LAB_HAR) writeFileSync(process.env.LAB_HAR, text);
});

test("a test vector is a case with what is wanted of it", () => {
  const c = { page: { url: "http://stranger.localhost:7700/" }, requests: [post], answers: [{ on: "actual", answer: { status: 200 } }] };
  const sent = { method: "POST", url, headers: [origin], body: post.body };
  const trace = { exchanges: [{ ...sent, answer: { status: 200 }, executed: true }, { ...sent, from_cache: true }], verdict: { outcome: "blocked", script: "TypeError" } };
  assert.deepEqual(JSON.parse(vectorOf({ case: c, made: [{ after: 0, trace }] }, "a name")), { name: "a name", ...c, want: [{ sent: [sent], verdict: trace.verdict }] });
  assert.equal(JSON.parse(vectorOf({ case: c, made: [{ after: 0 }] }, "a name")).want, undefined);
});
