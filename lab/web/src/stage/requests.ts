// How a page makes each kind of request, and what its script comes to see. The words are
// those of browser.Verdict.Script, so that the model's can be compared to them.
import type { PageRequest } from "../lab";
import type { Saw } from "./protocol";

type Make = (r: PageRequest, tab?: string) => Promise<Saw> | Saw;

const maxRead = 2000;

function bodyOf(r: PageRequest): BodyInit | undefined {
  const text = r.body?.text ?? "";
  switch (r.body?.kind) {
    case "text":
    case "plain":
      return text;
    case "urlencoded":
      return new URLSearchParams(text);
    case "form-data": {
      const form = new FormData();
      for (const [name, value] of new URLSearchParams(text)) form.append(name, value);
      return form;
    }
    case "blob":
      return new Blob([text], { type: r.body.type ?? "" });
    case "buffer":
      return new TextEncoder().encode(text);
    case "stream":
      return new Blob([text]).stream();
  }
  return undefined;
}

async function makeFetch(r: PageRequest): Promise<Saw> {
  const init: RequestInit & { duplex?: string } = {};
  if (r.method) init.method = r.method;
  if (r.mode) init.mode = r.mode as RequestMode;
  if (r.credentials) init.credentials = r.credentials as RequestCredentials;
  if (r.redirect) init.redirect = r.redirect as RequestRedirect;
  if (r.cache) init.cache = r.cache as RequestCache;
  if (r.referrer_policy) init.referrerPolicy = r.referrer_policy as ReferrerPolicy;
  if (r.headers) init.headers = r.headers;
  if (r.body) init.body = bodyOf(r);
  if (r.body?.kind === "stream") init.duplex = "half";
  try {
    const answer = await fetch(r.url, init);
    const text = await answer.text().catch(() => "");
    return { script: `${answer.type} ${answer.status}`, read: text.slice(0, maxRead), headers: [...answer.headers.keys()].sort() };
  } catch (e) {
    return { script: e instanceof TypeError ? "TypeError" : String(e) };
  }
}

function makeXHR(r: PageRequest): Promise<Saw> {
  return new Promise((done) => {
    try {
      const x = new XMLHttpRequest();
      x.open(r.method || "GET", r.url);
      x.withCredentials = !!r.with_credentials;
      for (const [name, value] of r.headers ?? []) x.setRequestHeader(name, value);
      if (r.upload_listener) x.upload.onprogress = () => {};
      x.onload = () => {
        const names = x.getAllResponseHeaders().trim().split(/\r?\n/).filter(Boolean).map((line) => line.split(":")[0]!.toLowerCase());
        done({ script: `load ${x.status}`, read: x.responseText.slice(0, maxRead), headers: [...new Set(names)].sort() });
      };
      x.onerror = () => done({ script: "error" });
      x.send(bodyOf(r) as XMLHttpRequestBodyInit | undefined);
    } catch {
      done({ script: "throws" });
    }
  });
}

// element is what loads by being put into the document.
function element(tag: string, fixed: Record<string, string>, address: "src" | "href" = "src"): Make {
  return (r) =>
    new Promise((done) => {
      const e = document.createElement(tag);
      e.onload = () => done({ script: "load" });
      e.onerror = () => done({ script: "error" });
      const attributes = { ...fixed, referrerpolicy: r.referrer_policy, crossorigin: r.crossorigin, [address]: r.url };
      for (const [name, value] of Object.entries(attributes)) if (value) e.setAttribute(name, value);
      document.body.append(e);
    });
}

async function makeFont(r: PageRequest): Promise<Saw> {
  try {
    await new FontFace("f" + Math.random(), `url(${JSON.stringify(r.url)})`).load();
    return { script: "load" };
  } catch (e) {
    // Whether the bytes are a font is not the question here.
    return { script: e instanceof DOMException && e.name === "SyntaxError" ? "load" : "error" };
  }
}

