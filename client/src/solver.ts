// Solves challenges (docs/ticket-format.md): in workers if the page's policy allows them, else on the page's own thread,
// a few milliseconds at a time.
import { type Engine, engine } from "./engine.js";
import { kernel, wasm } from "./kernel.js";

export interface Challenge {
  token: string;
  puzzles: number;
  bits: number;
}

type Nonce = Uint8Array<ArrayBuffer>;
type Lane = (puzzle: number) => Promise<Nonce>;

// More than any gate asks for would keep a phone busy for minutes.
const limit = 2 ** 28;
const workers = 4;
const patience = 3000;
const own = "moat solver";

const onThisThread = async (challenge: Nonce, bits: number): Promise<Lane> => {
  const prepare = await engine(kernel, wasm);
  return async (puzzle) => {
    const search = prepare(challenge, puzzle, bits);
    for (;;) {
      const until = performance.now() + 8;
      do {
        const nonce = search(4096);
        if (nonce) return nonce;
      } while (performance.now() < until);
      // A timer would wait longer, in a hidden page for a second.
      await new Promise<void>((done) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => (port1.close(), done());
        port2.postMessage(0);
      });
    }
  };
};

// work is what a worker does. It may get this function as text.
const work = (making: Promise<Engine>) => {
  void making.then((prepare) => {
    onmessage = ({ data: [challenge, puzzle, bits] }) => {
      const search = prepare(challenge, puzzle, bits);
      let nonce;
      while (!(nonce = search(65536)));
      postMessage(nonce);
    };
    postMessage("ready");
  });
};

const reply = (worker: Worker, ms?: number) =>
  new Promise<any>((resolve, reject) => {
    worker.onmessage = (event) => resolve(event.data);
    worker.onerror = reject;
    if (ms) setTimeout(reject, ms);
  });

/** A worker, from where the page's policy allows one. */
const start = async (): Promise<Worker | undefined> => {
  const blob = () => URL.createObjectURL(new Blob([`(${work})((${engine})(${kernel},"${wasm}"))`], { type: "text/javascript" }));
  // A worker's script must be of the page's own origin; and a bundle that this was put into is more than a worker's script.
  const self = String(import.meta.url);
  const alone = self.startsWith(location.origin + "/") && /\/solver[^/]*$/.test(self);
  const sources = alone ? [() => self, blob] : [blob];
  for (const source of sources) {
    let worker: Worker | undefined;
    try {
      const url = source();
      worker = new Worker(url, { type: "module", name: own });
      await reply(worker, patience);
      URL.revokeObjectURL(url);
      return worker;
    } catch {
      worker?.terminate(); // the next one, then
    }
  }
  return;
};

export const solve = async ({ token, puzzles, bits }: Challenge, onProgress?: (done: number) => void): Promise<Nonce> => {
  if (!(puzzles > 0 && puzzles < 256 && bits >= 0 && bits <= 32 && puzzles * 2 ** bits <= limit)) throw new Error("the challenge is too hard");
  const challenge = Uint8Array.from(atob(token.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const solution = new Uint8Array(4 * puzzles);
  let fallback: Promise<Lane> | undefined;
  const here: Lane = async (puzzle) => (await (fallback ??= onThisThread(challenge, bits)))(puzzle);
  const there =
    (worker: Worker): Lane =>
    (puzzle) => {
      worker.postMessage([challenge, puzzle, bits]);
      return reply(worker).catch(() => here(puzzle));
    };

  let next = 0;
  let done = 0;
  onProgress?.(0);
  const run = async (lane: Lane) => {
    while (next < puzzles) {
      const puzzle = next++;
      solution.set(await lane(puzzle), 4 * puzzle);
      onProgress?.(++done / puzzles);
    }
  };
  const first = globalThis.Worker && (await start());
  if (!first) {
    await run(here);
    return solution;
  }
  const all = [first];
  const more = async () => {
    const worker = await start();
    if (!worker) return;
    all.push(worker);
    await run(there(worker));
  };
  const others = Math.min(navigator.hardwareConcurrency || 1, workers, puzzles) - 1;
  try {
    await Promise.all([run(there(first)), ...Array.from({ length: others }, more)]);
  } finally {
    for (const worker of all) worker.terminate();
  }
  return solution;
};

if (!globalThis.document && (globalThis as { name?: string }).name === own) work(engine(kernel, wasm));
