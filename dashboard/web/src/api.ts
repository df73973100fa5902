// What the admin listener tells. Everything that a client has sent is text here, and stays text.

export type Mode = "enforce" | "report" | "would_refuse";
export type Means = "served" | "answered" | "noted" | "refused" | "failed" | "aborted";

export interface Row {
  route: string;
  step: string;
  reason: string;
  mode: Mode;
  means: Means;
  total: number;
  points: [bucket: number, count: number][];
}

export interface Series {
  range: Range;
  from: string;
  step: number;
  buckets: number;
  since: string;
  rows: Row[];
}

export const ranges = ["1h", "6h", "24h"] as const;
export type Range = (typeof ranges)[number];

export interface Decision {
  id: string;
  time: string;
  route: string;
  step: string;
  code: string;
  mode: "enforce" | "report";
  status?: number;
  client?: string;
  caller?: string;
  method: string;
  host: string;
  path: string;
  where?: string;
  got?: string;
  want?: string;
  cause: string;
  fix: string;
  client_was_told?: string;
}

export interface Reproduction {
  request?: { method: string; url: string; headers: Record<string, string>; from: string };
  same: boolean;
  because?: string;
  test?: string;
  curl?: string;
  trail?: { guard: string; mode: string; outcome: string; code: string }[];
}

export interface Explained extends Decision {
  reproduction: Reproduction;
}

export interface TopEntry {
  who: string;
  enforced: number;
  reported: number;
  reason: string;
}

export interface Top {
  of: number;
  since: string;
  clients: TopEntry[];
  callers: TopEntry[];
}

export interface Reason {
  code: string;
  step: string;
  status?: number;
  means: Means;
  title?: string;
  cause?: string;
  fix?: string;
}

export interface Amount {
  requests?: number;
  bytes?: number;
  tokens?: number;
  spend?: number;
}

export interface Budgets {
  stopped: boolean;
  stopped_since?: string;
  budgets: Budget[];
  store: string;
  error?: string;
}

export interface Budget {
  name: string;
  by: string;
  per: string;
  resets: string;
  mode: string;
  cap: Amount;
  used: Amount;
  spenders: number;
  top: { who: string; used: Amount }[];
}

async function answer(res: Response): Promise<Response> {
  if (res.ok) return res;
  const text = await res.text();
  let said = text.trim();
  try {
    said = (JSON.parse(text) as { error?: string }).error ?? said;
  } catch {} // it was plain text
  throw new Error(said || `${res.status} ${res.statusText}`);
}

export async function get<T>(path: string, params: Record<string, string> = {}): Promise<T> {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "")).toString();
  return (await answer(await fetch(path + (query && "?" + query)))).json() as Promise<T>;
}

export async function post(path: string): Promise<void> {
  await answer(await fetch(path, { method: "POST" }));
}
