// docs/ticket-format.md once more, with node:crypto and nothing of src: what the client makes is verified by other code
// than made it, and vectors/ticket is written with this.
import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, timingSafeEqual } from "node:crypto";

export const GATE = 0x10, SHARED = 0x11, ISSUER = 0x12;
export const PASS = 1;
export const DIRECT = Buffer.alloc(16); // the lineage of class 0x12

const salt = Buffer.from("moat ticket v1");
const hkdf = (secret, info, length) => Buffer.from(hkdfSync("sha256", secret, salt, info, length));
export const hmac = (key, ...parts) => createHmac("sha256", key).update(Buffer.concat(parts)).digest();
export const sha256 = (bytes) => createHash("sha256").update(bytes).digest();
export const u32 = (n) => {
  const b = Buffer.alloc(4);
  b.writeUInt32BE(n >>> 0);
  return b;
};

export const fnv1a = (bytes) => {
  let h = 0x811c9dc5;
  for (const b of bytes) h = Math.imul(h ^ b, 0x01000193) >>> 0;
  return h;
};

export const kid = (secret, cls, lineage) => hkdf(secret, Buffer.concat([Buffer.from("kid"), Buffer.of(cls), lineage]), 1)[0];

const epochKeys = (secret, cls, lineage, expires) =>
  hkdf(secret, Buffer.concat([Buffer.from("ticket"), Buffer.of(cls), lineage, u32(Math.floor(expires / 3600))]), 48);

// fields: class, expires, visitor (8 bytes), number, uses, flags, origin (text or ""), network (bytes or none), family
export const block = (f) => {
  const b = Buffer.alloc(16);
  b.writeUIntBE(f.number, 0, 6);
  b[6] = f.uses;
  b[7] = f.flags ?? 0;
  if (f.origin) b.writeUInt32BE(fnv1a(Buffer.from(f.origin)), 8);
  if (f.network?.length) b.writeUIntBE(fnv1a(f.network) & 0xffffff, 12, 3);
  b[15] = f.family ?? 0;
  return b;
};

export const makeTicket = (secret, lineage, f) => {
  const aes = createCipheriv("aes-128-ecb", epochKeys(secret, f.class, lineage, f.expires).subarray(32), null).setAutoPadding(false);
  return Buffer.concat([
    Buffer.of(f.class, kid(secret, f.class, lineage)),
    u32(f.expires),
    f.visitor,
    aes.update(block(f)),
    aes.final(),
  ]);
};

export const ticketKey = (secret, lineage, ticket) =>
  hmac(epochKeys(secret, ticket[0], lineage, ticket.readUInt32BE(2)).subarray(0, 32), Buffer.from("ticket key"), ticket);

export const readTicket = (secret, lineage, ticket) => {
  const expires = ticket.readUInt32BE(2);
  const aes = createDecipheriv("aes-128-ecb", epochKeys(secret, ticket[0], lineage, expires).subarray(32), null).setAutoPadding(false);
  const b = Buffer.concat([aes.update(ticket.subarray(14)), aes.final()]);
  return {
    class: ticket[0],
    expires,
    visitor: ticket.subarray(6, 14),
    number: b.readUIntBE(0, 6),
    uses: b[6],
    flags: b[7],
    origin: b.readUInt32BE(8),
    network: b.readUIntBE(12, 3),
    family: b[15],
  };
};

// body: undefined or empty, bytes, or "stream"
export const proofOfCall = (key, ticket, index, method, target, body) => {
  const [m, t] = [Buffer.from(method), Buffer.from(target)];
  const covered = body === "stream" ? Buffer.of(2) : body?.length ? Buffer.concat([Buffer.of(1), sha256(body)]) : Buffer.of(0);
  return hmac(key, Buffer.from("call"), ticket, Buffer.of(index), Buffer.of(m.length), m, Buffer.of(t.length >> 8, t.length & 255), t, covered).subarray(0, 16);
};

export const callToken = (key, ticket, index, method, target, body) =>
  Buffer.concat([ticket, Buffer.of(index), proofOfCall(key, ticket, index, method, target, body)]).toString("base64url") +
  (body === "stream" ? ".stream" : body?.length ? "." + sha256(body).toString("base64url") : "");

export const renewalProof = (key, ticket) => hmac(key, Buffer.from("renew"), ticket).subarray(0, 16);

export const openingKey = (shared, visitor) => hkdf(shared, Buffer.concat([Buffer.from("open"), visitor]), 32);

// nonce ‖ ciphertext ‖ tag
export const wrap = (key, nonce, plain, additional = Buffer.alloc(0)) => {
  const gcm = createCipheriv("aes-256-gcm", key, nonce).setAAD(additional);
  return Buffer.concat([nonce, gcm.update(plain), gcm.final(), gcm.getAuthTag()]);
};

export const equal = (a, b) => a.length === b.length && timingSafeEqual(a, b);

export const solvesOne = (challenge, i, nonce, bits) =>
  Math.clz32(sha256(Buffer.concat([challenge, Buffer.of(i), nonce])).readUInt32BE(0)) >= bits;

export const solves = (challenge, solution, puzzles, bits) =>
  solution.length === 4 * puzzles &&
  Array.from({ length: puzzles }, (_, i) => solvesOne(challenge, i, solution.subarray(4 * i, 4 * i + 4), bits)).every(Boolean);
