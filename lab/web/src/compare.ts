// The model's word against this browser's: what arrived at the servers, and what the page's
// script saw.
import type { Header, LedgerEvent, Message, Run } from "./lab";
import type { Made } from "./run";

export interface Difference {
  /** Which request, from 1. */
  request: number;
  what: string;
  model: string;
  browser: string;
}

/** The fields that say how a browser sees a request. */
const told = [
  "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-User", "Cookie",
  "Access-Control-Request-Method", "Access-Control-Request-Headers",
];

/** Whether a preflight of the model's was not sent, for the browser remembered an approval of
 * before this run, which the model knows nothing of. */
export function rememberedBefore(x: Message, came: LedgerEvent[]): boolean {
  return !!x.preflight && !came.some((e) => e.preflight && e.url === x.url) && came.some((e) => !e.preflight && e.url === x.url);
}

export function compare(made: Made[], events: LedgerEvent[], run: Run, servers: string[]): Difference[] {
  const found: Difference[] = [];
  const names = new Set((run.cookies ?? []).map((line) => line.split("=")[0]!.trim()));
  made.forEach((m, i) => {
    if (!m.trace || !m.saw) return;
    const until = made[i + 1]?.after ?? Infinity;
    const came = events.filter((e) => e.kind === "arrived" && e.seq > m.after && e.seq <= until);
    const sent = (m.trace.exchanges ?? []).filter((x) => !x.from_cache && servers.includes(new URL(x.url.replace(/^ws/, "http")).origin) && !rememberedBefore(x, came));
    const note = (what: string, model: string, browser: string) => {
      if (model !== browser) found.push({ request: i + 1, what, model, browser });
    };
    note("what arrived", sent.map(line).join(", then ") || "nothing", came.map(line).join(", then ") || "nothing");
    for (const [at, e] of came.entries()) {
      const x = sent[at];
      if (!x || line(x) !== line(e)) break;
      for (const name of told) note(`${name} of ${line(e)}`, value(x.headers, name, names), value(e.headers, name, names));
    }
    note("what script saw", m.trace.verdict.script || "nothing", m.saw.script || "nothing");
  });
  return found;
}

const line = (m: Pick<Message, "method" | "url"> | LedgerEvent) => `${m.method} ${m.url?.replace(/^ws/, "http")}`;

// value is a field's. Of cookies those count that the run has set: the reader's browser may
// hold others.
function value(headers: Header | undefined, name: string, cookies: Set<string>): string {
  const all = (headers ?? []).filter(([n]) => n.toLowerCase() === name.toLowerCase()).map(([, v]) => v);
  if (name !== "Cookie") return all.join(", ") || "none";
  const pairs = all.flatMap((v) => v.split(/;\s*/)).map((c) => c.split("=")[0]!);
  return pairs.filter((c) => cookies.has(c)).sort().join("; ") || "none";
}

/** The report to copy. */
export function report(title: string, differences: Difference[], c: unknown): string {
  return [
    `moat lab: the model and this browser differ in "${title}"`,
    `Browser: ${navigator.userAgent}`,
    "",
    ...differences.map((d) => `- request ${d.request}, ${d.what}: the model says ${d.model}; the browser did ${d.browser}`),
    "",
    "The case:",
    JSON.stringify(c, null, 2),
  ].join("\n");
}
