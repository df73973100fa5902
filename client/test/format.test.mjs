// The format, as the client's own code has it and as test/format.mjs has it, against vectors/ticket.
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import * as f from "./format.mjs";
import { folder, spelled, vectors } from "./vectors.mjs";

const { outputFiles } = await build({
  entryPoints: [fileURLToPath(new URL("../src/token.ts", import.meta.url))],
  bundle: true,
  format: "esm",
  write: false,
});
const { attach, callToken, carry, renewalProof, targetOf } = await import(
  "data:text/javascript;base64," + Buffer.from(outputFiles[0].text).toString("base64")
);

const hex = (text) => new Uint8Array(Buffer.from(text, "hex"));
const decode = (text) => new Uint8Array(Buffer.from(text, "base64url"));
const hmac = (key) => webcrypto.subtle.importKey("raw", hex(key), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
const read = (name) => JSON.parse(readFileSync(new URL(name, folder), "utf8"));

test("the vectors are those of the format", () => {
  for (const [name, value] of Object.entries(vectors)) {
    assert.equal(readFileSync(new URL(name, folder), "utf8"), spelled(value), `${name}: run node test/vectors.mjs`);
  }
});

test("tickets are read back as they were made", () => {
  for (const t of read("tickets.json")) {
    const fields = f.readTicket(Buffer.from(t.secret, "hex"), Buffer.from(t.lineage, "hex"), Buffer.from(t.ticket, "base64url"));
    assert.deepEqual(
      [fields.class, fields.expires, fields.visitor.toString("hex"), fields.number, fields.uses, fields.flags, fields.family],
      [t.class, t.expires, t.visitor, t.number, t.uses, t.flags, t.family],
      t.name,
    );
  }
});

test("the client makes the tokens of the vectors", async () => {
  for (const c of read("calls.json")) {
    const body = c.stream ? "stream" : hex(c.body);
    assert.equal(await callToken(decode(c.ticket), await hmac(c.key), c.index, c.method, c.target, body), c.token, c.target);
  }
  for (const r of read("renewals.json")) assert.equal(await renewalProof(decode(r.ticket), await hmac(r.key)), r.proof);
});

test("the target is what stands in the request line", () => {
  const targets = {
    "https://api.example": "/",
    "https://api.example?": "/?",
    "https://api.example/?": "/?",
    "https://api.example/?#f": "/?",
    "https://api.example/#f?g": "/",
    "https://user@api.example:8443/a//b/?c=/#d#e": "/a//b/?c=/",
    "https://[::1]:8443/a": "/a",
  };
  for (const [url, target] of Object.entries(targets)) assert.equal(targetOf(new URL(url)), target, url);
});

test("a URL carries a token at the end of its query", () => {
  const carried = {
    "wss://api.example": "wss://api.example/?moat=T",
    "https://api.example/?": "https://api.example/?&moat=T",
    "https://api.example/a?b": "https://api.example/a?b&moat=T",
    "https://api.example/a#b?c#d": "https://api.example/a?moat=T#b?c#d",
  };
  for (const [url, want] of Object.entries(carried)) assert.equal(carry(new URL(url), "T"), want);
});

test("a token travels where it causes no preflight that there is not anyway", () => {
  const token = "t".repeat(63);
  const carrier = (init, sameOrigin, method = "GET") => {
    const headers = new Headers(init);
    attach(headers, headers.get("accept") ?? "*/*", token, sameOrigin, method);
    const accept = headers.get("accept");
    assert.equal(headers.get("moat-ticket") ?? accept.slice(accept.indexOf(";moat=") + 6), token);
    return headers.has("moat-ticket") ? "header" : accept.replace(token, "T");
  };
  const room = 128 - ";moat=".length - 63;
  assert.equal(carrier({}, true), "header");
  assert.equal(carrier({}, false), "*/*;moat=T");
  assert.equal(carrier({}, false, "HEAD"), "*/*;moat=T");
  assert.equal(carrier({ accept: "text/html, application/json;q=0.5", "accept-language": "de" }, false), "text/html, application/json;q=0.5;moat=T");
  assert.equal(carrier({ accept: "a/" + "b".repeat(room - 2) }, false), "a/" + "b".repeat(room - 2) + ";moat=T");
  assert.equal(carrier({ accept: "a/" + "b".repeat(room - 1) }, false), "header", "no room");
  assert.equal(carrier({ accept: 'a/b;c="d"' }, false), "header", "a byte that is not safelisted");
  assert.equal(carrier({ authorization: "x" }, false), "header", "a header that is not safelisted");
  for (const method of ["POST", "DELETE", "get"]) assert.equal(carrier({}, false, method), "header");
});
