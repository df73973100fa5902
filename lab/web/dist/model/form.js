// The form that describes a request. It edits a case (browser.Case in JSON) and leaves
// alone what it does not show.

import { h, newID } from "./dom.js";

const scripted = (api) => api === "fetch" || api === "xhr";

const apis = [
  ["fetch", "fetch()"], ["xhr", "XMLHttpRequest"], ["form", "<form>, submitted"], ["link", "<a>, followed"],
  ["img", "<img>"], ["script", "<script>"], ["module", "<script type=module>"], ["stylesheet", "<link rel=stylesheet>"],
  ["font", "@font-face"], ["iframe", "<iframe>"], ["eventsource", "EventSource"], ["beacon", "sendBeacon()"],
  ["ping", "<a ping>"], ["websocket", "WebSocket"],
];

const bodies = {
  fetch: [["", "none"], ["text", "text or JSON"], ["urlencoded", "URLSearchParams"], ["form-data", "FormData"], ["blob", "Blob"], ["buffer", "ArrayBuffer"], ["stream", "ReadableStream"]],
  form: [["", "no fields"], ["urlencoded", "urlencoded"], ["form-data", "multipart/form-data"], ["plain", "text/plain"]],
};

const words = (text) => text.split(/\s+/).filter(Boolean);

/** "Name: value" lines, and back. */
export const linesOf = (header) => (header ?? []).map(([name, value]) => `${name}: ${value}`).join("\n");
export const headerOf = (lines) => lines.split("\n").map((l) => l.trim()).filter(Boolean).map((line) => {
  const at = line.indexOf(":", line.startsWith(":") ? 1 : 0);
  return at < 0 ? [line, ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
});

// What the form shows: group, label, kind, how to read and write the case, for which API.
const request = (c) => c.requests[0];
const fields = [
  { group: "page", id: "page", label: "Page that makes the request", kind: "url", get: (c) => c.page.url, set: (c, v) => { c.page.url = v; } },
  { group: "page", label: "Framed by (nearest first; the last is the tab)", kind: "text", get: (c) => (c.page.ancestors ?? []).join(" "), set: (c, v) => { c.page.ancestors = words(v); } },
  { group: "page", label: "Sandboxed: its origin is “null”", kind: "check", get: (c) => c.page.sandboxed, set: (c, v) => { c.page.sandboxed = v; } },

  { group: "request", id: "api", label: "What makes it", kind: apis, get: (c) => request(c).api, set: (c, v) => { request(c).api = v; } },
  { group: "request", id: "method", label: "Method", kind: "method", for: (api) => scripted(api) || api === "form", get: (c) => request(c).method ?? "", set: (c, v) => { request(c).method = v.trim(); } },
  { group: "request", id: "url", label: "URL", kind: "url", get: (c) => request(c).url, set: (c, v) => { moveCookies(c, v); request(c).url = v; } },
  { group: "request", label: "Headers that script sets", kind: "lines", for: scripted, placeholder: "Content-Type: application/json", get: (c) => linesOf(request(c).headers), set: (c, v) => { request(c).headers = headerOf(v); } },
  { group: "request", label: "Body", kind: bodies.fetch, for: (api) => scripted(api) || api === "beacon", get: (c) => request(c).body?.kind ?? "", set: setBody },
  { group: "request", label: "Fields sent as", kind: bodies.form, for: (api) => api === "form", get: (c) => request(c).body?.kind ?? "", set: setBody },
  { group: "request", label: "Credentials", kind: [["", "same-origin (default)"], ["include", "include"], ["omit", "omit"]], for: (api) => api === "fetch", get: (c) => (request(c).credentials === "same-origin" ? "" : request(c).credentials ?? ""), set: (c, v) => { request(c).credentials = v; } },
  { group: "request", label: "Mode", kind: [["", "cors (default)"], ["no-cors", "no-cors"], ["same-origin", "same-origin"]], for: (api) => api === "fetch", get: (c) => (request(c).mode === "cors" ? "" : request(c).mode ?? ""), set: (c, v) => { request(c).mode = v; } },
  { group: "request", label: "Redirects", kind: [["", "follow (default)"], ["error", "error"], ["manual", "manual"]], for: (api) => api === "fetch", get: (c) => (request(c).redirect === "follow" ? "" : request(c).redirect ?? ""), set: (c, v) => { request(c).redirect = v; } },
  { group: "request", label: "withCredentials", kind: "check", for: (api) => api === "xhr" || api === "eventsource", get: (c) => request(c).with_credentials, set: (c, v) => { request(c).with_credentials = v; } },
  { group: "request", label: "Script listens to the upload", kind: "check", for: (api) => api === "xhr", get: (c) => request(c).upload_listener, set: (c, v) => { request(c).upload_listener = v; } },
  { group: "request", label: "crossorigin attribute", kind: [["", "none"], ["anonymous", "anonymous"], ["use-credentials", "use-credentials"]], for: (api) => ["img", "script", "module", "stylesheet"].includes(api), get: (c) => request(c).crossorigin ?? "", set: (c, v) => { request(c).crossorigin = v; } },
  { group: "request", label: "The user clicked", kind: "check", for: (api) => api === "form" || api === "link", get: (c) => request(c).user_activated, set: (c, v) => { request(c).user_activated = v; } },

  { group: "browser", label: "Browser", kind: [["chromium", "Chrome, Edge"], ["firefox", "Firefox"], ["standard", "the standard's"]], get: (c) => c.browser.profile || "chromium", set: (c, v) => { c.browser.profile = v; } },
  { group: "browser", label: "Third-party cookies are blocked", kind: "check", get: (c) => c.browser.block_third_party_cookies, set: (c, v) => { c.browser.block_third_party_cookies = v; } },
  { group: "more", label: "The page's Content-Security-Policy", kind: "text", get: (c) => c.page.csp ?? "", set: (c, v) => { c.page.csp = v; } },
  { group: "more", label: "Its Cross-Origin-Embedder-Policy", kind: [["", "none"], ["require-corp", "require-corp"], ["credentialless", "credentialless"]], get: (c) => c.page.coep ?? "", set: (c, v) => { c.page.coep = v; } },
  { group: "more", label: "Its Referrer-Policy", kind: "text", get: (c) => c.page.referrer_policy ?? "", set: (c, v) => { c.page.referrer_policy = v.trim(); } },
  { group: "more", label: "The user lets pages reach the local network", kind: "check", get: (c) => c.browser.local_network_allowed, set: (c, v) => { c.browser.local_network_allowed = v; } },
];

function setBody(c, kind) {
  const r = request(c);
  if (!kind) delete r.body;
  else r.body = { ...r.body, kind };
}

// A cookie that was set by the URL goes along when the URL is edited.
function moveCookies(c, url) {
  for (const seed of c.browser.cookies ?? []) if (seed.url === request(c).url) seed.url = url;
}

// JSON from Go leaves empty parts out; the form wants them there.
export function complete(c) {
  const whole = structuredClone(c);
  delete whole.want;
  delete whole.name;
  whole.page ??= { url: "" };
  whole.browser ??= {};
  whole.browser.cookies ??= [];
  whole.requests = whole.requests?.length ? whole.requests : [{ api: "fetch", url: "" }];
  whole.answers ??= [];
  return whole;
}

/** A copy without what is empty, so that it is short in a link. */
function pruned(value) {
  if (Array.isArray(value)) return value.map(pruned);
  if (value === null || typeof value !== "object") return value;
  const kept = {};
  for (const [k, v] of Object.entries(value)) {
    const p = k === "headers" ? v : pruned(v);
    const empty = p === "" || p === false || p === undefined || p === null ||
      (Array.isArray(p) && p.length === 0) || (typeof p === "object" && !Array.isArray(p) && Object.keys(p).length === 0);
    if (!empty || k === "url" || k === "answer") kept[k] = p;
  }
  return kept;
}

export class RequestForm {
  #case = complete({});
  #controls = [];
  #cookies = h("div", { class: "rows" });
  #answers = h("div", { class: "rows" });
  #changed;

  constructor(changed) {
    this.#changed = changed;
    const group = (name, legend, ...rest) => h("fieldset", {}, h("legend", {}, legend), this.#fieldsOf(name), ...rest);
    this.element = h("form", { class: "request", autocomplete: "off", submit: (e) => { e.preventDefault(); this.#edited(); } },
      group("page", "Page"),
      group("request", "Request"),
      group("browser", "Browser",
        h("p", { class: "label" }, "Cookies that it has"), this.#cookies,
        h("button", { type: "button", class: "add", click: () => this.#addCookie() }, "Add a cookie")),
      h("fieldset", {}, h("legend", {}, "What the server answers"), this.#answers,
        h("button", { type: "button", class: "add", click: () => this.#addAnswer() }, "Add an answer"),
        h("p", { class: "hint" }, "The first that fits counts. What none fits gets a bare 404.")),
      h("details", { class: "more" }, h("summary", {}, "Policies of the page, local network"), this.#fieldsOf("more")),
    );
    this.#fill();
  }

  get case() { return pruned(this.#case); }
  set case(c) {
    this.#case = complete(c);
    this.#fill();
  }

  #fieldsOf(group) {
    return fields.filter((f) => f.group === group).map((f) => this.#field(f));
  }

  #field(f) {
    const id = newID();
    const edit = () => {
      f.set(this.#case, f.kind === "check" ? control.checked : control.value);
      this.#edited();
    };
    let control;
    if (Array.isArray(f.kind)) {
      control = h("select", { id, change: edit }, f.kind.map(([value, label]) => h("option", { value }, label)));
    } else if (f.kind === "check") {
      control = h("input", { id, type: "checkbox", change: edit });
    } else if (f.kind === "lines") {
      control = h("textarea", { id, rows: 2, spellcheck: "false", placeholder: f.placeholder, input: edit });
    } else if (f.kind === "method") {
      control = h("select", { id, change: edit }, ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map((m) => h("option", { value: m }, m)));
    } else {
      control = h("input", { id, type: "text", inputmode: f.kind === "url" ? "url" : undefined, spellcheck: "false", autocapitalize: "off", input: edit });
    }
    if (f.id) control.dataset.field = f.id;
    const label = h("label", { for: id }, f.label);
    const row = f.kind === "check" ? h("div", { class: "check" }, control, label) : h("div", { class: "field" }, label, control);
    this.#controls.push({ f, control, row });
    return row;
  }

  #fill() {
    const api = request(this.#case).api;
    for (const { f, control, row } of this.#controls) {
      row.hidden = Boolean(f.for && !f.for(api));
      if (f.kind === "check") {
        control.checked = Boolean(f.get(this.#case));
        continue;
      }
      let value = f.get(this.#case) ?? "";
      if (f.kind === "method") value ||= "GET";
      // What a list does not have, it has from now on: a case may say anything.
      if (control.localName === "select" && ![...control.options].some((o) => o.value === value)) {
        control.append(h("option", { value }, value));
      }
      if (control.value !== value) control.value = value;
    }
    this.#cookies.replaceChildren(...this.#case.browser.cookies.map((seed, i) => this.#cookie(seed, i)));
    this.#answers.replaceChildren(...this.#case.answers.map((rule, i) => this.#answer(rule, i)));
  }

  #edited() {
    const api = request(this.#case).api;
    for (const { f, row } of this.#controls) row.hidden = Boolean(f.for && !f.for(api));
    this.#changed();
  }

  #labelled(label, control, cls = "field") {
    control.id = newID();
    return h("div", { class: cls }, h("label", { for: control.id }, label), control);
  }

  #remove(what, list, i) {
    return h("button", { type: "button", class: "remove", "aria-label": `Remove ${what} ${i + 1}`, click: () => {
      list.splice(i, 1);
      this.#fill();
      this.#edited();
    } }, "Remove");
  }

  #cookie(seed, i) {
    const edit = (set) => (e) => { set(e.target.value); this.#edited(); };
    return h("div", { class: "row" },
      this.#labelled("Set-Cookie", h("input", { type: "text", spellcheck: "false", value: seed.set_cookie ?? "", input: edit((v) => { seed.set_cookie = v; }) }), "field wide"),
      this.#labelled("set by", h("input", { type: "text", spellcheck: "false", value: seed.url ?? "", input: edit((v) => { seed.url = v; }) })),
      this.#labelled("age in s", h("input", { type: "number", min: 0, value: seed.age ?? 0, input: edit((v) => { seed.age = Math.max(0, Math.trunc(Number(v)) || 0); }) }), "field narrow"),
      this.#remove("cookie", this.#case.browser.cookies, i));
  }

  #addCookie() {
    this.#case.browser.cookies.push({ url: request(this.#case).url, set_cookie: "session=1; Secure; HttpOnly; SameSite=Lax", age: 3600 });
    this.#fill();
    this.#edited();
  }

  #answer(rule, i) {
    rule.answer ??= {};
    const edit = (set) => (e) => { set(e.target.value); this.#edited(); };
    const on = h("select", { change: edit((v) => { rule.on = v; }) },
      [["actual", "the request"], ["preflight", "the preflight"], ["", "both"]].map(([value, label]) => h("option", { value }, label)));
    on.value = rule.on ?? "";
    return h("div", { class: "row" },
      this.#labelled("To", on),
      this.#labelled("Status", h("input", { type: "text", inputmode: "numeric", value: rule.answer.status ? String(rule.answer.status) : rule.answer.failure ?? "", input: edit((v) => {
        delete rule.answer.failure;
        rule.answer.status = Math.trunc(Number(v)) || 0;
        // A name of a network error stands for no answer.
        if (!rule.answer.status && v.trim()) rule.answer.failure = v.trim();
      }) }), "field narrow"),
      this.#remove("answer", this.#case.answers, i),
      this.#labelled("of the URL (empty: any)", h("input", { type: "text", spellcheck: "false", value: rule.url ?? "", input: edit((v) => { rule.url = v.trim(); }) }), "field wide"),
      this.#labelled("Headers", h("textarea", { rows: Math.min(6, Math.max(2, (rule.answer.headers ?? []).length + 1)), spellcheck: "false", placeholder: "Access-Control-Allow-Origin: https://app.example", value: linesOf(rule.answer.headers), input: edit((v) => { rule.answer.headers = headerOf(v); }) }), "field wide"));
  }

  #addAnswer() {
    const has = (on) => this.#case.answers.some((r) => (r.on ?? "") === on);
    this.#case.answers.push({ on: has("actual") && !has("preflight") ? "preflight" : "actual", answer: { status: has("actual") && !has("preflight") ? 204 : 200, headers: [] } });
    this.#fill();
    this.#edited();
  }
}
