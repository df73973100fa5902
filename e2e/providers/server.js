// A server that speaks what model providers document: OpenAI's chat completions, completions and
// responses, Anthropic's messages, streamed and not. It is no model: it says as many words as the prompt
// asks for ("say 7"), never more than the call's bound. The providers themselves cannot be
// reached by a test; what their own libraries accept here is what they document.
//
// Its ledger is what it would send a bill for: a token when it is made, whether or not anybody
// is there to take it. On the control port GET /bill tells it.
import http from "node:http";

const bill = { calls: 0, input: 0, cached: 0, cacheWrite: 0, output: 0 };

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function read(req) {
  const parts = [];
  for await (const part of req) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString());
}

const said = (content) => (typeof content === "string" ? content : (content ?? []).map((c) => c.text ?? said(c.content)).join(" "));

// work takes a call, and bills its input. Four bytes are a token, and what is around a message takes three.
function work(prompt, most, system = 0) {
  const wanted = Number(/say (\d+)/.exec(prompt)?.[1] ?? 5);
  const cached = prompt.includes("again") ? 2 : 0;
  const input = Math.ceil(Buffer.byteLength(prompt) / 4) + 3 + system;
  const output = Math.min(wanted, most);
  bill.input += input - cached;
  bill.cached += cached;
  return { input, cached, output, full: output < wanted };
}

async function* words(n, pause) {
  for (let i = 0; i < n; i++) {
    if (pause) await sleep(pause);
    bill.output++;
    yield i % 3 === 2 ? 'ü"\\ ' : "word ";
  }
}

async function all(n) {
  let text = "";
  for await (const word of words(n)) text += word;
  return text;
}

function answer(res, json) {
  res.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(json));
}

function events(res, named) {
  res.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
  return (event) => !res.destroyed && res.write(`${named ? `event: ${event.type}\n` : ""}data: ${JSON.stringify(event)}\n\n`);
}

async function chat(call, res) {
  const n = call.n ?? 1;
  const w = work(call.messages.map((m) => said(m.content)).join(" "), call.max_completion_tokens ?? call.max_tokens ?? Infinity);
  const base = { id: "chatcmpl-1", created: 1760000000, model: call.model };
  const usage = {
    prompt_tokens: w.input, completion_tokens: w.output * n, total_tokens: w.input + w.output * n,
    prompt_tokens_details: { cached_tokens: w.cached, audio_tokens: 0 }, completion_tokens_details: { reasoning_tokens: 0 },
  };
  const finish_reason = w.full ? "length" : "stop";
  if (!call.stream) {
    const choices = [];
    for (let index = 0; index < n; index++) {
      choices.push({ index, message: { role: "assistant", content: await all(w.output), refusal: null }, logprobs: null, finish_reason });
    }
    return answer(res, { ...base, object: "chat.completion", choices, usage });
  }
  const send = events(res);
  const asked = call.stream_options?.include_usage;
  const chunk = (choices, usage = null) => send({ ...base, object: "chat.completion.chunk", choices, ...(asked ? { usage } : {}) });
  for (let index = 0; index < n; index++) {
    chunk([{ index, delta: { role: "assistant", content: "" }, finish_reason: null }]);
    for await (const content of words(w.output, 1)) chunk([{ index, delta: { content }, finish_reason: null }]);
    chunk([{ index, delta: {}, finish_reason }]);
  }
  if (asked) chunk([], usage);
  res.end("data: [DONE]\n\n");
}

async function completions(call, res) {
  const n = call.n ?? 1;
  const once = [call.prompt].flat().map((prompt) => work(prompt, call.max_tokens ?? Infinity));
  const works = once.flatMap((w) => Array(n).fill(w));
  const sum = (of) => once.reduce((s, w) => s + w[of], 0);
  const usage = {
    prompt_tokens: sum("input"), completion_tokens: sum("output") * n, total_tokens: sum("input") + sum("output") * n,
    prompt_tokens_details: { cached_tokens: sum("cached") },
  };
  const base = { id: "cmpl-1", object: "text_completion", created: 1760000000, model: call.model };
  const choice = (index, text, finish_reason) => ({ index, text, logprobs: null, finish_reason });
  if (!call.stream) {
    const choices = [];
    for (const [index, w] of works.entries()) choices.push(choice(index, await all(w.output), w.full ? "length" : "stop"));
    return answer(res, { ...base, choices, usage });
  }
  const send = events(res);
  const asked = call.stream_options?.include_usage;
  const chunk = (choices, figures = null) => send({ ...base, choices, ...(asked ? { usage: figures } : {}) });
  for (const [index, w] of works.entries()) {
    for await (const text of words(w.output, 1)) chunk([choice(index, text, null)]);
    chunk([choice(index, "", w.full ? "length" : "stop")]);
  }
  if (asked) chunk([], usage);
  res.end("data: [DONE]\n\n");
}

