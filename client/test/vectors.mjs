// Writes ../vectors/ticket from test/format.mjs: node test/vectors.mjs. What travels is base64url, all other bytes are hex.
// Nothing here is random, so that the files change only when the format does.
import { createECDH } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as f from "./format.mjs";

const seeded = (label, length) => Buffer.concat([f.sha256(Buffer.from(label)), f.sha256(Buffer.from(label + "'"))]).subarray(0, length);
const hex = (b) => b.toString("hex");
const b64 = (b) => b.toString("base64url");

const secret = seeded("secret", 32);
const issuer = seeded("issuer", 48);
const visitor = Buffer.concat([Buffer.of(0x50, 0x9a), seeded("visitor", 6)]);
const lineage = seeded("lineage", 16);

const made = [
  ["of one gate process", f.GATE, secret, lineage, { number: 0, uses: 32 }],
  ["of processes that share a store, bound to all that it can be", f.SHARED, secret, seeded("shared", 16), {
    number: 0xfedcba987654, uses: 32, origin: "https://demo.example", network: Buffer.of(203, 0, 113), family: 1,
  }],
  ["bound to an IPv6 /48", f.GATE, secret, lineage, { number: 1, uses: 1, origin: "http://localhost:8080", network: Buffer.from("20010db8abcd", "hex"), family: 2 }],
  ["a pass", f.GATE, secret, lineage, { number: 2, uses: 8, flags: f.PASS, network: Buffer.of(198, 51, 100), family: 3 }],
  ["of a page's own backend", f.ISSUER, issuer, f.DIRECT, { number: 0x0102030405, uses: 8, family: 255 }],
  ["the last second of a key's epoch", f.GATE, secret, lineage, { number: 3, uses: 32, expires: 1_800_003_599 }],
  ["the first second of the next epoch", f.GATE, secret, lineage, { number: 3, uses: 32, expires: 1_800_003_600 }],
].map(([name, cls, key, lineage, fields]) => {
  const all = { class: cls, expires: 1_800_000_000, visitor, ...fields };
  const ticket = f.makeTicket(key, lineage, all);
  return { name, secret: key, lineage, fields: all, ticket, key: f.ticketKey(key, lineage, ticket) };
});

const tickets = made.map(({ name, secret, lineage, fields, ticket, key }) => ({
  name,
  secret: hex(secret),
  lineage: hex(lineage),
  class: fields.class,
  expires: fields.expires,
  visitor: hex(visitor),
  number: fields.number,
  uses: fields.uses,
  flags: fields.flags ?? 0,
  origin: fields.origin ?? "",
  network: hex(fields.network ?? Buffer.alloc(0)),
  family: fields.family ?? 0,
  block: hex(f.block(fields)),
  ticket: b64(ticket),
  key: hex(key),
}));

const { ticket, key } = made[0];
const calls = [
  ["GET", "/", undefined],
  ["GET", "/?", undefined],
  ["GET", "/v1/models?limit=20&after=%C3%A4", undefined],
  ["POST", "/v1/chat/completions", Buffer.from('{"messages":[{"role":"user","content":"hällo"}],"stream":true}')],
  ["POST", "/v1/chat/completions", Buffer.alloc(0)],
  ["POST", "/upload", "stream"],
  ["PUT", "/blob", Buffer.from([0, 1, 2, 255])],
  ["patch", "/lower/case", Buffer.from("x")],
  ["DELETE", "/" + "a".repeat(300), undefined],
].map(([method, target, body], index) => ({
  ticket: b64(ticket),
  key: hex(key),
  index,
  method,
  target,
  body: body === "stream" ? null : hex(body ?? Buffer.alloc(0)),
  stream: body === "stream",
  token: f.callToken(key, ticket, index, method, target, body),
}));

const renewals = made.slice(0, 2).map(({ ticket, key }) => ({ ticket: b64(ticket), key: hex(key), proof: b64(f.renewalProof(key, ticket)) }));

const [page, gate] = ["page", "gate"].map((label) => {
  const ecdh = createECDH("prime256v1");
  ecdh.setPrivateKey(seeded(label, 32));
  return ecdh;
});
const wrapping = seeded("wrapping", 32);
const shared = page.computeSecret(gate.getPublicKey());
const opening = {
  page: { private: hex(page.getPrivateKey()), public: b64(page.getPublicKey()) },
  gate: { private: hex(gate.getPrivateKey()), public: b64(gate.getPublicKey()) },
  shared: hex(shared),
  visitor: hex(visitor),
  opening: hex(f.openingKey(shared, visitor)),
  wrapping: { key: hex(wrapping), sent: b64(f.wrap(f.openingKey(shared, visitor), seeded("nonce W", 12), wrapping)) },
  ticket: b64(ticket),
  key: { key: hex(key), sent: b64(f.wrap(wrapping, seeded("nonce X", 12), key, ticket)) },
};

const challenge = seeded("challenge", 36);
const solution = Buffer.concat(
  [0, 1, 2].map((i) => {
    let n = 0;
    while (!f.solvesOne(challenge, i, f.u32(n), 10)) n++;
    return f.u32(n);
  }),
);

/** The files, by name. */
export const vectors = {
  "tickets.json": tickets,
  "calls.json": calls,
  "renewals.json": renewals,
  "opening.json": opening,
  "challenge.json": { token: b64(challenge), puzzles: 3, bits: 10, solution: b64(solution) },
};

export const folder = new URL("../../vectors/ticket/", import.meta.url);
export const spelled = (value) => JSON.stringify(value, null, 2) + "\n";

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  mkdirSync(folder, { recursive: true });
  for (const [name, value] of Object.entries(vectors)) writeFileSync(new URL(name, folder), spelled(value));
}
