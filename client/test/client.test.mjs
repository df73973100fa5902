// The client as a page has it, against a gate that verifies everything. A page's own parts (IndexedDB, locks, the
// document) are tested in a browser, in e2e.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { moat, MoatError } from "../dist/client.mjs";
import { Gate } from "./gate.mjs";

// The client's timers must not keep a test alive.
const { setTimeout: later } = globalThis;
globalThis.setTimeout = (...args) => later(...args).unref();

let gate, origin;
beforeEach(async () => {
  gate = new Gate();
  origin = await gate.listen();
});
afterEach(() => gate.close());

const here = (options) => moat({ gate: origin + "/.moat", ...options });
const echoed = async (answer) => {
  assert.equal(answer.status, 200);
  const echo = await answer.json();
  return { ...echo, body: Buffer.from(echo.body, "base64").toString() };
};
const settle = () => new Promise((done) => later(done, 50));

test("a call opens a session, is honoured, and the next ones add no round trip", async () => {
  const fetch = here();
  assert.equal((await echoed(await fetch(origin + "/v1/chat?a=1#b"))).url, "/v1/chat?a=1");
  assert.equal(gate.count("open"), 1);
  await settle();
  const asked = gate.log.length;
  for (let i = 0; i < 3; i++) await echoed(await fetch(origin + "/v1/chat"));
  assert.deepEqual(gate.log.slice(asked).map((l) => l.kind), ["call", "call", "call"]);
});

test("forty calls at once share what tickets there are, and no index is used twice", async () => {
  const fetch = here();
  for (const answer of await Promise.all(Array.from({ length: 40 }, (_, i) => fetch(`${origin}/${i}`)))) await echoed(answer);
  assert.deepEqual(gate.log.filter((l) => l.code), []);
  assert.equal(gate.count("open"), 1);
  assert.ok(gate.count("renew") <= 2, `${gate.count("renew")} renewals`);
});

test("a warm session is renewed ahead of need, by the same visitor", async () => {
  const fetch = here();
  for (let i = 0; i < 100; i++) {
    await echoed(await fetch(origin + "/"));
    await new Promise(setImmediate);
  }
  assert.equal(gate.count("open"), 1);
  assert.ok(gate.count("renew") >= 3);
  const renewed = gate.log.filter((l) => l.kind === "renew").map((l) => l.ticket);
  assert.equal(new Set(renewed).size, renewed.length, "a ticket is renewed once");
});

test("every kind of body is covered as it is sent", async () => {
  const fetch = here();
  const form = new FormData();
  form.set("field", "välue");
  form.set("file", new Blob(["content"]), "a.txt");
  const bodies = {
    text: ["hällo", "text/plain;charset=UTF-8", "hällo"],
    "search params": [new URLSearchParams({ a: "1 2" }), "application/x-www-form-urlencoded;charset=UTF-8", "a=1+2"],
    blob: [new Blob(["x"], { type: "image/png" }), "image/png", "x"],
    "typed array": [new TextEncoder().encode("bytes").subarray(1), undefined, "ytes"],
    buffer: [new TextEncoder().encode("bytes").buffer, undefined, "bytes"],
    "data view": [new DataView(new TextEncoder().encode("bytes").buffer, 2), undefined, "tes"],
    form: [form, /^multipart\/form-data; boundary=/, /välue[^]*content/],
    empty: ["", "text/plain;charset=UTF-8", ""],
    none: [undefined, undefined, ""],
  };
  for (const [name, [body, type, text]] of Object.entries(bodies)) {
    const echo = await echoed(await fetch(origin + "/", { method: "POST", body }));
    const check = (got, want) => (want instanceof RegExp ? assert.match(got, want, name) : assert.equal(got, want, name));
    check(echo.type, type);
    check(echo.body, text);
  }
});

test("a stream is sent as it comes, and its proof says that it does not cover it", async () => {
  const stream = () => new Blob(["a ", "stream"]).stream();
  assert.equal((await echoed(await here()(origin + "/", { method: "POST", body: stream(), duplex: "half" }))).body, "a stream");
  assert.match(gate.log.at(-1).headers["moat-ticket"], /\.stream$/);
  gate.streams = false;
  const refused = await here()(origin + "/", { method: "POST", body: stream(), duplex: "half" });
  assert.equal((await refused.json()).code, "ticket-body-unproved");
});

