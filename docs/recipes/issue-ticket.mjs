// A page's own backend issues the page's first ticket (docs/ticket-format.md), here in Node.
//
//   MOAT_ISSUER_SECRET=… node issue-ticket.mjs https://demo.example
//
// prints what belongs into <script type="application/json" id="moat-ticket">. The gate has the
// same secret in tickets.issuers.
import { createCipheriv, createHmac, hkdfSync, randomBytes } from "node:crypto";

const secret = process.env.MOAT_ISSUER_SECRET;
const origin = process.argv[2];
const lifetime = 120; // seconds: the gate's tickets.lifetime
const uses = 8;

const hkdf = (info, length) => Buffer.from(hkdfSync("sha256", secret, "moat ticket v1", info, length));
const uint = (value, bytes) => Buffer.from(value.toString(16).padStart(2 * bytes, "0"), "hex");
const fnv1a = (bytes) => bytes.reduce((hash, byte) => Math.imul(hash ^ byte, 16777619) >>> 0, 2166136261);

const now = Math.floor(Date.now() / 1000);
const expires = now + lifetime;
const class_ = Buffer.concat([uint(0x12, 1), Buffer.alloc(16)]); // and its lineage, which is zero
const keys = hkdf(Buffer.concat([Buffer.from("ticket"), class_, uint(Math.floor(expires / 3600), 4)]), 48);

const block = Buffer.concat([
  randomBytes(6), // number
  uint(uses, 1),
  uint(0, 1), // flags
  uint(fnv1a(Buffer.from(origin)), 4),
  Buffer.alloc(4), // bound to no network and no browser: the gate may see the visitor at another address
]);
const aes = createCipheriv("aes-128-ecb", keys.subarray(32), null).setAutoPadding(false);
const ticket = Buffer.concat([
  uint(0x12, 1),
  hkdf(Buffer.concat([Buffer.from("kid"), class_]), 1),
  uint(expires, 4),
  uint(Math.floor(now / 86400), 2),
  randomBytes(6),
  aes.update(block),
]);
const key = createHmac("sha256", keys.subarray(0, 32)).update("ticket key").update(ticket).digest();

console.log(JSON.stringify({ ticket: ticket.toString("base64url"), uses, lifetime, key: key.toString("base64url") }));
