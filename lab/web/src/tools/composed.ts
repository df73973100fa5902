// What the composer composes. It may come out of a link, so nothing of it is believed
// before read has looked at it.
import type { Header, PageRequest, Role, Rule, Run, Target } from "../lab";

export interface Composed {
  from: Role;
  sandboxed: boolean;
  target: Target;
  request: PageRequest;
  answers: Rule[];
  cookies: string[];
  /** The moat.yaml with which the request goes through moat; empty stands for the lab's own. */
  policy: string;
}

export const apis: Record<string, string> = {
  fetch: "fetch()", xhr: "XMLHttpRequest", form: "<form>, submitted", link: "<a>, followed", img: "<img>", script: "<script>", module: "<script type=module>",
  stylesheet: "<link rel=stylesheet>", font: "@font-face", iframe: "<iframe>", eventsource: "EventSource", beacon: "sendBeacon()", ping: "<a ping>", websocket: "WebSocket",
};

export const froms = ["bank", "blog", "stranger", "lab"] as const;
export const methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** The fields that an API has besides its URL. */
export const fieldsOf: Record<string, string[]> = {
  fetch: ["method", "headers", "body", "mode", "credentials", "redirect", "cache", "referrer_policy"],
  xhr: ["method", "headers", "body", "with_credentials", "upload_listener"],
  form: ["method", "body", "referrer_policy"],
  link: ["referrer_policy"], img: ["crossorigin", "referrer_policy"], script: ["crossorigin", "referrer_policy"], module: ["crossorigin", "referrer_policy"],
  stylesheet: ["crossorigin", "referrer_policy"], font: [], iframe: ["referrer_policy"], eventsource: ["with_credentials"], beacon: ["body"], ping: [], websocket: [],
};

/** The kinds of bodies that an API takes. */
export const bodiesOf: Record<string, Record<string, string>> = {
  fetch: { text: "text or JSON", urlencoded: "URLSearchParams", "form-data": "FormData", blob: "Blob", buffer: "ArrayBuffer", stream: "ReadableStream" },
  xhr: { text: "text or JSON", urlencoded: "URLSearchParams", "form-data": "FormData", blob: "Blob", buffer: "ArrayBuffer" },
  form: { urlencoded: "urlencoded", "form-data": "multipart/form-data", plain: "text/plain" },
  beacon: { text: "text", urlencoded: "URLSearchParams", "form-data": "FormData", blob: "Blob" },
};

export const choices: Record<string, string[]> = {
  mode: ["cors", "no-cors", "same-origin"],
  credentials: ["same-origin", "include", "omit"],
  redirect: ["follow", "error", "manual"],
  cache: ["default", "no-store", "reload", "no-cache", "force-cache"],
  crossorigin: ["anonymous", "use-credentials"],
  referrer_policy: ["no-referrer", "origin", "same-origin", "strict-origin-when-cross-origin", "unsafe-url"],
};

export const first: Composed = {
  from: "stranger", sandboxed: false, target: "api",
  request: { api: "fetch", url: "{target}/data" },
  answers: [{ headers: [["Vary", "Origin"]] }, { origin: ["{bank}"], headers: [["Access-Control-Allow-Origin", "{bank}"]] }],
  cookies: [], policy: "",
};

/** Where a path leads; a WebSocket has a scheme of its own. */
export const urlOf = (api: string, path: string): string => `{target${api === "websocket" ? ":ws" : ""}}${path.startsWith("/") ? path : "/" + path}`;

export const pathOf = (url: string): string => url.replace(/^\{target(:ws)?\}/, "") || "/";

/** What the lab is asked to run: only the fields that the API has. */
export function runOf(c: Composed): Omit<Run, "expect"> {
  const has = fieldsOf[c.request.api] ?? [];
  const request: PageRequest = { api: c.request.api, url: urlOf(c.request.api, pathOf(c.request.url)) };
  const from = c.request as unknown as Record<string, unknown>;
  for (const name of has) {
    const value = from[name];
    if (value !== undefined && value !== "" && value !== false && !(Array.isArray(value) && value.length === 0)) Object.assign(request, { [name]: value });
  }
  if (request.body && !bodiesOf[request.api]?.[request.body.kind]) delete request.body;
  return { id: "composed", title: "Composed", from: c.from, sandboxed: (c.sandboxed && c.from !== "lab") || undefined, answers: c.answers, cookies: c.cookies.length ? c.cookies : undefined, requests: [request] };
}