test("a Request is sent with all that it has, and with what init changes", async () => {
  const fetch = here();
  const request = new Request(origin + "/a", { method: "PUT", body: "x", headers: { "content-type": "text/x", "x-own": "1" } });
  let echo = await echoed(await fetch(request));
  assert.deepEqual([echo.method, echo.type, echo.body], ["PUT", "text/x", "x"]);
  assert.equal(gate.log.at(-1).headers["x-own"], "1");
  assert.equal(request.headers.get("moat-ticket"), null);
  echo = await echoed(await fetch(new Request(origin + "/a", { method: "POST", body: "x" }), { body: "y" }));
  assert.deepEqual([echo.method, echo.body], ["POST", "y"]);
});

test("methods and targets are proved in the spelling of the wire", async () => {
  const fetch = here();
  for (const method of ["get", "post", "PATCH", "delete", "Put"]) {
    assert.equal((await echoed(await fetch(origin + "/", { method }))).method, method.toUpperCase());
  }
  // An empty query ("/?") is in e2e: Node's fetch drops its "?", browsers send it.
  const targets = {
    "": "/",
    "/a b/ü?q=ä b&c='\"<>": "/a%20b/%C3%BC?q=%C3%A4%20b&c=%27%22%3C%3E",
    "/a/../b/./c": "/b/c",
    "/%2e/%2F%zz?%": "/%2F%zz?%",
    "/a?b?c=/../d": "/a?b?c=/../d",
  };
  for (const [asked, sent] of Object.entries(targets)) {
    assert.equal((await echoed(await fetch(origin + asked))).url, sent, asked);
  }
});

test("a URL carries its token at the end of the query", async () => {
  const wrapped = here();
  for (const path of ["/ws", "/ws?", "/ws?room=1", "/ws#x"]) {
    const url = await wrapped.url(origin + path);
    await echoed(await fetch(url));
    const code = (await (await fetch(url)).json()).code;
    assert.equal(code, "ticket-used", "a second time");
  }
  assert.match(await wrapped.url(origin.replace("http", "ws") + "/ws"), /^ws:.*\/ws\?moat=[\w-]{63}$/);
  assert.equal((await echoed(await fetch(await wrapped.url(origin + "/", { method: "POST" }), { method: "POST" }))).method, "POST");
});

test("other origins get no ticket, and the native fetch says what is wrong with a URL", async () => {
  const other = new Gate();
  const there = await other.listen();
  try {
    const fetch = here();
    assert.equal((await fetch(there + "/")).status, 401);
    assert.equal(other.log[0].code, "ticket-missing");
    assert.equal(await fetch.url(there + "/x"), there + "/x");
    assert.equal(gate.log.length, 0);
    await assert.rejects(fetch("http://["), TypeError);
  } finally {
    await other.close();
  }
});

test("a gate that forgot its tickets costs one more round, and the call is made again", async () => {
  const fetch = here();
  await echoed(await fetch(origin + "/"));
  await settle();
  gate.restart();
  assert.equal((await echoed(await fetch(origin + "/", { method: "POST", body: "again" }))).body, "again");
  assert.equal(gate.count("open"), 2);
});

test("a call is made again once, not for ever, and a stream never", async () => {
  const fetch = here();
  gate.judge = () => "ticket-proof-invalid";
  const answer = await fetch(origin + "/");
  assert.equal((await answer.json()).code, "ticket-proof-invalid");
  assert.equal(gate.count("call"), 2);
  await fetch(origin + "/", { method: "POST", body: new Blob(["x"]).stream(), duplex: "half" });
  assert.equal(gate.count("call"), 3);
});

test("an upstream's own 401 is the caller's", async () => {
  const fetch = here();
  gate.judge = () => "login-required";
  assert.equal((await (await fetch(origin + "/")).json()).code, "login-required");
  assert.equal(gate.count("call"), 1);
});

test("a 401 that is no problem document is the caller's, whatever is in it", async () => {
  for (const body of ["null", "", "<p>no", '"ticket-used"', '{"code":["ticket-"]}', '{"code":null}']) {
    const fetch = here({ nativeFetch: async (input, init) => (input instanceof Request ? new Response(body, { status: 401 }) : globalThis.fetch(input, init)) });
    assert.equal(await (await fetch(origin + "/")).text(), body);
  }
});

test("a ticket that outlived its time by our clock is not tried, and none outlives a clock that was set back", async (t) => {
  const fetch = here();
  await echoed(await fetch(origin + "/"));
  await settle();
  const now = Date.now;
  t.after(() => (Date.now = now));
  for (const skew of [121_000, -121_000]) {
    const before = gate.count("renew");
    gate.now = () => Math.floor(now() / 1000);
    Date.now = () => now() + skew;
    await echoed(await fetch(origin + "/"));
    assert.equal(gate.count("renew"), before + 1);
    await settle();
  }
  assert.deepEqual(gate.log.filter((l) => l.code), []);
});

