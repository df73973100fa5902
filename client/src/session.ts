// Getting tickets, and dealing their indices out to calls.
import { ascii, type Bytes, decode, encode, join } from "./bytes.js";
import { MoatError } from "./error.js";
import { signs } from "./signs.js";
import { storeOf, type Ticket } from "./store.js";
import { renewalProof } from "./token.js";

/** What one call may use up. */
export interface Use {
  ticket: string;
  key: CryptoKey;
  index: number;
}

export interface Session {
  take(signal?: AbortSignal): Promise<Use>;
  ready(): Promise<void>;
  /** Says that the gate would not honour the ticket: nothing is taken from it any more. */
  refused(ticket: string): void;
}

/** Indices of a ticket that are this tab's. */
type Slice = Pick<Ticket, "ticket" | "key" | "next" | "expires" | "lifetime"> & { end: number };

const salt = ascii("moat ticket v1");
// A slice is never larger, whatever a tab has used lately.
const maxSlice = 8;
// Whoever is silent for that long waits for a ticket at the next call.
const wakeful = 600_000;
const timeout = 20_000;

// A clock that was set back must not keep a ticket alive.
const alive = (t: { expires: number; lifetime: number }) => {
  const left = t.expires - Date.now();
  return left > 0 && left <= t.lifetime;
};

const low = (t: Ticket) => t.uses - t.next < t.uses / 4 || t.expires - Date.now() < t.lifetime / 4;

const unwrap = (wrapped: string, by: CryptoKey, additionalData: Bytes, as: AesKeyAlgorithm | HmacImportParams | string, usage: KeyUsage) => {
  const bytes = decode(wrapped);
  const how = { name: "AES-GCM", iv: bytes.slice(0, 12), additionalData };
  return crypto.subtle.unwrapKey("raw", bytes.slice(12), by, how, as, false, [usage]);
};
const hmac = { name: "HMAC", hash: "SHA-256" };

interface Answer {
  ticket: string;
  uses: number;
  lifetime: number;
  key: string;
  public: string;
  wrapping: string;
}