function makeEventSource(r: PageRequest): Promise<Saw> {
  return new Promise((done) => {
    const source = new EventSource(r.url, { withCredentials: !!r.with_credentials });
    const end = (script: string, read?: string) => {
      source.close();
      done({ script, read });
    };
    source.onopen = () => setTimeout(() => end("open"), 500); // unless something comes before
    source.onmessage = (e) => end("open", String(e.data).slice(0, maxRead));
    source.onerror = () => end("error");
  });
}

function makeBeacon(r: PageRequest): Saw {
  try {
    return { script: String(navigator.sendBeacon(r.url, bodyOf(r) as Exclude<BodyInit, ReadableStream> | undefined)) };
  } catch {
    return { script: "TypeError" };
  }
}

function makePing(r: PageRequest): Saw {
  const a = document.createElement("a");
  a.href = "#";
  a.ping = r.url;
  document.body.append(a);
  a.click();
  return { script: "" };
}

function makeWebSocket(r: PageRequest): Promise<Saw> {
  return new Promise((done) => {
    try {
      const socket = new WebSocket(r.url);
      const end = (script: string, read?: string) => {
        done({ script, read });
        socket.close();
      };
      socket.onopen = () => {
        if (r.body?.text) socket.send(r.body.text);
        setTimeout(() => end("open"), 700); // unless something comes before
      };
      socket.onmessage = (e) => end("open", String(e.data).slice(0, maxRead));
      socket.onerror = () => end("error");
    } catch {
      done({ script: "throws" });
    }
  });
}

// fields are those of a form's body. A body of text/plain is "name=value", so that the
// attacker puts his JSON around the equals sign.
function fields(r: PageRequest): [string, string][] {
  const text = r.body?.text ?? "";
  if (r.body?.kind !== "plain") return [...new URLSearchParams(text)];
  const at = text.indexOf("=");
  return at < 0 ? [[text, ""]] : [[text.slice(0, at), text.slice(at + 1)]];
}

// A form or a link leads its tab away: the page has opened another one for that.
function makeForm(r: PageRequest, tab?: string): Saw {
  const form = document.createElement("form");
  const url = new URL(r.url, location.href);
  form.method = r.method || "get";
  form.enctype = { "form-data": "multipart/form-data", plain: "text/plain" }[r.body?.kind ?? ""] ?? "application/x-www-form-urlencoded";
  form.target = tab ?? "_self";
  const all = fields(r);
  if (form.method === "get") {
    all.push(...url.searchParams);
    url.search = "";
  }
  form.action = url.href;
  for (const [name, value] of all) {
    const input = document.createElement("input");
    input.type = "hidden";
    input.name = name;
    input.value = value;
    form.append(input);
  }
  document.body.append(form);
  const activated = clicked();
  form.submit();
  return { script: "", activated };
}

function makeLink(r: PageRequest, tab?: string): Saw {
  const a = document.createElement("a");
  a.href = r.url;
  a.target = tab ?? "_self";
  a.referrerPolicy = r.referrer_policy ?? "";
  document.body.append(a);
  const activated = clicked();
  a.click();
  return { script: "", activated };
}

const clicked = () => !!navigator.userActivation?.isActive;

const makes: Record<string, Make> = {
  fetch: makeFetch,
  xhr: makeXHR,
  img: element("img", {}),
  script: element("script", {}),
  module: element("script", { type: "module" }),
  stylesheet: element("link", { rel: "stylesheet" }, "href"),
  iframe: element("iframe", {}),
  font: makeFont,
  eventsource: makeEventSource,
  beacon: makeBeacon,
  ping: makePing,
  websocket: makeWebSocket,
  form: makeForm,
  link: makeLink,
};

const patience = 8000;

/** Makes the request, and tells what script saw. */
export async function make(r: PageRequest, tab?: string): Promise<Saw> {
  const one = makes[r.api];
  if (!one) throw new Error(`the stage knows no ${JSON.stringify(r.api)}`);
  return Promise.race([one(r, tab), new Promise<Saw>((done) => setTimeout(() => done({ script: `no answer in ${patience / 1000} s` }), patience))]);
}
