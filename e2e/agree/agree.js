// What a page of the comparison can do: make a case's requests, one after another, and
// tell what script came to see of each. A page that frames another passes the word on.
"use strict";

const bodyOf = (b) => {
  switch (b?.kind) {
    case "text": return b.text ?? "";
    case "urlencoded": return new URLSearchParams(b.text ?? "");
    case "form-data": { const f = new FormData(); f.set("a", b.text ?? ""); return f; }
    case "blob": return new Blob([b.text ?? ""], { type: b.type ?? "" });
    case "buffer": return new TextEncoder().encode(b.text ?? "").buffer;
    case "stream": return new Blob([b.text ?? ""]).stream();
  }
  return undefined;
};

const element = (tag, properties, parent = document.body) => new Promise((done) => {
  const e = document.createElement(tag);
  e.onload = () => done("load");
  e.onerror = () => done("error");
  for (const [name, value] of Object.entries(properties)) {
    if (value !== undefined && value !== "") e.setAttribute(name, value);
  }
  parent.appendChild(e);
});

const does = {
  async fetch(r) {
    const init = {};
    for (const [name, key] of [["method", "method"], ["mode", "mode"], ["credentials", "credentials"], ["redirect", "redirect"],
      ["cache", "cache"], ["referrerPolicy", "referrer_policy"]]) if (r[key]) init[name] = r[key];
    if (r.headers) { init.headers = new Headers(); }
    let request;
    try {
      if (r.headers) init.headers = r.headers;
      if (r.body) init.body = bodyOf(r.body);
      if (r.body?.kind === "stream") init.duplex = "half";
      const a = await fetch(r.url, init);
      const names = [...a.headers.keys()].sort();
      await a.text().catch(() => {});
      return { script: a.type + " " + a.status, headers: names };
    } catch (e) { return { script: e instanceof TypeError ? "TypeError" : String(e) }; }
  },
  xhr(r) {
    return new Promise((done) => {
      try {
        const x = new XMLHttpRequest();
        x.open(r.method || "GET", r.url);
        x.withCredentials = !!r.with_credentials;
        for (const [name, value] of r.headers ?? []) x.setRequestHeader(name, value);
        if (r.upload_listener) x.upload.onprogress = () => {};
        x.onload = () => done({ script: "load " + x.status, headers: [...new Set(x.getAllResponseHeaders().trim().split(/\r?\n/).filter(Boolean).map((l) => l.split(":")[0].toLowerCase()))].sort() });
        x.onerror = () => done({ script: "error" });
        x.send(bodyOf(r.body));
      } catch (e) { done({ script: "throws" }); }
    });
  },
  img: (r) => element("img", { referrerpolicy: r.referrer_policy, crossorigin: r.crossorigin, src: r.url }),
  script: (r) => element("script", { referrerpolicy: r.referrer_policy, crossorigin: r.crossorigin, src: r.url }),
  module: (r) => element("script", { type: "module", referrerpolicy: r.referrer_policy, crossorigin: r.crossorigin, src: r.url }),
  stylesheet: (r) => element("link", { rel: "stylesheet", referrerpolicy: r.referrer_policy, crossorigin: r.crossorigin, href: r.url }, document.head),
  iframe: (r) => Promise.race([element("iframe", { referrerpolicy: r.referrer_policy, src: r.url }), new Promise((done) => setTimeout(() => done(""), 4000))]),
  async font(r) {
    // Whether the bytes are a font is not the question here.
    try { await new FontFace("f" + Math.random(), "url(" + r.url + ")").load(); return "load"; } catch (e) { return e.name === "SyntaxError" ? "load" : "error"; }
  },
  eventsource(r) {
    return new Promise((done) => {
      const s = new EventSource(r.url, { withCredentials: !!r.with_credentials });
      s.onopen = () => { s.close(); done("open"); };
      s.onerror = () => { s.close(); done("error"); };
    });
  },
  async beacon(r) { try { return String(navigator.sendBeacon(r.url, bodyOf(r.body))); } catch (e) { return "TypeError"; } },
  async ping(r) {
    const a = document.createElement("a");
    a.href = "#"; a.ping = r.url;
    document.body.appendChild(a);
    a.click();
    return "";
  },
  websocket(r) {
    return new Promise((done) => {
      try {
        const s = new WebSocket(r.url);
        s.onopen = () => { s.close(); done("open"); };
        s.onerror = () => done("error");
      } catch (e) { done("throws"); }
    });
  },
  async form(r) {
    const f = document.createElement("form");
    f.method = r.method || "get"; f.action = r.url;
    f.enctype = { "form-data": "multipart/form-data", plain: "text/plain" }[r.body?.kind] ?? "application/x-www-form-urlencoded";
    document.body.appendChild(f);
    f.submit();
    return "";
  },
  async link(r) {
    const a = document.createElement("a");
    a.href = r.url;
    document.body.appendChild(a);
    a.click();
    return "";
  },
};

const patience = (promise) => Promise.race([promise, new Promise((done) => setTimeout(() => done("no answer in 8 s"), 8000))]);

const play = async (requests) => {
  const saw = [];
  for (const r of requests) {
    const s = await patience(does[r.api](r));
    saw.push(typeof s === "string" ? { script: s } : s);
  }
  return saw;
};

// all plays many cases at once.
const all = (cases) => Promise.all(cases.map(play));

// within lets the page's only frame do it.
const within = (cases) => new Promise((done) => {
  addEventListener("message", (e) => done(e.data), { once: true });
  document.querySelector("iframe").contentWindow.postMessage(cases, "*");
});

if (parent !== window) addEventListener("message", async (e) => { e.source.postMessage(await (document.querySelector("iframe.next") ? within : all)(e.data), "*"); });