export const sessionOf = (
  gate: string,
  native: typeof fetch,
  solver: () => Promise<typeof import("./solver.js")>,
  onProgress?: (done: number) => void,
): Session => {
  const update = storeOf(gate);
  let slices: Slice[] = [];
  let waiting = 0;
  let used = 0;
  let size = 0;
  let lastUse = 0;
  let refusedTicket = "";
  let filling: Promise<void> | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const ask = async (members: object): Promise<[Answer, sent: number]> => {
    let solved = {};
    for (let round = 0; ; round++) {
      const sent = Date.now();
      const answer = await native(gate + "/tickets", {
        method: "POST",
        body: JSON.stringify({ ...members, ...solved, signs: signs() }),
        signal: AbortSignal.timeout(timeout),
      }).catch((error) => {
        throw error.name === "TimeoutError" ? new MoatError("gate-timeout", `${gate}/tickets does not answer`) : error;
      });
      const body = (await answer.json().catch(() => {})) ?? {};
      if (answer.ok && body.uses > 0 && body.lifetime > 4) return [body, sent];
      const { challenge, code, title } = body;
      if (!challenge || round > 1) {
        throw new MoatError(
          code ?? "gate-answer",
          title ?? `${gate}/tickets answered ${answer.status}, and not as a gate does; is that moat's address?`,
          answer.status,
          +(answer.headers.get("retry-after") ?? NaN) || undefined,
        );
      }
      try {
        const { solve } = await solver();
        solved = { challenge: challenge.token, solution: encode(await solve(challenge, onProgress)) };
      } catch (error) {
        throw new MoatError("challenge-unsolved", "the gate's challenge could not be solved: " + error);
      }
    }
  };

  const keep = async ([a, sent]: [Answer, number], wrapping: CryptoKey): Promise<Ticket> => ({
    ticket: a.ticket,
    key: await unwrap(a.key, wrapping, decode(a.ticket), hmac, "sign"),
    wrapping,
    next: 0,
    uses: a.uses,
    lifetime: a.lifetime * 1000,
    expires: sent + a.lifetime * 1000,
  });

  const open = async (): Promise<Ticket> => {
    const pair = await crypto.subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, false, ["deriveKey"]);
    const mine = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
    const answer = await ask({ public: encode(mine) });
    const gates = await crypto.subtle.importKey("raw", decode(answer[0].public), { name: "ECDH", namedCurve: "P-256" }, false, []);
    const shared = await crypto.subtle.deriveKey({ name: "ECDH", public: gates }, pair.privateKey, "HKDF", false, ["deriveKey"]);
    const info = join(ascii("open"), decode(answer[0].ticket).slice(6, 14));
    const aes = { name: "AES-GCM", length: 256 };
    const opener = await crypto.subtle.deriveKey({ name: "HKDF", hash: "SHA-256", salt, info }, shared, aes, false, ["unwrapKey"]);
    return keep(answer, await unwrap(answer[0].wrapping, opener, new Uint8Array(), aes, "unwrapKey"));
  };

  const obtain = async (old?: Ticket): Promise<Ticket> => {
    // The gate renews for a day.
    if (old?.wrapping && old.expires + 86_400_000 > Date.now()) {
      try {
        return await keep(await ask({ ticket: old.ticket, proof: await renewalProof(decode(old.ticket), old.key) }), old.wrapping);
      } catch (error) {
        if (!(error instanceof MoatError && /^ticket-/.test(error.code) && error.status! < 500)) throw error;
      }
    }
    return open();
  };

  // The first ticket may have come inside the page: no other tab has that one.
  const embedded = async (): Promise<Slice | undefined> => {
    const element = globalThis.document?.getElementById("moat-ticket");
    if (!element) return;
    element.remove();
    const { ticket, uses, lifetime, key } = JSON.parse(element.textContent!);
    return {
      ticket,
      key: await crypto.subtle.importKey("raw", decode(key), hmac, false, ["sign"]),
      next: 0,
      end: uses,
      lifetime: lifetime * 1000,
      expires: Date.now() + lifetime * 1000,
    };
  };

  /** Gets this tab a slice: ahead of need, from a ticket that will last; for waiting calls, from any. */
  const fill = (ahead: boolean): Promise<void> =>
    (filling ??= (async () => {
      let slice = await embedded().catch(() => undefined);
      if (!slice) {
        await update(async (t) => {
          if (!t || t.ticket === refusedTicket || !alive(t) || t.next >= t.uses || (ahead && low(t))) t = await obtain(t);
          const end = Math.min(t.uses, t.next + Math.max(1, waiting, Math.min(used, maxSlice)));
          slice = { ...t, end };
          return { ...t, next: end };
        });
      }
      slices.push(slice!);
      size = slice!.end - slice!.next;
      used = 0;
      clearTimeout(timer);
      timer = setTimeout(renew, slice!.expires - Date.now() - slice!.lifetime / 4);
    })().finally(() => {
      filling = undefined;
    }));

  const left = () => available().reduce((n, s) => n + s.end - s.next, 0);
  const prepare = () => {
    const ahead = () => {
      const newest = slices.at(-1);
      if (left() < size / 4 || !newest || newest.expires - Date.now() < newest.lifetime / 4) fill(true).catch(() => {}); // the next call will be told
    };
    const idle = globalThis.requestIdleCallback as typeof requestIdleCallback | undefined; // not in Safari
    if (idle) idle(ahead, { timeout: 1000 });
    else setTimeout(ahead);
  };

  const renew = () => {
    if (Date.now() - lastUse > wakeful) return;
    if (globalThis.document?.hidden) document.addEventListener("visibilitychange", renew, { once: true });
    else prepare();
  };

  const available = () => (slices = slices.filter((s) => s.next < s.end && s.ticket !== refusedTicket && alive(s)));

  return {
    async take(signal) {
      for (;;) {
        signal?.throwIfAborted();
        const slice = available()[0];
        if (slice) {
          const index = slice.next++;
          used++;
          lastUse = Date.now();
          if (left() < size / 4) prepare();
          return { ticket: slice.ticket, key: slice.key, index };
        }
        waiting++;
        try {
          await abortable(fill(false), signal);
        } finally {
          waiting--;
        }
      }
    },
    async ready() {
      lastUse = Date.now();
      if (!available().length) await fill(false);
    },
    refused(ticket) {
      refusedTicket = ticket;
    },
  };
};

// Others may wait for the same: only this waiting ends.
const abortable = (promise: Promise<void>, signal?: AbortSignal) =>
  new Promise<void>((resolve, reject) => {
    promise.then(resolve, reject);
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
