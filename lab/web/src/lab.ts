// What the lab's server tells and is asked: lab/control.go, in types.
import { signal } from "@preact/signals";

export type Role = "lab" | "bank" | "api" | "gate" | "blog" | "stranger";
export type Target = "api" | "gate";
export type Header = [name: string, value: string][];

/** A browser.Request. */
export interface PageRequest {
  api: string;
  url: string;
  method?: string;
  headers?: Header;
  body?: { kind: string; type?: string; text?: string };
  mode?: string;
  credentials?: string;
  redirect?: string;
  cache?: string;
  referrer_policy?: string;
  with_credentials?: boolean;
  upload_listener?: boolean;
  crossorigin?: string;
  user_activated?: boolean;
}

export interface Rule {
  on?: string;
  origin?: string[];
  path?: string;
  status?: number;
  headers?: Header;
}

export interface Expect {
  left: boolean;
  arrived: boolean;
  ran: boolean;
  readable: boolean;
  error?: string;
  reason?: string;
  alice?: number;
}

export interface Run {
  id: string;
  title: string;
  from: Role;
  sandboxed?: boolean;
  answers?: Rule[] | null;
  cookies?: string[];
  age?: number;
  requests?: PageRequest[];
  do?: string;
  only?: Target;
  expect: Expect;
  gated?: Expect;
  attack?: boolean;
  why?: string;
}

export interface Lesson {
  name: string;
  order: number;
  part: string;
  title: string;
  letter?: string;
  summary: string;
  text: string;
  runs: Run[];
  break?: Run[];
  mend?: { text: string; start: string; solution: string; checks: Run[] };
  script?: string;
}

export interface Books {
  alice: number;
  mallory: number;
  notes: number[] | null;
}

export interface Boot {
  role: Role;
  origins: Record<Role, string>;
  shared: boolean;
  lessons: Lesson[];
  books: Books;
}

export interface Answer {
  status?: number;
  headers?: Header;
  failure?: string;
  body?: string;
}

/** Something that happened at the servers. */
export interface LedgerEvent {
  seq: number;
  run: number;
  kind: "arrived" | "gate" | "ran" | "answered";
  at: number;
  request: number;
  to?: Target;
  method?: string;
  url?: string;
  headers?: Header;
  body?: string;
  preflight?: boolean;
  curl?: boolean;
  outcome?: "allow" | "deny" | "preflight" | "amend";
  reason?: string;
  text?: string;
  fix?: string;
  trail?: { guard: string; mode: string; reason: string }[];
  did?: string;
  books?: Books;
  answer?: Answer;
}

/** A browser.Page. */
export interface ModelPage {
  url: string;
  ancestors?: string[];
  sandboxed?: boolean;
}

export interface Prepared {
  number: number;
  run: Run;
  sign_in?: string;
  page: ModelPage;
  books: Books;
}

export interface Played extends Expect {
  trace?: Trace;
  events: LedgerEvent[] | null;
}

/** A browser.Trace. */
export interface Trace {
  exchanges?: (Message & { answer: Answer; executed: boolean; from_cache?: boolean })[];
  steps?: { algorithm: string; link: string; text: string; failed?: boolean; exchange: number }[];
  verdict: { outcome: string; script: string; status?: number; cors_error?: string; console?: string; net_error?: string };
}

export interface Message {
  method: string;
  url: string;
  headers?: Header;
  preflight?: boolean;
}

/** What one asks to have run: a run of a lesson, or one that was composed. */
export interface Asked {
  lesson?: string;
  run?: string;
  composed?: Omit<Run, "expect"> & { expect?: Expect };
  target: Target;
}

/** A question to the lab that it did not answer. */
export class LabError extends Error {}

export async function get<T>(path: string): Promise<T> {
  return read<T>(await reach(`/.lab/${path}`, {}));
}

export async function post<T>(path: string, body: unknown): Promise<T> {
  return read<T>(await reach(`/.lab/${path}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }));
}

async function reach(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch {
    throw new LabError("The lab does not answer. Is moat lab still running?");
  }
}

async function read<T>(response: Response): Promise<T> {
  const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new LabError(answer.error ?? `status ${response.status}`);
  return answer as T;
}

/** Everybody's money, as it was told last. */
export const books = signal<Books>({ alice: 0, mallory: 0, notes: null });

/** What it was when the run began. */
export const before = signal<Books>(books.value);

/** Begins with these books. */
export function startBooks(b: Books): void {
  before.value = b;
  books.value = b;
}

/** All of the current run's events that have come by the stream so far. */
export const events = signal<LedgerEvent[]>([]);

let listensFor = -1;

/** From now on events are those of this run. */
export function follow(run: number): void {
  listensFor = run;
  events.value = [];
}

/** Takes what the ledger has, all at once, in the place of what came by the stream. */
export async function settle(run: number): Promise<LedgerEvent[]> {
  const all = (await get<LedgerEvent[] | null>(`ledger?run=${run}`)) ?? [];
  if (run === listensFor) events.value = all;
  noteBooks(all);
  return all;
}

function noteBooks(all: LedgerEvent[]): void {
  for (const e of all) if (e.books) books.value = e.books;
}

/** Listens to the ledger, as long as the page is seen: a browser has only six connections to a
 * host, and pages that are kept for the way back would hold theirs. */
export function listen(): void {
  let source: EventSource | undefined;
  const begin = () => {
    if (source || document.hidden) return;
    source = new EventSource("/.lab/events");
    source.onmessage = ({ data }) => {
      const e = JSON.parse(data) as LedgerEvent;
      if (e.run !== listensFor || events.value.some((known) => known.seq >= e.seq)) return;
      events.value = [...events.value, e];
      noteBooks([e]);
    };
  };
  const end = () => {
    source?.close();
    source = undefined;
  };
  addEventListener("pagehide", end);
  addEventListener("pageshow", begin);
  document.addEventListener("visibilitychange", () => (document.hidden ? end() : begin()));
  begin();
}

/** The origin on which a run is made: it is the page's there. */
export function homeOf(boot: Boot, run: Run): string {
  return run.from === "lab" ? "" : boot.origins[run.from];
}
