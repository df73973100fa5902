// The browser's model, in WebAssembly. It is loaded when it is first asked.
import type { Answer, Header, ModelPage, PageRequest, Trace } from "./lab";

/** A browser.Case. */
export interface Case {
  page: ModelPage;
  browser?: {
    profile?: string;
    cookies?: { url: string; set_cookie: string; age?: number }[];
    block_third_party_cookies?: boolean;
    addresses?: Record<string, string>;
  };
  requests: PageRequest[];
  answers?: { url?: string; on?: string; answer: Answer }[];
}

export type { Header };

interface Engine {
  warm(): void;
  ask(name: string, input: string): Promise<unknown>;
}

let engine: Promise<Engine> | null = null;

function load(): Promise<Engine> {
  const address = "/model/engine.js"; // built by explain/web, not a part of this bundle
  return (engine ??= import(/* @vite-ignore */ address) as Promise<Engine>);
}

/** Loads the model before it is needed. */
export function warm(): void {
  load().then((e) => e.warm(), () => {});
}

/** Plays a case: one trace for each of its requests. */
export async function play(c: Case): Promise<Trace[]> {
  const { traces } = (await (await load()).ask("play", JSON.stringify(c))) as { traces: Trace[] };
  return traces;
}

/** The model's name of the browser that shows this page. */
export function profile(): string {
  if (/Firefox\//.test(navigator.userAgent)) return "firefox";
  if (/Chrom(e|ium)\//.test(navigator.userAgent)) return "chromium";
  return "standard";
}
