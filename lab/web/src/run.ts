// A run: the requests are made for real, one after another, and what came of each is
// gathered from three sides: the page's script, the servers' ledger, the browser's model.
import { signal } from "@preact/signals";
import { compare, rememberedBefore, type Difference } from "./compare";
import { follow, get, post, settle, startBooks } from "./lab";
import type { Asked, Boot, Header, LedgerEvent, ModelPage, Played, Prepared, Run, Trace } from "./lab";
import { play, profile, type Case } from "./model";
import { Stage, type Saw } from "./stage";

/** The answers to the four questions. */
export interface Answers {
  left: boolean;
  arrived: boolean;
  ran: boolean;
  readable: boolean;
}

/** What became of one of a run's requests. */
export interface Made {
  saw?: Saw;
  /** The seq of the last event before it. */
  after: number;
  trace?: Trace;
}

export interface Progress {
  phase: "running" | "done" | "failed";
  /** The run, filled in. */
  run: Run;
  number: number;
  made: Made[];
  /** What a lesson's script said while at work. */
  said: string[];
  /** What came of it: the last request's, or the script's. */
  observed?: Answers & { alice: number; error?: string; reason?: string };
  /** Where the model and this browser came to something else; undefined if they were not compared. */
  differences?: Difference[];
  /** Set if this browser sent no preflight, for it remembered an earlier run's. */
  remembered?: boolean;
  case?: Case;
  /** Why it could not be made, or not be compared. */
  fault?: string;
}

/** The run that is shown. */
export const progress = signal<Progress | null>(null);

/** What the probe found out about this browser. */
export const thirdParty = signal<"unknown" | "allowed" | "blocked" | "unresolved">("unknown");

const tabName = "moat-lab-tab";

/** The ways to ask that lead a tab away. */
const navigates = (run: Run) => !run.sandboxed && !!run.requests?.some((r) => r.api === "form" || r.api === "link");

/** Those whose end a script does not learn of. */
const forgets = new Set(["form", "link", "beacon", "ping"]);

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

/** Opens the tab that forms and links lead away. Only a click can. */
export function openTab(): Window | null {
  return window.open("about:blank", tabName, "popup,width=520,height=360");
}

/** Makes a run. Call it from a click, for it may open a tab; or bring one along. */
export async function make(asked: Asked, run: Run, boot: Boot, opened?: Window | null): Promise<Progress> {
  const tab = opened ?? (navigates(run) ? openTab() : null);
  let p: Progress = { phase: "running", run, number: 0, made: [], said: [] };
  const now = (change: Partial<Progress>) => {
    p = { ...p, ...change };
    progress.value = p;
  };
  now({});
  try {
    if (navigates(run) && !tab) throw new Error("The browser did not open a second tab. Allow this page to open one (pop-ups), and run again.");
    if (run.from === "lab") await makeWithoutBrowser(asked, p, now);
    else await makeHere(asked, boot, () => p, now, navigates(run) ? tab : null);
    now({ phase: "done" });
  } catch (e) {
    now({ phase: "failed", fault: e instanceof Error ? e.message : String(e) });
  } finally {
    if (!opened) tab?.close();
  }
  return p;
}

async function makeHere(asked: Asked, boot: Boot, at: () => Progress, now: (change: Partial<Progress>) => void, tab: Window | null): Promise<void> {
  const prepared = await post<Prepared>("run", asked);
  const run = prepared.run;
  follow(prepared.number);
  startBooks(prepared.books);
  now({ run, number: prepared.number });
  const stage = new Stage(!!run.sandboxed);
  stage.onSay = (text) => now({ said: [...at().said, text] });
  try {
    if (run.do) {
      now({ made: [{ after: 0 }] });
      const did = await stage.do(asked.lesson ?? "", run.do, { origins: boot.origins, target: asked.target, run });
      const all = await quiet(prepared.number, 0, true);
      now({ made: [{ after: 0, saw: { script: did.saw } }], observed: observe(all, did.readable, prepared.books.alice) });
      return;
    }
    let all: LedgerEvent[] = [];
    for (const request of run.requests ?? []) {
      const after = all.at(-1)?.seq ?? 0;
      now({ made: [...at().made, { after }] });
      const saw = await stage.make(request, tab ? tabName : undefined);
      all = await quiet(prepared.number, after, forgets.has(request.api));
      if (tab && (request.api === "form" || request.api === "link") && (await ledAway(tab))) saw.script = "shown";
      now({ made: [...at().made.slice(0, -1), { after, saw }] });
    }
    const last = at().made.at(-1);
    const request = run.requests?.at(-1);
    if (last?.saw && request) {
      const fresh = all.filter((e) => e.seq > last.after);
      const readable = canRead(request.api, last.saw.script, !!request.crossorigin, new URL(request.url, prepared.page.url).origin === location.origin);
      now({ observed: observe(fresh, readable, prepared.books.alice) });
    }
    await consult(prepared, asked, boot, all, at, now);
  } finally {
    stage.close();
  }
}

