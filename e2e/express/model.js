// A language model behind the API that OpenAI's clients speak, as a provider offers it: whoever
// has the key may call, and pays for each token. It knows nothing of pages and sends no CORS headers.
//
// It prints its ports as one line of JSON when it is ready, and ends with its stdin. What it
// did is told on the second port, which is nobody's API. The key is MODEL_KEY.
"use strict";

const http = require("node:http");
const express = require("express");

const key = process.env.MODEL_KEY;
if (!key) throw new Error("MODEL_KEY is not set");

// state is what the provider would put on its bill since the last reset.
let state;

function reset() {
  state = { completions: 0, tokens: 0, unauthorized: 0, prompts: {}, headers: [] };
}
reset();

// A stream whose prompt is "hold" waits after its first token until the control port says
// "release": so a test can tell that the token has arrived before the next one was made.
let release = () => {};
let released = new Promise((done) => (release = done));

const app = express();

app.use("/v1", (req, res, next) => {
  if (req.headers.authorization === `Bearer ${key}`) return next();
  state.unauthorized++;
  res.status(401).json({ error: { message: "Incorrect API key provided.", type: "invalid_request_error", param: null, code: "invalid_api_key" } });
});

app.get("/v1/models", (req, res) => {
  res.json({ object: "list", data: [{ id: "demo-1", object: "model", created: 1700000000, owned_by: "demo" }] });
});

app.post("/v1/chat/completions", express.json({ type: () => true, limit: "1mb" }), async (req, res) => {
  const { messages, stream, stream_options: options, max_tokens: max = 6 } = req.body ?? {};
  const prompt = Array.isArray(messages) ? messages.at(-1)?.content : undefined;
  if (typeof prompt !== "string") {
    return res.status(400).json({ error: { message: "messages: want a list of messages", type: "invalid_request_error", param: "messages", code: null } });
  }
  const id = `chatcmpl-${++state.completions}`;
  state.prompts[prompt] = (state.prompts[prompt] ?? 0) + 1;
  // Names only: what they say may be secret.
  state.headers = Object.keys(req.headers);
  const created = Math.floor(Date.now() / 1000);
  const words = Array.from({ length: max }, (_, i) => `word${i} `);
  if (!stream) {
    state.tokens += words.length;
    return res.json({
      id, created, object: "chat.completion", model: "demo-1",
      choices: [{ index: 0, message: { role: "assistant", content: words.join("") }, finish_reason: "stop" }],
      usage: { prompt_tokens: 1, completion_tokens: words.length, total_tokens: words.length + 1 },
    });
  }
  res.set({ "Content-Type": "text/event-stream", "Cache-Control": "no-cache" }).flushHeaders();
  const chunk = (delta, finish_reason = null) =>
    res.write(`data: ${JSON.stringify({ id, created, object: "chat.completion.chunk", model: "demo-1", choices: [{ index: 0, delta, finish_reason }] })}\n\n`);
  chunk({ role: "assistant", content: "" });
  for (const [i, content] of words.entries()) {
    if (res.closed) return; // nobody reads it: a provider stops too
    state.tokens++;
    chunk({ content });
    if (prompt === "hold" && i === 0) await released;
    else await new Promise(setImmediate);
  }
  chunk({}, "stop");
  if (options?.include_usage) {
    const usage = { prompt_tokens: 1, completion_tokens: words.length, total_tokens: words.length + 1 };
    res.write(`data: ${JSON.stringify({ id, created, object: "chat.completion.chunk", model: "demo-1", choices: [], usage })}\n\n`);
  }
  res.end("data: [DONE]\n\n");
});

const server = http.createServer(app);

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
