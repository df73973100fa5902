import { build, byId, perform, poll, reset } from "./common.js";

const actions = [
  {
    id: "data",
    name: "Read the data",
    path: "/api/data",
    request: "fetch GET /api/data",
    why: "A simple request: the browser sends it at once, and hands over the answer because CORS names this origin.",
    async run(base) {
      const answer = await fetch(`${base}/api/data`);
      return `${answer.status} ${await answer.text()}`;
    },
  },
  {
    id: "transfer",
    name: "Pay Bob 10",
    path: "/api/transfer",
    request: "fetch POST /api/transfer, application/json",
    why: "JSON needs a preflight: the browser asks first, and is told yes.",
    async run(base) {
      const answer = await fetch(`${base}/api/transfer`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ to: "bob", amount: 10 }),
      });
      return `${answer.status} ${await answer.text()}`;
    },
  },
  {
    id: "stream",
    name: "Listen to the stream",
    path: "/api/stream",
    request: "EventSource GET /api/stream",
    why: "Server-sent events: five ticks, each shown when it comes. A gate that buffers would hand them all over at the end, within 0.0 s.",
    run(base, _before, tell) {
      return new Promise((done) => {
        let seen = 0;
        let first = 0;
        const source = new EventSource(`${base}/api/stream`);
        const stop = (text) => {
          source.close();
          done(text);
        };
        source.onmessage = (event) => {
          if (seen++ === 0) first = event.timeStamp;
          tell(event.data);
        };
        source.addEventListener("done", (event) => {
          stop(`${seen} ticks over ${((event.timeStamp - first) / 1000).toFixed(1)} s`);
        });
        // EventSource would connect again by itself, and be streamed to once more.
        source.onerror = () => stop(`the stream broke off after ${seen} ticks`);
      });
    },
  },
];

for (const action of actions) {
  const run = action.run;
  action.run = (...args) => Promise.resolve(run(...args)).catch((error) => String(error));
  action.start = (target) => perform(action, target).catch(() => {});
}
build(actions, "Send", "Page got", "Backend did");
byId("reset").addEventListener("click", () => reset().catch(() => {}));
poll();