// makeWithoutBrowser has the lab's own client do it, which is none.
async function makeWithoutBrowser(asked: Asked, p: Progress, now: (change: Partial<Progress>) => void): Promise<void> {
  const played = await post<Played>("play", asked);
  const all = played.events ?? [];
  const number = all[0]?.run ?? 0;
  follow(number);
  await settle(number);
  const status = all.findLast((e) => e.kind === "answered")?.answer?.status;
  const made: Made[] = (p.run.requests ?? []).map(() => ({ after: 0 }));
  made[made.length - 1] = { after: 0, saw: { script: status ? `the answer, status ${status}` : "no answer" } };
  now({ number, made: made.slice(-1), observed: { ...played, alice: played.alice ?? 0 } });
}

/** Waits until nothing more comes, and returns the run's events. */
async function quiet(number: number, after: number, slow: boolean): Promise<LedgerEvent[]> {
  const began = performance.now();
  let count = -1;
  for (;;) {
    const all = await settle(number);
    const fresh = all.filter((e) => e.seq > after);
    const open = fresh.filter((e) => e.kind === "arrived").length - fresh.filter((e) => e.kind === "answered").length;
    const waited = performance.now() - began;
    const still = fresh.length === count && open <= 0;
    const enough = slow && !fresh.some((e) => e.kind === "arrived" && !e.preflight) ? 1500 : slow ? 250 : 60;
    if ((still && waited > enough) || waited > 6000) return all;
    count = fresh.length;
    await pause(60);
  }
}

// ledAway reports whether the tab comes to show an answer. It does so a little after the answer
// has left the server.
async function ledAway(tab: Window): Promise<boolean> {
  for (let waited = 0; waited < 2000; waited += 50) {
    try {
      if (tab.location.href !== "about:blank") return true;
    } catch {
      return true; // it is another origin's by now
    }
    await pause(50);
  }
  return false;
}

/** Whether script can read the answer, by what it saw. */
export function canRead(api: string, script: string, crossorigin: boolean, ownOrigin: boolean): boolean {
  switch (api) {
    case "fetch":
      return /^(cors|basic|default) /.test(script);
    case "xhr":
      return script.startsWith("load ");
    case "eventsource":
    case "websocket":
      return script === "open";
    case "module":
    case "font":
      return script === "load";
    case "img":
    case "script":
    case "stylesheet":
      return script === "load" && (crossorigin || ownOrigin);
    case "iframe":
    case "form":
    case "link":
      return ownOrigin && script !== "";
  }
  return false;
}

function observe(events: LedgerEvent[], readable: boolean, before: number): Progress["observed"] {
  const arrived = events.some((e) => e.kind === "arrived" && !e.preflight);
  const alice = events.findLast((e) => e.books)?.books?.alice ?? before;
  // On this machine nothing gets lost on the way: what left has arrived.
  return {
    left: arrived, arrived, ran: events.some((e) => e.kind === "ran"), readable, alice: alice - before,
    reason: events.findLast((e) => e.kind === "gate" && e.outcome === "deny")?.reason,
  };
}

// consult asks the model what a browser does that gets the answers that this one got.
async function consult(prepared: Prepared, asked: Asked, boot: Boot, all: LedgerEvent[], at: () => Progress, now: (change: Partial<Progress>) => void): Promise<void> {
  const c = caseOf(prepared, asked, boot, all, at().made, await cookiesSet(asked, prepared.run));
  try {
    const traces = await play(c);
    const made = at().made.map((m, i) => ({ ...m, trace: traces[i] }));
    const observed = at().observed;
    now({
      made, case: c,
      observed: observed && { ...observed, error: traces.at(-1)?.verdict.cors_error },
      remembered: traces.some((t) => t.exchanges?.some((x) => rememberedBefore(x, all.filter((e) => e.kind === "arrived")))),
      differences: compare(made, all, prepared.run, [boot.origins.api, boot.origins.gate]),
    });
  } catch (e) {
    now({ case: c, fault: `The model could not be asked: ${e instanceof Error ? e.message : e}` });
  }
}

function caseOf(prepared: Prepared, asked: Asked, boot: Boot, all: LedgerEvent[], made: Made[], cookies: string[]): Case {
  const run = prepared.run;
  const arrived = new Map(all.filter((e) => e.kind === "arrived").map((e) => [e.request, e]));
  const answers = all.flatMap((e) => {
    const a = arrived.get(e.request);
    return e.kind === "answered" && e.answer && a ? [{ url: asAsked(run, a), on: a.preflight ? "preflight" : "actual", answer: e.answer }] : [];
  });
  const ago = signedInAgo(asked);
  const hosts = Object.values(boot.origins).map((o) => new URL(o).hostname);
  return {
    page: prepared.page,
    browser: {
      profile: profile(),
      block_third_party_cookies: thirdParty.value === "blocked" || undefined,
      cookies: ago === undefined ? undefined : cookies.map((line) => ({ url: boot.origins[asked.target] + "/sign-in", set_cookie: line, age: ago })),
      addresses: boot.shared ? undefined : Object.fromEntries(hosts.map((h) => [h, "loopback"])),
    },
    requests: (run.requests ?? []).map((r, i) => ({ ...r, user_activated: made[i]?.saw?.activated || undefined })),
    answers: [...answers, ...approvals(all), ...hops(run, prepared.page)],
  };
}