async function responses(call, res) {
  const w = work(said(call.input), call.max_output_tokens ?? Infinity);
  const usage = {
    input_tokens: w.input, input_tokens_details: { cached_tokens: w.cached }, output_tokens: w.output, output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: w.input + w.output,
  };
  const status = w.full ? "incomplete" : "completed";
  const base = { id: "resp_1", object: "response", created_at: 1760000000, model: call.model, error: null, incomplete_details: null, metadata: {}, tools: [] };
  const item = (text) => ({ id: "msg_1", type: "message", role: "assistant", status: "completed", content: [{ type: "output_text", text, annotations: [] }] });
  if (!call.stream) return answer(res, { ...base, status, output: [item(await all(w.output))], usage });
  const send = events(res, true);
  let sequence_number = 0;
  const event = (type, rest) => send({ type, sequence_number: sequence_number++, ...rest });
  event("response.created", { response: { ...base, status: "in_progress", output: [], usage: null } });
  event("response.output_item.added", { output_index: 0, item: { ...item(""), status: "in_progress", content: [] } });
  const at = { item_id: "msg_1", output_index: 0, content_index: 0 };
  event("response.content_part.added", { ...at, part: { type: "output_text", text: "", annotations: [] } });
  let text = "";
  for await (const delta of words(w.output, 1)) {
    text += delta;
    event("response.output_text.delta", { ...at, delta });
  }
  event("response.output_text.done", { ...at, text });
  event("response.output_item.done", { output_index: 0, item: item(text) });
  event(`response.${status}`, { response: { ...base, status, output: [item(text)], usage } });
  res.end();
}

async function messages(call, res) {
  const cacheWrite = JSON.stringify(call).includes('"cache_control"') ? 40 : 0;
  const w = work(call.messages.map((m) => said(m.content)).join(" "), call.max_tokens);
  bill.cacheWrite += cacheWrite;
  const input = { input_tokens: w.input - w.cached, cache_creation_input_tokens: cacheWrite, cache_read_input_tokens: w.cached };
  const stop_reason = w.full ? "max_tokens" : "end_turn";
  const base = { id: "msg_1", type: "message", role: "assistant", model: call.model, stop_sequence: null };
  if (!call.stream) {
    return answer(res, { ...base, stop_reason, content: [{ type: "text", text: await all(w.output) }], usage: { ...input, output_tokens: w.output } });
  }
  const send = events(res, true);
  send({ type: "message_start", message: { ...base, stop_reason: null, content: [], usage: { ...input, output_tokens: 1 } } });
  send({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } });
  send({ type: "ping" });
  for await (const text of words(w.output, 1)) send({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } });
  send({ type: "content_block_stop", index: 0 });
  send({ type: "message_delta", delta: { stop_reason, stop_sequence: null }, usage: { output_tokens: w.output } });
  send({ type: "message_stop" });
  res.end();
}

const paths = { "/v1/chat/completions": chat, "/v1/completions": completions, "/v1/responses": responses, "/v1/messages": messages };

const api = http.createServer(async (req, res) => {
  const speak = paths[req.url];
  if (req.method !== "POST" || !speak) return res.writeHead(404).end();
  const call = await read(req);
  bill.calls++;
  await speak(call, res);
});
const control = http.createServer((req, res) => answer(res, bill));

api.listen(0, "127.0.0.1", () =>
  control.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: api.address().port, control: control.address().port }))),
);
process.stdin.resume().on("end", () => process.exit(0));