test("a clock that is wrong by a year does not matter", async (t) => {
  const now = Date.now;
  t.after(() => (Date.now = now));
  gate.now = () => Math.floor(now() / 1000);
  Date.now = () => now() - 365 * 86_400_000;
  const fetch = here();
  for (let i = 0; i < 40; i++) await echoed(await fetch(origin + "/"));
  assert.deepEqual(gate.log.filter((l) => l.code), []);
});

test("while the gate is away the native error passes, and afterwards all is well", async () => {
  const fetch = here();
  await echoed(await fetch(origin + "/"));
  await settle();
  const { port } = gate.server.address();
  await gate.close();
  for (let i = 0; i < 3; i++) await assert.rejects(fetch(origin + "/"), TypeError);
  await gate.listen(port);
  await echoed(await fetch(origin + "/"));
  assert.equal(gate.count("open"), 1);
});

test("an aborted call stops waiting, and what it waited for goes on", async () => {
  let release;
  const held = new Promise((done) => (release = done));
  const fetch = here({
    nativeFetch: async (input, init) => {
      if (String(input).endsWith("/tickets")) await held;
      return globalThis.fetch(input, init);
    },
  });
  const abort = new AbortController();
  const aborted = fetch(origin + "/aborted", { signal: abort.signal });
  const other = fetch(origin + "/other");
  abort.abort();
  await assert.rejects(aborted, { name: "AbortError" });
  release();
  await echoed(await other);
  await assert.rejects(fetch(origin + "/", { signal: AbortSignal.abort(new Error("mine")) }), { message: "mine" });
  assert.deepEqual(gate.log.filter((l) => l.kind === "call").map((l) => l.url), ["/other"]);
});

test("a refusal of tickets is a MoatError with the gate's code", async () => {
  const told = [];
  const fetch = here({ onError: (error) => told.push(error.code) });
  gate.failing = [429, "rate-limited"];
  await assert.rejects(fetch(origin + "/"), (error) => {
    assert.ok(error instanceof MoatError);
    assert.deepEqual([error.code, error.status, error.retryAfter], ["rate-limited", 429, 7]);
    return true;
  });
  gate.failing = undefined;
  await echoed(await fetch(origin + "/"));
  assert.deepEqual(told, ["rate-limited"]);
});

test("what is no gate is said to be none", async () => {
  const fetch = moat({
    gate: origin + "/.moat",
    nativeFetch: async () => new Response("<!doctype html>", { headers: { "content-type": "text/html" } }),
  });
  await assert.rejects(fetch(origin + "/"), { name: "MoatError", code: "gate-answer", message: /is that moat's address/ });
});

test("without crypto.subtle a call is refused at once, and nothing is sent", async (t) => {
  const { subtle } = crypto;
  Object.defineProperty(crypto, "subtle", { value: undefined, configurable: true });
  t.after(() => Object.defineProperty(crypto, "subtle", { value: subtle, configurable: true }));
  for (const call of [(f) => f(origin + "/"), (f) => f.url(origin + "/"), (f) => f.ready()]) {
    await assert.rejects(call(here()), { name: "MoatError", code: "insecure-context", message: /https/ });
  }
  assert.equal(gate.log.length, 0);
});

test("ready waits until a ticket is at hand", async () => {
  const fetch = here();
  await fetch.ready();
  await fetch.ready();
  assert.deepEqual(gate.log.map((l) => l.kind), ["open"]);
});

test("a challenge is solved, once for all calls that wait, and its progress is told", async () => {
  const progress = [];
  const fetch = here({ onProgress: (done) => progress.push(done) });
  gate.challenges = 1;
  for (const answer of await Promise.all([fetch(origin + "/1"), fetch(origin + "/2")])) await echoed(answer);
  assert.deepEqual(gate.log.filter((l) => l.kind === "open").map((l) => l.code), ["challenge-required", undefined]);
  assert.deepEqual(progress, [0, 0.5, 1]);
});

test("after two challenges that were not solved in time a call is given up", async () => {
  const fetch = here();
  gate.challenges = 1;
  gate.late = true;
  await assert.rejects(fetch(origin + "/"), { name: "MoatError", code: "challenge-failed" });
  assert.deepEqual(gate.log.map((l) => l.code), ["challenge-required", "challenge-failed", "challenge-failed"]);
});

test("a challenge that no gate asks for is not worked on", async () => {
  const fetch = here();
  gate.challenges = 1;
  gate.challenge = { puzzles: 16, bits: 30 };
  await assert.rejects(fetch(origin + "/"), { name: "MoatError", code: "challenge-unsolved", message: /too hard/ });
});

test("where a page is rendered on a server, there is no gate and the native fetch is called", async () => {
  const fetch = moat();
  assert.equal((await fetch(origin + "/")).status, 401);
  await assert.rejects(fetch("/relative"), TypeError);
  assert.deepEqual(gate.log.map((l) => l.kind), ["call"]);
});

// A page's globals, as far as the client looks at them, while work runs.
const asPage = async (navigator, globals, work) => {
  const added = { document: { getElementById: () => null }, navigator, ...globals };
  const before = Object.fromEntries(Object.keys(added).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]));
  for (const [name, value] of Object.entries(added)) Object.defineProperty(globalThis, name, { value, configurable: true, enumerable: true, writable: true });
  try {
    await work();
  } finally {
    for (const [name, was] of Object.entries(before)) {
      if (was) Object.defineProperty(globalThis, name, was);
      else delete globalThis[name];
    }
  }
};

