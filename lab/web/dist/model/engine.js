// The model, in a worker: the page stays responsive, and whatever becomes of the model,
// it can be started anew. Nothing is loaded before the first question, or warm().

let worker = null;
let last = 0;
const waiting = new Map();

function fail(error) {
  worker?.terminate();
  worker = null;
  for (const { reject, timer } of waiting.values()) {
    clearTimeout(timer);
    reject(error);
  }
  waiting.clear();
}

function start() {
  if (worker) return worker;
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onerror = () => fail(new Error("the model could not be loaded"));
  worker.onmessage = ({ data }) => {
    if (data.dead) return fail(new Error(data.dead));
    const one = waiting.get(data.id);
    if (!one) return;
    waiting.delete(data.id);
    clearTimeout(one.timer);
    let answer;
    try {
      answer = JSON.parse(data.answer);
    } catch {
      return one.reject(new Error("the model gave no answer"));
    }
    if (typeof answer.error === "string") one.reject(new Error(answer.error));
    else one.resolve(answer);
  };
  return worker;
}

/** Loads the model, if it is not there yet. */
export function warm() {
  start();
}

/**
 * Asks the model.
 * @param {"explain"|"paste"|"play"} name
 * @param {string} input
 * @returns {Promise<object>}
 */
export function ask(name, input) {
  return new Promise((resolve, reject) => {
    const id = ++last;
    // Loading is part of it, and may be slow.
    const timer = setTimeout(() => fail(new Error("the model took too long and was stopped")), 60_000);
    waiting.set(id, { resolve, reject, timer });
    start().postMessage({ id, name, input });
  });
}
