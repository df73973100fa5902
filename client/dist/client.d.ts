/**
 * What keeps a call from being made. `code` is stable, so that a page can say it in its own words; `message` is
 * English, for developers. Where the gate refused, `code` is that of its refusal (docs/reasons.md), and `status`
 * and `retryAfter` (seconds) are what it answered.
 */
export declare class MoatError extends Error {
    readonly code: string;
    readonly status?: number | undefined;
    readonly retryAfter?: number | undefined;
    name: string;
    constructor(code: string, message: string, status?: number | undefined, retryAfter?: number | undefined);
}
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
    url(url: string | URL, init?: {
        method?: string;
    }): Promise<string>;
    /** Resolves when a ticket is at hand. */
    ready(): Promise<void>;
}
/** fetch, with a ticket for each call to the gate's origin. */
export declare function moat(options?: Options): MoatFetch;
