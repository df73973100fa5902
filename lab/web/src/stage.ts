// The page's side of the stage.
import type { PageRequest } from "./lab";
import type { FromStage, Saw, Setting, ToStage } from "./stage/protocol";

export type { Saw };

/** A stage is a new frame for every run, so that none finds anything of the one before. */
export class Stage {
  #last = 0;
  #frame: HTMLIFrameElement;
  #waiting = new Map<number, (message: FromStage) => void>();
  #ready: Promise<void>;
  /** Hears what a script says while it is at work. */
  onSay: (text: string) => void = () => {};

  constructor(sandboxed: boolean) {
    const frame = document.createElement("iframe");
    frame.src = "/.lab/stage";
    frame.title = "The stage, where requests are made";
    frame.className = "stage";
    frame.tabIndex = -1;
    frame.setAttribute("aria-hidden", "true");
    if (sandboxed) frame.setAttribute("sandbox", "allow-scripts allow-forms");
    this.#frame = frame;
    this.#ready = new Promise((done, fail) => {
      const timer = setTimeout(() => fail(new Error("The stage did not load.")), 10_000);
      this.#waiting.set(0, () => {
        clearTimeout(timer);
        done();
      });
    });
    addEventListener("message", this.#hear);
    document.body.append(frame);
  }

  #hear = (e: MessageEvent<FromStage>): void => {
    if (e.source !== this.#frame.contentWindow) return;
    if ("say" in e.data) this.onSay(e.data.say);
    else this.#waiting.get("ready" in e.data ? 0 : e.data.id)?.(e.data);
  };

  async #ask<T extends FromStage>(task: (id: number) => ToStage): Promise<T> {
    await this.#ready;
    const id = ++this.#last;
    const answer = await new Promise<FromStage>((done) => {
      this.#waiting.set(id, done);
      this.#frame.contentWindow?.postMessage(task(id), "*"); // a sandboxed frame has no origin to name
    });
    if ("fault" in answer) throw new Error(answer.fault);
    return answer as T;
  }

  /** Makes a request. tab is the name of the one that a form or link may lead away. */
  async make(request: PageRequest, tab?: string): Promise<Saw> {
    return (await this.#ask<{ id: number; saw: Saw }>((id) => ({ id, request, tab }))).saw;
  }

  /** Calls a function of a lesson's script.js. */
  async do(lesson: string, name: string, setting: Setting): Promise<{ readable: boolean; saw: string }> {
    return (await this.#ask<{ id: number; did: { readable: boolean; saw: string } }>((id) => ({ id, lesson, do: name, setting }))).did;
  }

  close(): void {
    removeEventListener("message", this.#hear);
    this.#frame.remove();
  }
}