class Wrong extends Error {
  constructor(where: string) {
    super(`The link says something about ${where} that the composer does not know.`);
  }
}

const maxText = 16 * 1024;
const maxList = 50;

function object(v: unknown, where: string): Record<string, unknown> {
  if (v === null || typeof v !== "object" || Array.isArray(v)) throw new Wrong(where);
  return v as Record<string, unknown>;
}

function text(v: unknown, where: string, max = 2000): string {
  if (v === undefined) return "";
  if (typeof v !== "string" || v.length > max) throw new Wrong(where);
  return v;
}

function list(v: unknown, where: string): unknown[] {
  if (v === undefined || v === null) return [];
  if (!Array.isArray(v) || v.length > maxList) throw new Wrong(where);
  return v;
}

function oneOf<T extends string>(v: unknown, all: readonly T[], where: string): T {
  if (!all.includes(v as T)) throw new Wrong(where);
  return v as T;
}

function headers(v: unknown, where: string): Header {
  return list(v, where).map((pair) => {
    const [name, value, ...more] = list(pair, where);
    if (more.length || value === undefined) throw new Wrong(where);
    return [text(name, where, 200), text(value, where)];
  });
}

/** Reads what a link holds. Whatever the composer does not know is an Error. */
export function read(state: unknown): Composed {
  const s = object(state, "the whole");
  const r = object(s.request, "the request");
  const api = oneOf(r.api, Object.keys(apis), "what makes the request");
  const request: PageRequest = { api, url: urlOf(api, pathOf(text(r.url, "the URL"))) };
  const method = text(r.method, "the method", 40);
  if (method) request.method = method;
  if (r.headers !== undefined) request.headers = headers(r.headers, "the request's headers");
  if (r.body !== undefined) {
    const b = object(r.body, "the body");
    request.body = { kind: oneOf(b.kind, [...new Set(Object.values(bodiesOf).flatMap(Object.keys))], "the body's kind"), text: text(b.text, "the body", maxText) };
    if (b.type) request.body.type = text(b.type, "the body's type", 200);
  }
  for (const [name, known] of Object.entries(choices)) if (r[name]) Object.assign(request, { [name]: oneOf(r[name], known, name) });
  if (r.with_credentials) request.with_credentials = true;
  if (r.upload_listener) request.upload_listener = true;
  return {
    from: oneOf(s.from, froms, "the page"),
    sandboxed: s.sandboxed === true,
    target: oneOf(s.target, ["api", "gate"] as const, "the target"),
    request,
    answers: list(s.answers, "the answers").map((a) => {
      const rule = object(a, "an answer");
      const out: Rule = { headers: headers(rule.headers, "the answers' headers") };
      if (rule.on) out.on = oneOf(rule.on, ["preflight", "actual"], "an answer");
      if (rule.path) out.path = text(rule.path, "an answer's path");
      if (rule.status) {
        if (!Number.isInteger(rule.status) || (rule.status as number) < 200 || (rule.status as number) > 599) throw new Wrong("an answer's status");
        out.status = rule.status as number;
      }
      const origins = list(rule.origin, "an answer's origins").map((o) => text(o, "an answer's origins", 300));
      if (origins.length) out.origin = origins;
      return out;
    }),
    cookies: list(s.cookies, "the cookies").map((c) => text(c, "the cookies")),
    policy: text(s.policy, "the policy", 4 * maxText),
  };
}

/** "Name: value" lines, and back. */
export const linesOf = (h: Header | undefined): string => (h ?? []).map(([name, value]) => `${name}: ${value}`).join("\n");

export function headerOf(lines: string): Header {
  return lines.split("\n").map((l) => l.trim()).filter(Boolean).map((line) => {
    const at = line.indexOf(":");
    return at < 0 ? [line, ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  });
}
