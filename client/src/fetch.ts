import { decode } from "./bytes.js";
import { MoatError } from "./error.js";
import { sessionOf } from "./session.js";
import { attach, type Body, callToken, carry, targetOf } from "./token.js";

export interface Options {
  /** Where the gate answers: "/.moat", or "https://api.example/.moat". Calls to that origin get tickets. */
  gate?: string;
  /** Called with 0 to 1 while a challenge is being solved. */
  onProgress?: (done: number) => void;
  /** Called with whatever a call is rejected with because there is no ticket for it. */
  onError?: (error: MoatError) => void;
  /** What relative URLs are resolved against; the document's base URL, if left out. */
  base?: string;
  /** The fetch to wrap; the global one, if left out. */
  nativeFetch?: typeof fetch;
}

export interface MoatFetch {
  (input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  /** The URL with a token for one request in it: for WebSocket, EventSource, images and downloads. */
  url(url: string | URL, init?: { method?: string }): Promise<string>;
  /** Resolves when a ticket is at hand. */
  ready(): Promise<void>;
}

/** The client, given where its solver is loaded from. */
export function make(solver: () => Promise<typeof import("./solver.js")>, options: Options = {}): MoatFetch {
  const { gate = "/.moat", onError, onProgress } = options;
  const native = options.nativeFetch ?? globalThis.fetch;
  const base = () => options.base ?? globalThis.document?.baseURI ?? globalThis.location?.href;
  // Where pages are rendered on a server there is no base, and no call that a ticket could be for.
  const home = new URL(gate.replace(/\/$/, ""), base() ?? "http://none.invalid");
  const session = sessionOf(home.href, native, solver, onProgress);

  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      if (!globalThis.crypto?.subtle) {
        throw new MoatError("insecure-context", "This page is no secure context, so it cannot sign its calls: serve it over https, or from localhost.");
      }
      return await work();
    } catch (error) {
      if (error instanceof MoatError) onError?.(error);
      throw error;
    }
  };

  const token = async (signal: AbortSignal | undefined, method: string, url: URL, body: Body) => {
    const { ticket, key, index } = await session.take(signal);
    return [await callToken(decode(ticket), key, index, method, targetOf(url), body), ticket] as const;
  };

  const call = async (request: Request, streamed: boolean) => {
    const { headers, method, referrer, referrerPolicy, signal } = request;
    const accept = headers.get("accept") ?? "*/*";
    const sameOrigin = home.origin === globalThis.location?.origin;
    // What is hashed is what is sent: a FormData gets its boundary only once.
    const body = streamed ? "stream" : /^(GET|HEAD)$/.test(method) ? undefined : new Uint8Array(await request.arrayBuffer());
    for (let again = streamed; ; again = true) {
      const [value, ticket] = await token(signal, method, new URL(request.url), body);
      attach(headers, accept, value, sameOrigin, method);
      // A Request that is made from another keeps all of it, but for these two.
      const answer = await native(body && body !== "stream" ? new Request(request, { body, referrer, referrerPolicy }) : request);
      if (again || answer.status !== 401) return answer;
      const problem = await answer
        .clone()
        .json()
        .catch(() => {});
      if (!/^ticket-/.test(problem?.code)) return answer;
      session.refused(ticket);
    }
  };

  const wrapped: MoatFetch = (input, init) => {
    let url: URL;
    try {
      url = new URL(input instanceof Request ? input.url : input, base());
    } catch {
      return native(input, init); // which says what is wrong
    }
    if (url.origin !== home.origin) return native(input, init);
    return guarded(() => call(new Request(input instanceof Request ? input : url, init), !!(init?.body as ReadableStream)?.getReader));
  };
  wrapped.url = (to, { method = "GET" } = {}) =>
    guarded(async () => {
      const url = new URL(to, base());
      const asked = new URL(url.href.replace(/^ws/, "http"));
      return asked.origin === home.origin ? carry(url, (await token(undefined, method, asked, undefined))[0]) : url.href;
    });
  wrapped.ready = () => guarded(session.ready);
  return wrapped;
}
