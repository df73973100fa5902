// A backend that knows its users by a session of its own, as many do, and below /app by what a
// gate tells it (X-User). It is lenient in each way that cross-site request forgery uses: bodies
// are read whatever their type, POST can stand for another method, and a GET deletes. What ran,
// and for whom, is told on a second port, which is nobody's API.
//
// Its arguments are the origins that its CORS lists. It prints its ports as one line of JSON
// when it is ready, and ends with its stdin.
"use strict";

const http = require("node:http");
const { randomUUID } = require("node:crypto");
const cors = require("cors");
const express = require("express");
const { WebSocketServer } = require("ws");

const whitelist = process.argv.slice(2);
const sessions = new Map(); // users, by the values of their cookies

let runs; // how often each handler ran for each user, by host: "whole.shop.test transfer alice"
const reset = () => (runs = {});
reset();

function user(req) {
  if (req.url.startsWith("/app/")) return req.headers["x-user"] ?? "nobody";
  const cookies = (req.headers.cookie ?? "").split(";").map((pair) => pair.trim().split("="));
  const found = cookies.filter(([name]) => name === "sid" || name === "unsaid").map(([, value]) => sessions.get(value));
  return found.find((name) => name) ?? "nobody";
}

function ran(handler, req) {
  const key = `${req.headers.host.split(":")[0]} ${handler} ${user(req)}`;
  runs[key] = (runs[key] ?? 0) + 1;
}

const app = express();
app.use(cors({ origin: (origin, done) => done(null, whitelist.includes(origin)), credentials: true }));
app.use(express.urlencoded({ extended: false }), express.text({ type: () => true }));

// What npm's method-override does, in the header and in a form.
app.use((req, res, next) => {
  if (req.method === "POST") req.method = (req.headers["x-http-method-override"] ?? req.body?._method ?? "POST").toUpperCase();
  next();
});

const handle = (name) => (req, res) => {
  ran(name, req);
  res.json({ handler: name, user: user(req) });
};

const page = (req, res) => res.send('<!doctype html><meta charset="utf-8"><title>The shop</title><link rel="icon" href="data:,"><p>the shop</p>');

for (const prefix of ["", "/app"]) {
  app.get(`${prefix}/`, page);
  app.get(`${prefix}/me`, (req, res) => res.json({ handler: "me", user: user(req), headers: Object.keys(req.headers) }));
  app.post(`${prefix}/transfer`, handle("transfer"));
  app.post(`${prefix}/orders/7`, handle("order"));
  app.delete(`${prefix}/orders/7`, handle("cancel"));
  app.get(`${prefix}/delete`, handle("delete"));
}
app.get("/login", page);

// The cookie goes wherever a cookie can go, as that of a shop in other sites' frames has to.
app.post("/login", (req, res) => {
  ran("login", req);
  const id = randomUUID();
  sessions.set(id, req.body.user);
  res.cookie("sid", id, { httpOnly: true, secure: true, sameSite: "none" }).json({ handler: "login" });
});

// And as most backends leave it: browsers take that for Lax, after two minutes.
app.post("/login-unsaid", (req, res) => {
  ran("login", req);
  const id = randomUUID();
  sessions.set(id, req.body.user);
  res.cookie("unsaid", id, { httpOnly: true, secure: true }).json({ handler: "login" });
});

const server = http.createServer(app);

// Nobody asks where a WebSocket comes from, which is how it is by default.
const sockets = new WebSocketServer({ noServer: true });
server.on("upgrade", (req, socket, head) => {
  sockets.handleUpgrade(req, socket, head, (ws) => {
    ran("ws", req);
    ws.on("message", (data) => ws.send(`echo ${data}`));
    ws.on("error", () => ws.terminate());
  });
});

const control = http.createServer((req, res) => {
  switch (`${req.method} ${req.url}`) {
    case "GET /__counts":
      res.setHeader("Content-Type", "application/json");
      return res.end(JSON.stringify({ runs }));
    case "POST /__reset":
      reset();
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