// approvals stand for those that the browser remembered from before: what arrived without a
// preflight had been approved, if it needed that.
function approvals(all: LedgerEvent[]): NonNullable<Case["answers"]> {
  const arrived = all.filter((e) => e.kind === "arrived" && e.url);
  return arrived.filter((e) => !e.preflight && !arrived.some((other) => other.preflight && other.url === e.url)).map((e) => ({
    url: e.url, on: "preflight", answer: {
      status: 204, headers: [
        ["Access-Control-Allow-Origin", e.headers?.find(([name]) => name === "Origin")?.[1] ?? "*"], ["Access-Control-Allow-Credentials", "true"],
        ["Access-Control-Allow-Methods", e.method ?? "GET"], ["Access-Control-Allow-Headers", (e.headers ?? []).map(([name]) => name).join(", ")],
      ],
    },
  }));
}

// hops are the answers of /.lab/hop: the sites that lead on keep no ledger.
function hops(run: Run, page: ModelPage): NonNullable<Case["answers"]> {
  const own = page.sandboxed ? "null" : new URL(page.url).origin;
  const all: NonNullable<Case["answers"]> = [];
  for (const r of run.requests ?? []) {
    let origin = own;
    for (let url = r.url; URL.canParse(url) && new URL(url).pathname === "/.lab/hop"; ) {
      const { searchParams, origin: here } = new URL(url);
      const to = searchParams.get("to") ?? "";
      const allowed: Header = [["Access-Control-Allow-Origin", origin], ["Access-Control-Allow-Credentials", "true"], ["Vary", "Origin"]];
      const names = (r.headers ?? []).map(([name]) => name).join(", ");
      all.push({ url, on: "preflight", answer: { status: 204, headers: [...allowed, ["Access-Control-Allow-Methods", r.method ?? "GET"], ["Access-Control-Allow-Headers", names]] } });
      all.push({ url, on: "actual", answer: { status: Number(searchParams.get("status") ?? 302), headers: [...allowed, ["Location", to]] } });
      if (here !== own) origin = "null";
      url = to;
    }
  }
  return all;
}

// asAsked is the URL as the model has it: the ledger does not tell ws from http.
function asAsked(run: Run, e: LedgerEvent): string {
  const url = e.url ?? "";
  const ws = url.replace(/^http/, "ws");
  return run.requests?.some((r) => r.api === "websocket" && r.url === ws) ? ws : url;
}

// cookiesSet are the lines that the browser got when the reader signed in: a gate in front
// may have made others of the API's.
async function cookiesSet(asked: Asked, run: Run): Promise<string[]> {
  const number = sessionStorage.getItem(signInKey(asked));
  const all = number ? ((await get<LedgerEvent[] | null>(`ledger?run=${number}`)) ?? []) : [];
  const lines = all.flatMap((e) => (e.answer?.headers ?? []).filter(([name]) => name.toLowerCase() === "set-cookie").map(([, value]) => value));
  // The model takes no line that every browser refuses.
  return (lines.length > 0 ? lines : (run.cookies ?? [])).filter((line) => !/;\s*samesite=none/i.test(line) || /;\s*secure/i.test(line));
}

const signInKey = (asked: Asked) => `run in which alice signs in for ${asked.lesson}/${asked.run} at ${asked.target}`;
const signedKey = (asked: Asked) => `signed in for ${asked.lesson}/${asked.run} at ${asked.target}`;

/** Notes that the reader is on the way to sign in for this run. */
export function noteSignIn(asked: Asked): void {
  sessionStorage.setItem(signedKey(asked), String(Date.now()));
}

/** How long ago the reader signed in for this run, in seconds; undefined if he did not. */
export function signedInAgo(asked: Asked): number | undefined {
  const when = Number(sessionStorage.getItem(signedKey(asked)));
  return when ? Math.max(0, Math.floor((Date.now() - when) / 1000)) : undefined;
}

/** Prepares a run, and returns where to sign in for it, on the way back to here. */
export async function signInAddress(asked: Asked): Promise<string | undefined> {
  const prepared = await post<Prepared>("run", asked);
  sessionStorage.setItem(signInKey(asked), String(prepared.number));
  return prepared.sign_in && `${prepared.sign_in}?back=${encodeURIComponent(location.href)}`;
}

/** Finds out what this browser does with the lab's names and with third-party cookies. */
export async function probe(boot: Boot): Promise<void> {
  const other = boot.role === "stranger" ? boot.origins.bank : boot.origins.stranger;
  const stage = new Stage(false);
  try {
    const ask = () => stage.make({ api: "fetch", url: `${other}/.lab/probe`, credentials: "include" });
    await ask();
    const { script, read } = await ask();
    if (!script.startsWith("cors")) thirdParty.value = "unresolved";
    else thirdParty.value = (JSON.parse(read ?? "{}") as { cookie?: boolean }).cookie ? "allowed" : "blocked";
  } finally {
    stage.close();
  }
}

