// The stage: a frame in which the lessons' requests are made. Its policy lets it reach the
// lab's origins, which that of the page around it does not. It does what that page says, and
// nobody else can frame it.
import type { FromStage, ToStage } from "./protocol";
import { make } from "./requests";

function tell(message: FromStage): void {
  parent.postMessage(message, "*"); // whoever framed it is of its own origin: frame-ancestors
}

async function work(task: ToStage): Promise<FromStage> {
  const { id } = task;
  if ("request" in task) return { id, saw: await make(task.request, task.tab) };
  const script = (await import(/* @vite-ignore */ new URL(`/.lab/script/${task.lesson}.js`, location.href).href)) as Record<string, unknown>;
  const f = script[task.do];
  if (typeof f !== "function") return { id, fault: `script.js of ${task.lesson} has no function ${task.do}` };
  return { id, did: await f({ ...task.setting, say: (text: unknown) => tell({ id, say: String(text) }) }) };
}

addEventListener("message", async (e: MessageEvent<ToStage>) => {
  if (e.source !== parent) return;
  try {
    tell(await work(e.data));
  } catch (error) {
    tell({ id: e.data.id, fault: String(error) });
  }
});

addEventListener("DOMContentLoaded", () => tell({ ready: true }));
