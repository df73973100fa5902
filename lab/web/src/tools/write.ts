// A run, written down for other programs.
import type { Header, LedgerEvent, Message, PageRequest, Run } from "../lab";
import type { Progress } from "../run";

const sh = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** The content type that the browser gives a body; undefined if script gave one. */
function typeOf(r: PageRequest): string | undefined {
  if (r.headers?.some(([name]) => name.toLowerCase() === "content-type")) return undefined;
  switch (r.body?.kind) {
    case "text":
      return "text/plain;charset=UTF-8";
    case "plain":
      return "text/plain";
    case "urlencoded":
      return "application/x-www-form-urlencoded";
    case "blob":
      return r.body.type ?? "";
  }
  return "";
}

/** The actual request as a line for a terminal, with what the browser adds that a server goes by. */
export function curlOf(run: Pick<Run, "requests">, origin: string): string {
  return (run.requests ?? []).map((r) => {
    const parts = ["curl", "-i"];
    const method = r.method ?? (r.api === "beacon" || r.api === "ping" ? "POST" : "GET");
    if (method === "HEAD") parts.push("-I");
    else if (method !== (r.body ? "POST" : "GET")) parts.push("-X", method);
    if (origin) parts.push("-H", sh(`Origin: ${origin}`));
    for (const [name, value] of r.headers ?? []) parts.push("-H", sh(`${name}: ${value}`));
    if (r.body?.kind === "form-data") {
      for (const [name, value] of new URLSearchParams(r.body.text ?? "")) parts.push("--form-string", sh(`${name}=${value}`));
    } else if (r.body) {
      const type = typeOf(r);
      if (type !== undefined) parts.push("-H", sh(`Content-Type:${type && " " + type}`)); // with no type curl sends none
      parts.push("--data-raw", sh(r.body.text ?? ""));
    }
    return [...parts, sh(r.url.replace(/^ws/, "http"))].join(" ");
  }).join("\n");
}

/** A HAR entry (http://www.softwareishard.com/blog/har-12-spec/). */
interface Entry {
  pageref: string;
  startedDateTime: string;
  time: number;
  request: Record<string, unknown>;
  response: Record<string, unknown>;
  cache: object;
  timings: { send: number; wait: number; receive: number };
  _resourceType: string;
}

/** What the servers recorded, as HAR 1.2. Values of cookies and credentials stay here. */
export function harOf(p: Pick<Progress, "run">, events: LedgerEvent[], page: string, began: Date): string {
  const answered = new Map(events.filter((e) => e.kind === "answered").map((e) => [e.request, e]));
  const entries = events.filter((e) => e.kind === "arrived").map((e): Entry => {
    const back = answered.get(e.request);
    const took = Math.max(0, (back?.at ?? e.at) - e.at);
    const answer = back?.answer?.headers ?? [];
    const url = e.url ?? "";
    return {
      pageref: "page_1",
      startedDateTime: new Date(began.getTime() + e.at).toISOString(),
      time: took,
      request: {
        method: e.method ?? "GET", url, httpVersion: "HTTP/1.1", cookies: [], headers: fields(e.headers),
        queryString: [...queryOf(url)].map(([name, value]) => ({ name, value })), headersSize: -1, bodySize: e.body?.length ?? 0,
        ...(e.body ? { postData: { mimeType: valueOf(e.headers, "content-type"), text: e.body } } : {}),
      },
      response: {
        status: back?.answer?.status ?? 0, statusText: "", httpVersion: "HTTP/1.1", cookies: [], headers: fields(answer),
        content: { size: 0, mimeType: valueOf(answer, "content-type") }, redirectURL: valueOf(answer, "location"), headersSize: -1, bodySize: -1,
      },
      cache: {}, timings: { send: 0, wait: took, receive: 0 },
      _resourceType: e.preflight ? "preflight" : (p.run.requests?.at(-1)?.api ?? "other"),
    };
  });
  return JSON.stringify({
    log: {
      version: "1.2", creator: { name: "moat lab", version: "1" },
      pages: [{ startedDateTime: began.toISOString(), id: "page_1", title: page, pageTimings: {} }],
      entries,
    },
  }, null, 2);
}

const secret = /^(cookie|set-cookie|authorization|proxy-authorization)$/i;

function fields(h: Header = []): { name: string; value: string }[] {
  return h.map(([name, value]) => ({ name, value: secret.test(name) ? hidden(name, value) : value }));
}

// hidden keeps the names of cookies, and the scheme of credentials.
function hidden(name: string, value: string): string {
  if (/authorization$/i.test(name)) return value.replace(/\s.*/, "") + " …";
  if (/^set-/i.test(name)) return value.replace(/=[^;]*/, "=…");
  return value.replace(/=[^;]*/g, "=…");
}

const valueOf = (h: Header | undefined, name: string): string => h?.find(([n]) => n.toLowerCase() === name)?.[1] ?? "";

function queryOf(url: string): URLSearchParams {
  try {
    return new URL(url).searchParams;
  } catch {
    return new URLSearchParams();
  }
}

/** The run as a case of vectors/browser; what the model made of it is what is wanted. */
export function vectorOf(p: Pick<Progress, "case" | "made">, name: string): string {
  const want = p.made.flatMap((m) => (m.trace ? [{ sent: (m.trace.exchanges ?? []).filter((x) => !x.from_cache).map(messageOf), verdict: m.trace.verdict }] : []));
  return JSON.stringify({ name, ...p.case, ...(want.length === p.case?.requests.length ? { want } : {}) }, null, 2);
}

type Sent = Message & { body?: PageRequest["body"] };

function messageOf(x: Sent): Sent {
  const m: Sent = { method: x.method, url: x.url };
  if (x.headers?.length) m.headers = x.headers;
  if (x.preflight) m.preflight = true;
  if (x.body) m.body = x.body;
  return m;
}
