// What all tabs of a page share: the visitor's wrapping key and the current ticket. The keys cannot be extracted;
// IndexedDB stores them as objects, and no script ever sees their bytes.

export interface Ticket {
  ticket: string;
  key: CryptoKey;
  /** Of the visitor; a ticket that came inside the page has none, and is never shared. */
  wrapping?: CryptoKey;
  /** Indices from next up to uses are nobody's yet. */
  next: number;
  uses: number;
  /** By the clock of this machine, in milliseconds. */
  expires: number;
  lifetime: number;
}

// Some browsers leave a request without any answer.
const done = <T>(request: IDBRequest<T>) =>
  new Promise<T>((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    setTimeout(reject, 2000);
  });

/** Runs one change at a time, of all tabs: it gets the current ticket and returns what replaces it. */
export type Update = (change: (current: Ticket | undefined) => Promise<Ticket>) => Promise<void>;

export const storeOf = (gate: string): Update => {
  let memory: Ticket | undefined;
  let database: Promise<IDBDatabase | void> | undefined;

  const open = async () => {
    // Without the lock, tabs could hand out the same index twice.
    if (!navigator.locks) return;
    const opening = indexedDB.open("moat", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("tickets");
    return done(opening);
  };

  return async (change) => {
    // Private modes and sandboxed frames may refuse; then this tab has a ticket of its own.
    const db = await (database ??= open().catch(() => {}));
    if (!db) {
      memory = await change(memory);
      return;
    }
    let works = true;
    const ask = async <T>(what: (tickets: IDBObjectStore) => IDBRequest<T>) => {
      try {
        return await done(what(db.transaction("tickets", "readwrite").objectStore("tickets")));
      } catch {
        works = false;
        database = Promise.resolve();
      }
      return;
    };
    await navigator.locks.request("moat " + gate, async () => {
      const shared = await ask<Ticket | undefined>((tickets) => tickets.get(gate));
      memory = await change(shared);
      if (works) await ask((tickets) => tickets.put(memory, gate));
      // Others will not hear what was taken from theirs.
      if (!works && memory.ticket === shared?.ticket) memory = await change(undefined);
    });
  };
};
