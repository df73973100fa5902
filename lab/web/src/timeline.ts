// What stands in the four lanes, in order, from all that is known so far.
import type { Header, LedgerEvent, PageRequest, Run, Trace } from "./lab";
import type { Progress } from "./run";

export type Lane = "page" | "browser" | "network" | "backend";

export interface Entry {
  key: string;
  lane: Lane;
  title: string;
  /** What kind of thing it is, in a word. */
  label?: string;
  text?: string;
  /** What an operator could change. */
  fix?: string;
  link?: string;
  headers?: Header;
  tone?: "bad" | "good" | "paid";
}

/** The fields of a request that decide, and those that can be folded away. */
const telling = new Set(["origin", "cookie", "authorization", "content-type", "access-control-request-method", "access-control-request-headers", "upgrade"]);

/** Those of an answer that a browser goes by. */
const answering = /^(access-control-|vary|location|set-cookie|www-authenticate|retry-after|cross-origin-)/i;

export function entries(p: Progress, events: LedgerEvent[]): Entry[] {
  const all: Entry[] = [];
  const many = p.made.length > 1;
  p.made.forEach((m, i) => {
    const request = p.run.do ? undefined : p.run.requests?.at(i - p.made.length);
    const until = p.made[i + 1]?.after ?? Infinity;
    const fresh = events.filter((e) => e.seq > m.after && e.seq <= until);
    const label = many ? `request ${i + 1} of ${p.run.requests?.length}` : undefined;
    if (p.run.from === "lab") all.push({ key: `${i}call`, lane: "page", label: "no page, no browser", title: "the lab's server asks, as curl does" });
    else all.push({ key: `${i}call`, lane: "page", label, title: callOf(p.run, request) });
    if (p.run.do) for (const [n, text] of p.said.entries()) all.push({ key: `${i}said${n}`, lane: "page", label: "the script says", title: text });
    all.push(...exchanges(String(i), fresh, m.trace));
    if (m.trace?.verdict.console && !canReadScript(m.saw?.script)) all.push({ key: `${i}console`, lane: "browser", label: "console, for people only", title: m.trace.verdict.cors_error ?? "an error", text: m.trace.verdict.console, tone: "bad" });
    if (m.saw) all.push(sawEntry(String(i), p.run, request, m.saw));
  });
  return all;
}

const decided: Record<string, string> = { allow: "allowed", preflight: "answered the preflight itself", amend: "allowed, with a changed answer" };

/** What the page does, in a line. */
export function callOf(run: Run, r?: PageRequest): string {
  if (!r) return `${run.do}(lab)`;
  switch (r.api) {
    case "fetch":
    case "xhr":
      return `${r.api === "fetch" ? "fetch" : "XMLHttpRequest"}: ${r.method ?? "GET"} ${short(r.url)}`;
    case "form":
      return `<form method="${(r.method ?? "get").toLowerCase()}"> is submitted to ${short(r.url)}`;
    case "link":
      return `<a href> is followed to ${short(r.url)}`;
    case "beacon":
      return `navigator.sendBeacon(${short(r.url)})`;
    case "websocket":
      return `new WebSocket(${short(r.url)})`;
    case "eventsource":
      return `new EventSource(${short(r.url)})`;
    case "ping":
      return `<a ping> of ${short(r.url)} is followed`;
    case "font":
      return `@font-face loads ${short(r.url)}`;
    case "module":
      return `<script type="module" src> of ${short(r.url)}`;
    case "stylesheet":
      return `<link rel="stylesheet"> of ${short(r.url)}`;
  }
  return `<${r.api} src> of ${short(r.url)}`;
}

