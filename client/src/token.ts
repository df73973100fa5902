// Tokens and the carriers that take them to the gate: docs/ticket-format.md.
import { ascii, type Bytes, encode, join } from "./bytes.js";

/** A body as the proof covers it: its bytes, "stream" for one that cannot be hashed first, undefined for none. */
export type Body = Bytes | "stream" | undefined;

const sign = async (key: CryptoKey, ...parts: Bytes[]): Promise<Bytes> =>
  new Uint8Array(await crypto.subtle.sign("HMAC", key, join(...parts)), 0, 16);

/** What Moat-Ticket says of one call. */
export const callToken = async (
  ticket: Bytes,
  key: CryptoKey,
  index: number,
  method: string,
  target: string,
  body: Body,
): Promise<string> => {
  const sha = body && body !== "stream" && body.length ? new Uint8Array(await crypto.subtle.digest("SHA-256", body)) : undefined;
  const [m, t, head] = [ascii(method), ascii(target), join(ticket, Uint8Array.of(index))];
  const proof = await sign(
    key,
    ascii("call"),
    head,
    Uint8Array.of(m.length),
    m,
    Uint8Array.of(t.length >> 8, t.length),
    t,
    Uint8Array.of(sha ? 1 : body === "stream" ? 2 : 0),
    sha ?? new Uint8Array(),
  );
  return encode(join(head, proof)) + (sha ? "." + encode(sha) : body === "stream" ? ".stream" : "");
};

/** What proves to the gate, when a ticket is renewed, that the page has its key. */
export const renewalProof = async (ticket: Bytes, key: CryptoKey): Promise<string> => encode(await sign(key, ascii("renew"), ticket));

/** Path and query as they go on the wire. URL.search has no "?" for an empty query; the request line does. */
export const targetOf = (url: URL): string => url.href.slice(url.href.indexOf("/", url.protocol.length + 2)).split("#")[0]!;

/** The URL with a token at the end of its query, in front of the fragment. */
export const carry = (url: URL, token: string): string => {
  const [, head, fragment] = /^([^#]*)(.*)/.exec(url.href)!;
  return head + (head!.includes("?") ? "&" : "?") + "moat=" + token + fragment;
};

// Without the caller's other headers, and with Accept no longer than this, a GET to another origin needs no preflight
// (https://fetch.spec.whatwg.org/#cors-safelisted-request-header).
const safelisted = /^(accept|accept-language|content-language)$/;
const unsafe = /[^\x20-\x7e]|["():<>?@[\\\]{}]/;

/** Puts the token where it costs no preflight that could be saved. */
export const attach = (headers: Headers, accept: string, token: string, sameOrigin: boolean, method: string): void => {
  const value = accept + ";moat=" + token;
  if (
    !sameOrigin &&
    /^(GET|HEAD)$/.test(method) &&
    value.length <= 128 &&
    !unsafe.test(value) &&
    [...headers.keys()].every((name) => safelisted.test(name))
  ) {
    headers.set("accept", value);
  } else {
    headers.set("moat-ticket", token);
  }
};