// What a browser's navigator is like: its properties are the prototype's.
const navigatorOf = (properties) => Object.create(properties);
const linux = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) ";
const chromium = (properties) => ({
  userAgent: linux + "Chrome/156.0.0.0 Safari/537.36",
  userAgentData: { brands: [{ brand: "Chromium" }, { brand: "Not)A;Brand" }] },
  webdriver: false,
  ...properties,
});

test("the request for a ticket says what there is to see of a program that drives the browser", async () => {
  const own = navigatorOf(chromium());
  Object.defineProperty(own, "webdriver", { get: () => false });
  const removed = chromium();
  delete removed.webdriver;
  const cases = {
    "Chromium": [navigatorOf(chromium()), {}, undefined],
    "Firefox": [navigatorOf({ userAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0", webdriver: false }), {}, undefined],
    "a browser of before navigator.webdriver": [navigatorOf({ userAgent: "Mozilla/5.0 (Macintosh) Version/16.4 Safari/605.1.15" }), {}, undefined],
    "a page with names of its own": [navigatorOf(chromium()), { pw: 1, __pwa: 1, webdriver: 1, driver: 1, cdc_map: 1, phantom: 1 }, undefined],
    "WebDriver": [navigatorOf(chromium({ webdriver: true })), {}, 1],
    "headless, by the user agent": [navigatorOf(chromium({ userAgent: linux + "HeadlessChrome/156.0.0.0 Safari/537.36" })), {}, 2],
    "headless, by the brands": [navigatorOf(chromium({ userAgentData: { brands: [{ brand: "HeadlessChrome" }] } })), {}, 2],
    "replaced": [own, {}, 4],
    "removed": [navigatorOf(removed), {}, 4],
    "ChromeDriver's own": [navigatorOf(chromium()), { cdc_adoQpoasnfa76pfcZLmcfl_Array: Array }, 8],
    "Playwright's own": [navigatorOf(chromium()), { __pwInitScripts: {} }, 8],
    "all of them": [navigatorOf(chromium({ webdriver: true, userAgent: "HeadlessChrome" })), { __playwright__binding__: 1 }, 11],
    "what throws when it is looked at": [navigatorOf(chromium({ userAgentData: {} })), {}, undefined],
  };
  for (const [name, [navigator, globals, want]] of Object.entries(cases)) {
    await asPage(navigator, globals, async () => {
      assert.equal((await here()(origin + "/")).status, 200, name);
      assert.equal(gate.log.at(-2).kind, "open", name);
      assert.equal(gate.log.at(-2).signs, want, name);
    });
  }
});

test("renewals say so too, and where there is no page there are no signs", async () => {
  gate.uses = 1;
  await asPage(navigatorOf(chromium({ webdriver: true })), {}, async () => {
    const fetch = here();
    for (let i = 0; i < 3; i++) await echoed(await fetch(origin + "/"));
  });
  assert.ok(gate.count("renew") > 0);
  for (const asked of gate.log.filter((l) => l.kind !== "call")) assert.equal(asked.signs, 1, asked.kind);
  await echoed(await here()(origin + "/"));
  assert.equal(gate.log.at(-2).signs, undefined);
});