/** A URL without its scheme. */
export const short = (url = "") => url.replace(/^[a-z]+:\/\//, "");

function exchanges(prefix: string, events: LedgerEvent[], trace?: Trace): Entry[] {
  const all: Entry[] = [];
  const steps = (after: (n: number) => boolean) => {
    for (const [n, s] of (trace?.steps ?? []).entries()) {
      // That a request leaves stands before it.
      if (after(s.algorithm === "HTTP-network fetch" ? s.exchange - 1 : s.exchange)) all.push({ key: `${prefix}step${n}`, lane: "browser", label: s.algorithm, title: s.text, link: s.link, tone: s.failed ? "bad" : undefined });
    }
  };
  // Preflights of the model's that this browser did not send, for it remembered an approval.
  const preflights = (trace?.exchanges ?? []).filter((x) => x.preflight && !x.from_cache).length;
  const unsent = Math.max(0, preflights - events.filter((e) => e.kind === "arrived" && e.preflight).length);
  steps((n) => n <= unsent);
  const seen: number[] = [];
  for (const e of events) {
    const key = `${prefix}event${e.seq}`;
    switch (e.kind) {
      case "arrived":
        seen.push(e.request);
        all.push({ key: key + "out", lane: "network", label: e.preflight ? "preflight, out" : "request, out", title: `${e.method} ${short(e.url)} →`, headers: e.headers });
        all.push({ key, lane: "backend", label: e.to === "gate" ? "arrived at moat" : "arrived", title: e.preflight ? "the browser's question, which no handler sees" : `${e.method} from ${originOf(e)}`, text: e.body ? `body: ${e.body}` : undefined });
        break;
      case "gate":
        all.push({
          key, lane: "backend", label: "moat decides", title: e.outcome === "deny" ? `refused: ${e.reason}` : (decided[e.outcome ?? "allow"] ?? ""), text: e.text, fix: e.fix,
          tone: e.outcome === "deny" ? "good" : undefined,
        });
        break;
      case "ran":
        all.push({ key, lane: "backend", label: "the handler ran", title: e.did ?? "", tone: /^moved \d/.test(e.did ?? "") ? "paid" : undefined });
        break;
      case "answered":
        all.push({ key, lane: "network", label: "answer, back", title: `← ${e.answer?.status || "no status"}`, headers: (e.answer?.headers ?? []).filter(([name]) => answering.test(name)) });
        if (seen.includes(e.request)) steps((n) => n === seen.indexOf(e.request) + 1 + unsent);
        break;
    }
  }
  // Steps that no arrival stands for: the model saw more requests than came.
  const drawn = new Set(all.map((e) => e.key));
  (trace?.steps ?? []).forEach((s, n) => {
    const key = `${prefix}step${n}`;
    if (!drawn.has(key)) all.push({ key, lane: "browser", label: s.algorithm, title: s.text, link: s.link, tone: s.failed ? "bad" : undefined });
  });
  return all;
}

function originOf(e: LedgerEvent): string {
  if (e.curl) return "no browser";
  const origin = e.headers?.find(([name]) => name === "Origin")?.[1];
  return origin ? short(origin) : "a page that is not named: no Origin";
}

const canReadScript = (script = "") => /^(cors|basic|load|open)/.test(script);

function sawEntry(prefix: string, run: Run, r: PageRequest | undefined, saw: { script: string; read?: string }): Entry {
  const key = `${prefix}saw`;
  if (run.do) return { key, lane: "page", label: "the script saw", title: saw.script };
  if (run.from === "lab") return { key, lane: "page", label: "what it reads", title: saw.script };
  const say = (title: string, tone?: Entry["tone"], text?: string): Entry => ({ key, lane: "page", label: "script sees", title, tone, text });
  switch (saw.script) {
    case "TypeError":
      return say("TypeError: Failed to fetch", "bad", "and nothing of why");
    case "error":
      return say("an error event", "bad", "and nothing of why");
    case "opaque 0":
      return say("an opaque answer: no status, no headers, no body");
    case "":
      return say("nothing: this way of asking tells it nothing");
    case "shown":
      return say("nothing: the answer is shown in another tab");
    case "true":
      return r?.api === "beacon" ? say("true: it was queued, and no more will be said") : say(saw.script);
  }
  return say(saw.script.replace(/^(cors|basic) (\d+)/, "status $2 ($1)"), undefined, saw.read);
}

/** Parts a request's fields into those that decide and the rest. */
export function part(headers: Header = []): [telling: Header, rest: Header] {
  const tells = (h: [string, string]) => telling.has(h[0].toLowerCase()) || answering.test(h[0]);
  return [headers.filter(tells), headers.filter((h) => !tells(h))];
}
