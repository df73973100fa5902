// A backend as many are. Its CORS is right: the cors package with a whitelist of
// origins, which are the arguments. Nothing else guards it, so every handler works for
// whoever asks, and what it did is told on a second port, which is nobody's API.
//
// It prints its ports as one line of JSON when it is ready, and ends with its stdin.
"use strict";

const http = require("node:http");
const cors = require("cors");
const express = require("express");
const { WebSocketServer } = require("ws");

const whitelist = process.argv.slice(2);

// state is what the backend did since the last reset.
let state;

function reset() {
  state = { balance: 1000, deleted: 0, runs: {}, requests: [] };
}
reset();

function note(req) {
  // A browser asks for it when it shows any document, and it proves nothing.
  if (req.url === "/favicon.ico") return;
  const cookies = (req.headers.cookie ?? "").split(";").map((pair) => pair.split("=")[0].trim());
  state.requests.push({
    method: req.method,
    path: req.url,
    origin: req.headers.origin ?? "",
    cookies: cookies.filter((name) => name !== ""),
    headers: req.headers,
  });
}

function ran(handler) {
  state.runs[handler] = (state.runs[handler] ?? 0) + 1;
}

const app = express();

app.use((req, res, next) => {
  note(req);
  next();
});

// The origin of a stranger gets no Access-Control-Allow-Origin, and that is all that
// happens to it: the request goes on to the handler.
app.use(
  cors({
    origin: (origin, done) => done(null, whitelist.includes(origin)),
    credentials: true,
  }),
);
app.use(express.json(), express.urlencoded({ extended: false }), express.text({ type: () => true }));

// handle counts a handler's run before anything that it does.
function handle(name, work) {
  return (req, res) => {
    ran(name);
    work(req, res);
  };
}

const page = `<!doctype html><meta charset="utf-8"><title>The API's own page</title><link rel="icon" href="data:,">`;

app.get(
  "/",
  handle("page", (req, res) => {
    if (req.query.referrer) res.set("Referrer-Policy", req.query.referrer);
    res.send(page);
  }),
);

app.get(
  "/login",
  handle("login", (req, res) => {
    // Without SameSite, as most backends leave it, and with the one value that lets a
    // cookie travel from any site. Browsers take Secure from http://localhost.
    res.cookie("session", "alice", { httpOnly: true });
    res.cookie("everywhere", "alice", { httpOnly: true, secure: true, sameSite: "none" });
    res.json({ handler: "login" });
  }),
);

app.get("/api/data", handle("data", (req, res) => res.json({ handler: "data" })));
app.delete("/api/data", handle("remove", (req, res) => res.json({ handler: "remove" })));

app.get(
  "/api/private",
  handle("private", (req, res) => {
    if (req.headers.authorization) res.json({ handler: "private" });
    else res.status(401).json({ handler: "private" });
  }),
);

app.get("/api/forbidden", handle("forbidden", (req, res) => res.status(403).json({ handler: "forbidden" })));
app.all("/api/public", handle("public", (req, res) => res.json({ handler: "public" })));
app.post("/api/note", handle("note", (req, res) => res.json({ handler: "note" })));
app.post("/hook", handle("hook", (req, res) => res.json({ handler: "hook" })));

// order reads a body as lenient backends do: a form, or JSON under whatever type.
function order(req) {
  if (typeof req.body !== "string") return req.body ?? {};
  try {
    return JSON.parse(req.body);
  } catch {
    return Object.fromEntries(new URLSearchParams(req.body));
  }
}

app.post(
  "/transfer",
  handle("transfer", (req, res) => {
    const amount = Number(order(req).amount);
    if (!(amount > 0)) return res.status(400).json({ handler: "transfer" });
    state.balance -= amount;
    res.json({ handler: "transfer", moved: amount });
  }),
);

app.get(
  "/delete",
  handle("delete", (req, res) => {
    state.deleted++;
    res.json({ handler: "delete" });
  }),
);

// A stream that goes on until its client leaves, and counts what it sends.
app.get(
  "/events",
  handle("events", (req, res) => {
    res.set("Content-Type", "text/event-stream").flushHeaders();
    let n = 0;
    const tick = () => res.write(`data: ${++n}\n\n`);
    const timer = setInterval(tick, 50);
    res.on("close", () => clearInterval(timer));
    tick();
  }),
);

// An answer that comes in two parts, the second one when the control port says so.
let release = () => {};
let released = new Promise((done) => (release = done));

app.all(
  "/slow",
  handle("slow", async (req, res) => {
    res.set("Content-Type", "text/plain");
    res.write("first,");
    await released;
    res.end("last");
  }),
);

const server = http.createServer(app);

// Nobody asks where a WebSocket comes from, which is how it is by default.
new WebSocketServer({ server, path: "/ws" }).on("connection", (socket, req) => {
  note(req);
  ran("ws");
  socket.on("message", (data) => socket.send(`echo ${data}`));
  socket.on("error", () => socket.terminate());
});

const control = http.createServer((req, res) => {
  switch (`${req.method} ${req.url}`) {
    case "GET /__counts":
      res.setHeader("Content-Type", "application/json");
      return res.end(JSON.stringify(state));
    case "POST /__reset":
      reset();
      return res.end();
    case "POST /__release":
      release();
      released = new Promise((done) => (release = done));
      return res.end();
  }
  res.statusCode = 404;
  res.end();
});

server.listen(0, "127.0.0.1", () => {
  control.listen(0, "127.0.0.1", () => {
    console.log(JSON.stringify({ port: server.address().port, control: control.address().port }));
  });
});

process.stdin.on("end", () => process.exit(0)).resume();
