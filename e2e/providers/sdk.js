// The providers' own libraries, through the gate whose origin is the argument. Each call's text and figures,
// as the library tells them, are a line of JSON.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const gate = process.argv[2];
const options = { apiKey: "none", maxRetries: 0, timeout: 20_000 };
const openai = new OpenAI({ ...options, baseURL: `${gate}/v1` });
const anthropic = new Anthropic({ ...options, baseURL: gate });
const model = "small";

const tell = (name, text, usage) => console.log(JSON.stringify({ name, text, ...usage }));
const ofOpenAI = (u) => ({
  input: (u.prompt_tokens ?? u.input_tokens) - (u.prompt_tokens_details ?? u.input_tokens_details).cached_tokens,
  cached: (u.prompt_tokens_details ?? u.input_tokens_details).cached_tokens,
  output: u.completion_tokens ?? u.output_tokens,
});
const ofAnthropic = (u) => ({ input: u.input_tokens, cached: u.cache_read_input_tokens, cacheWrite: u.cache_creation_input_tokens, output: u.output_tokens });

const user = (content) => [{ role: "user", content }];

{
  const r = await openai.chat.completions.create({ model, messages: user("say 7") });
  tell("chat", r.choices[0].message.content, ofOpenAI(r.usage));
}
{
  const r = await openai.chat.completions.create({ model, n: 2, max_tokens: 4, messages: user([{ type: "text", text: "say 70 again" }]) });
  tell("chat, two answers", r.choices.map((c) => c.message.content).join("|"), ofOpenAI(r.usage));
}
{
  const stream = openai.chat.completions.stream({ model, messages: user("say 9 again"), stream_options: { include_usage: true } });
  const r = await stream.finalChatCompletion();
  tell("chat stream", r.choices[0].message.content, ofOpenAI(r.usage));
}
{
  let text = "";
  let usage;
  for await (const chunk of await openai.chat.completions.create({ model, stream: true, messages: user("say 500") })) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  tell("chat stream that moat asked for figures and gave a bound", text, ofOpenAI(usage));
}
{
  const r = await openai.completions.create({ model, n: 2, max_tokens: 10, prompt: ["say 4", "say 30 again"] });
  tell("completions, two answers to each of two prompts", r.choices.map((c) => c.text).join("|"), ofOpenAI(r.usage));
}
{
  let text = "";
  let usage;
  for await (const chunk of await openai.completions.create({ model, stream: true, prompt: "say 500" })) {
    text += chunk.choices[0]?.text ?? "";
    usage = chunk.usage ?? usage;
  }
  tell("completions stream that moat asked for figures and gave a bound", text, ofOpenAI(usage));
}
{
  const r = await openai.responses.create({ model, input: "say 6 again" });
  tell("responses", r.output_text, ofOpenAI(r.usage));
}
{
  let text = "";
  let usage;
  for await (const event of await openai.responses.create({ model, stream: true, input: user("say 500") })) {
    if (event.type === "response.output_text.delta") text += event.delta;
    if (event.type === "response.incomplete") usage = event.response.usage;
  }
  tell("responses stream, to its bound", text, ofOpenAI(usage));
}
{
  const r = await openai.responses.stream({ model, input: user("say 12") }).finalResponse();
  tell("responses stream", r.output[0].content[0].text, ofOpenAI(r.usage));
}
{
  const r = await anthropic.messages.create({ model, max_tokens: 50, messages: user("say 8") });
  tell("messages", r.content[0].text, ofAnthropic(r.usage));
}
{
  const system = [{ type: "text", text: "be short", cache_control: { type: "ephemeral" } }];
  const r = await anthropic.messages.stream({ model, max_tokens: 11, system, messages: user("say 20 again") }).finalMessage();
  tell("messages stream", r.content[0].text, ofAnthropic(r.usage));
}
{
  try {
    await openai.chat.completions.create({ model, max_tokens: 5000, messages: user("say 5000") });
  } catch (e) {
    tell("refused", `${e.status} ${e.constructor.name}`);
  }
}
{
  const controller = new AbortController();
  const stream = await openai.chat.completions.create({ model, stream: true, messages: user("say 90") }, { signal: controller.signal });
  for await (const chunk of stream) {
    if (chunk.choices[0]?.delta.content) break;
  }
  controller.abort();
  tell("left", "");
}
