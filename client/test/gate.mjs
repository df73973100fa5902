// A gate in Node for the client's tests. It honours what docs/ticket-format.md says is to be honoured and refuses all
// else, keeps a log of what it was asked, and echoes the calls that it honours.
import { createECDH, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import * as f from "./format.mjs";

const day = 86_400;

export class Gate {
  secret = randomBytes(32);
  issuer = randomBytes(32);
  lineage = randomBytes(16);
  uses = 32;
  lifetime = 120;
  /** { puzzles, bits }: what is asked for before a ticket, of each of the next `challenges` requests for one. */
  challenge = { puzzles: 2, bits: 8 };
  challenges = 0;
  /** A refusal of the ticket endpoint, [status, code], and of how many calls in a row. */
  failing = undefined;
  streams = true;
  /** No solution is in time. */
  late = false;
  log = [];
  number = 0;
  spent = new Set();
  visitors = new Map();
  open = new Map();

  now() {
    return Math.floor(Date.now() / 1000);
  }

  /** As a gate process that was killed and started again: what it knew is gone. */
  restart() {
    this.lineage = randomBytes(16);
    this.spent.clear();
  }

  mint(visitor, lifetime = this.lifetime) {
    const ticket = f.makeTicket(this.secret, this.lineage, {
      class: f.GATE,
      expires: this.now() + lifetime,
      visitor,
      number: this.number++,
      uses: this.uses,
    });
    return { ticket, key: f.ticketKey(this.secret, this.lineage, ticket) };
  }

  /** What a page's own backend puts into its HTML. */
  embedded(uses = 8, lifetime = 120) {
    const ticket = f.makeTicket(this.issuer, f.DIRECT, {
      class: f.ISSUER,
      expires: this.now() + lifetime,
      visitor: this.visitor(),
      number: randomBytes(6).readUIntBE(0, 6),
      uses,
    });
    const key = f.ticketKey(this.issuer, f.DIRECT, ticket);
    return JSON.stringify({ ticket: ticket.toString("base64url"), uses, lifetime, key: key.toString("base64url") });
  }

  visitor() {
    const v = Buffer.alloc(8);
    v.writeUInt16BE(Math.floor(this.now() / day));
    randomBytes(6).copy(v, 2);
    return v;
  }

  // known returns the key of a ticket that was issued here, or a code.
  known(ticket) {
    const [secret, lineage] = ticket[0] === f.ISSUER ? [this.issuer, f.DIRECT] : [this.secret, this.lineage];
    if (ticket[0] !== f.ISSUER && ticket[0] !== f.GATE) return "ticket-malformed";
    if (ticket[1] !== f.kid(secret, ticket[0], lineage)) return "ticket-key-unknown";
    return { key: f.ticketKey(secret, lineage, ticket), fields: f.readTicket(secret, lineage, ticket) };
  }

  /** Judges one call: the code of a refusal, or undefined. */
  judge(method, target, headers, body) {
    let token = headers["moat-ticket"] ?? /;moat=([^;,]*)$/.exec(headers.accept ?? "")?.[1];
    const query = /[?&]moat=([^&]*)$/.exec(target);
    if (token === undefined && query) {
      token = query[1];
      target = target.slice(0, query.index);
    }
    if (token === undefined) return "ticket-missing";

    const parts = /^([A-Za-z0-9_-]{63})(?:\.(stream|[A-Za-z0-9_-]{43}))?$/.exec(token);
    if (!parts) return "ticket-malformed";
    const bytes = Buffer.from(parts[1], "base64url");
    const ticket = bytes.subarray(0, 30);
    const index = bytes[30];
    const known = this.known(ticket);
    if (typeof known === "string") return known;
    if (known.fields.expires < this.now()) return "ticket-expired";
    if (index >= known.fields.uses) return "ticket-malformed";
    const streamed = parts[2] === "stream";
    if (body.length && (!parts[2] || (streamed && !this.streams))) return "ticket-body-unproved";
    if (!streamed && parts[2] && parts[2] !== f.sha256(body).toString("base64url")) return "ticket-body-differs";
    const proof = f.proofOfCall(known.key, ticket, index, method, target, streamed ? "stream" : body);
    if (!f.equal(proof, bytes.subarray(31))) return "ticket-proof-invalid";
    const use = ticket.toString("base64url") + "." + index;
    if (this.spent.has(use)) return "ticket-used";
    this.spent.add(use);
  }

  /** Answers a request for a ticket: [status, document]. */
  tickets(text) {
    const asked = JSON.parse(text);
    if (this.failing) return [this.failing[0], { code: this.failing[1], title: "Refused" }];
    const solved = this.solved(asked);
    if (solved === false || (solved === undefined && this.challenges > 0)) {
      const token = randomBytes(36).toString("base64url");
      this.open.set(token, this.challenge);
      const [code, title] = solved === false ? ["challenge-failed", "The challenge is not solved"] : ["challenge-required", "A little work is asked for first"];
      return [401, { code, title, challenge: { token, ...this.challenge } }];
    }

    if (asked.ticket) return this.renew(asked);
    const ecdh = createECDH("prime256v1");
    ecdh.generateKeys();
    const shared = ecdh.computeSecret(Buffer.from(asked.public, "base64url"));
    const visitor = this.visitor();
    const wrapping = randomBytes(32);
    this.visitors.set(visitor.toString("hex"), wrapping);
    return [
      200,
      {
        ...this.answer(visitor, wrapping),
        public: ecdh.getPublicKey("base64url"),
        wrapping: f.wrap(f.openingKey(shared, visitor), randomBytes(12), wrapping).toString("base64url"),
      },
    ];
  }

  renew(asked) {
    const ticket = Buffer.from(asked.ticket, "base64url");
    const known = this.known(ticket);
    if (typeof known === "string") return [401, { code: known, title: "Refused" }];
    if (known.fields.expires < this.now() - day) return [401, { code: "ticket-expired", title: "Refused" }];
    if (!f.equal(f.renewalProof(known.key, ticket), Buffer.from(asked.proof, "base64url"))) {
      return [401, { code: "ticket-proof-invalid", title: "Refused" }];
    }
    const visitor = known.fields.visitor;
    return [200, this.answer(visitor, this.visitors.get(visitor.toString("hex")))];
  }

  answer(visitor, wrapping) {
    const { ticket, key } = this.mint(visitor);
    return {
      ticket: ticket.toString("base64url"),
      uses: this.uses,
      lifetime: this.lifetime,
      key: f.wrap(wrapping, randomBytes(12), key, ticket).toString("base64url"),
    };
  }

  // solved is undefined if no solution came.
  solved({ challenge, solution }) {
    if (challenge === undefined) return undefined;
    const asked = this.open.get(challenge);
    this.open.delete(challenge);
    const good = !!asked && !this.late && f.solves(Buffer.from(challenge, "base64url"), Buffer.from(solution, "base64url"), asked.puzzles, asked.bits);
    if (good) this.challenges--;
    return good;
  }

  /** Requests of the log, by kind: "open", "renew", "call", "preflight". */
  count(kind) {
    return this.log.filter((l) => l.kind === kind).length;
  }

  async handle(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const { method, url, headers } = request;
    const answer = (status, document) => {
      const type = status < 400 ? "application/json" : "application/problem+json";
      response.writeHead(status, {
        "content-type": type,
        "access-control-allow-origin": headers.origin ?? "*",
        "access-control-allow-headers": "moat-ticket, content-type",
        "access-control-allow-methods": "GET, HEAD, POST, PUT, patch, PATCH, DELETE",
        "access-control-expose-headers": "retry-after",
        ...(status === 429 && { "retry-after": "7" }),
      });
      response.end(JSON.stringify(document));
    };
    if (method === "OPTIONS") {
      this.log.push({ kind: "preflight", url });
      return answer(200, {});
    }
    if (url === "/.moat/tickets") {
      const [status, document] = this.tickets(body.toString());
      const { ticket, signs } = JSON.parse(body.toString());
      this.log.push({ kind: ticket ? "renew" : "open", ticket, status, code: document.code, signs });
      return answer(status, document);
    }
    const code = this.judge(method, url, headers, body);
    this.log.push({ kind: "call", method, url, headers, code });
    if (code) return answer(code === "ticket-body-differs" ? 400 : 401, { code, title: "Refused" });
    answer(200, { method, url, type: headers["content-type"], body: body.toString("base64") });
  }

  /** Listens on loopback, and returns the origin. */
  async listen(port = 0) {
    this.server = createServer((request, response) => this.handle(request, response));
    await new Promise((done) => this.server.listen(port, "127.0.0.1", done));
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  close() {
    this.server.closeAllConnections();
    return new Promise((done) => this.server.close(done));
  }
}
