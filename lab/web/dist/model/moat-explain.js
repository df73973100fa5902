// <moat-explain>: paste an error or describe a request, and see what a browser makes of
// it. One component; it draws in a shadow root and asks nothing of the page around it but
// to be served beside its own files. See README.md for the attributes, the properties and
// the event.

import { ask, warm } from "./engine.js";
import { h, newID } from "./dom.js";
import { RequestForm } from "./form.js";
import { pack, unpack } from "./share.js";
import { sheet } from "./style.js";
import * as view from "./view.js";

const idle = (f) => (globalThis.requestIdleCallback ? requestIdleCallback(f, { timeout: 4000 }) : setTimeout(f, 1500));

export class MoatExplain extends HTMLElement {
  static observedAttributes = ["case"];

  #form = new RequestForm(() => this.#later());
  #text;
  #presets = h("ul", { class: "presets" });
  #message = h("p", { class: "message", role: "alert" });
  #status = h("p", { class: "status", role: "status" });
  #findings = h("div", { class: "findings" });
  #pasted = h("div", { class: "pasted" });
  #result = h("div", { class: "result" });
  #describe;
  #answer = null;
  #caseNotes = [];
  #lesson = null; // the example that is shown
  // The pasted error that is shown, if one is: {text, reading}.
  #error = null;
  #timer = 0;
  #turn = 0;
  #remembered = { target: "moat" };
  // What the page has written into the URL itself.
  #written = "";

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    const pasteID = newID();
    this.#text = h("textarea", { id: pasteID, rows: 3, spellcheck: "false", autocapitalize: "off",
      placeholder: "Access to fetch at 'https://api.example/items' from origin 'https://app.example' has been blocked by CORS policy: …",
      focus: warm,
      keydown: (e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) this.paste(this.#text.value); },
      paste: () => setTimeout(() => this.paste(this.#text.value)) });
    this.#describe = h("details", { class: "describe", open: true }, h("summary", {}, "Describe a request"), this.#form.element);
    root.append(
      h("div", { class: "top" },
        h("form", { class: "paste", submit: (e) => { e.preventDefault(); this.paste(this.#text.value); } },
          h("label", { for: pasteID }, "Paste an error from the console, a curl command or a fetch call"),
          this.#text,
          h("div", { class: "actions" },
            h("button", { type: "submit", class: "main" }, "Explain it"),
            h("span", { class: "hint" }, "It is read here, in this tab. Nothing is sent anywhere."))),
        h("div", { class: "examples" }, h("p", { class: "label" }, "Or start from an example"), this.#presets)),
      this.#message,
      h("div", { class: "work" },
        this.#describe,
        h("div", { class: "main-column" },
          this.#findings, this.#pasted, this.#status, this.#result)),
    );
  }

  connectedCallback() {
    // What was set before the element was defined hides the property.
    if (Object.hasOwn(this, "case")) {
      const c = this.case;
      delete this.case;
      this.case = c;
    }
    this.#describe.open = this.offsetWidth > 900;
    this.#loadPresets();
    idle(warm);
    if (this.hasAttribute("linked")) {
      addEventListener("hashchange", this.#fromFragment);
      this.#fromFragment();
    }
  }

  disconnectedCallback() {
    removeEventListener("hashchange", this.#fromFragment);
    clearTimeout(this.#timer);
  }

  attributeChangedCallback(name, _, value) {
    if (name !== "case" || value === null) return;
    try {
      this.case = JSON.parse(value);
    } catch {
      this.#fail("The attribute case holds no JSON.");
    }
  }

  /** The case, as browser.Case in JSON. Setting it explains it. */
  get case() { return this.#form.case; }
  set case(c) {
    this.#show(c, []);
  }

  /** What was explained last: {case, explanation, error}, or null. */
  get answer() { return this.#answer; }

  /** Explains the case, shows and returns the answer; null if that failed or was overtaken. */
  async explain() {
    const turn = ++this.#turn;
    clearTimeout(this.#timer);
    if (!this.#answer) this.#say("Loading the model…");
    let answer;
    try {
      answer = await ask("explain", JSON.stringify(this.#form.case));
    } catch (error) {
      if (turn === this.#turn) this.#fail(error.message);
      return null;
    }
    if (turn !== this.#turn) return null;
    this.#answer = answer;
    this.#message.textContent = "";
    this.#draw();
    if (this.hasAttribute("linked")) await this.#toFragment(turn);
    if (turn !== this.#turn) return null; // overtaken while the link was packed
    this.dispatchEvent(new CustomEvent("explained", { detail: answer, bubbles: true, composed: true }));
    return answer;
  }

  /** Reads a text as if it had been pasted. */
  async paste(text, wanted = 0) {
    const turn = ++this.#turn;
    clearTimeout(this.#timer);
    this.#say("Reading…");
    let found;
    try {
      found = await ask("paste", text);
    } catch (error) {
      if (turn === this.#turn) {
        this.#clear();
        this.#fail(error.message);
      }
      return;
    }
    if (turn !== this.#turn) return;
    this.#message.textContent = "";
    await this.#choose(found, 0, wanted);
  }

  async #choose(found, i, j) {
    const finding = found.findings[i];
    if (!finding.readings?.[j]) j = 0;
    const reading = finding.readings?.[j];
    this.#clear();
    if (found.findings.length > 1) {
      const select = h("select", { id: newID(), change: (e) => this.#choose(found, Number(e.target.value), 0) },
        found.findings.map((f, n) => h("option", { value: n, selected: n === i }, `${n + 1}. ${f.label.slice(0, 140)}`)));
      this.#findings.append(h("label", { for: select.id }, `${found.findings.length} found${found.more ? ` (and ${found.more} more)` : ""}`), select);
    }
    this.#pasted.replaceChildren(...(finding.diagnosis ? [view.diagnosis(finding, j, (n) => this.#choose(found, i, n))] : []));
    this.#error = finding.diagnosis ? { text: finding.share, reading: j } : null;
    if (reading?.case) {
      await this.#show(reading.case, reading.notes ?? [], true);
      return;
    }
    const turn = ++this.#turn;
    this.#answer = null;
    this.#result.replaceChildren();
    this.#say(reading?.error?.title ?? finding.other?.title ?? "", true);
    if (this.hasAttribute("linked")) await this.#toFragment(turn);
  }

  #show(c, notes, keepPasted = false) {
    if (!keepPasted) this.#clear();
    this.#caseNotes = notes;
    this.#form.case = c;
    return this.explain();
  }

  #clear() {
    this.#findings.replaceChildren();
    this.#pasted.replaceChildren();
    this.#caseNotes = [];
    this.#error = null;
    this.#lesson = null;
    this.#markPreset();
  }

  #markPreset() {
    for (const b of this.#presets.querySelectorAll("button")) {
      b.setAttribute("aria-pressed", String(b.textContent === this.#lesson?.title));
    }
  }

  #later() {
    this.#clear();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.explain(), 250);
  }

  // What the status says is heard; what is also written elsewhere is not shown twice.
  #say(text, heardOnly = false) {
    this.#status.classList.toggle("heard", heardOnly);
    this.#status.textContent = text;
  }

  #fail(text) {
    this.#message.textContent = text;
    this.#say("");
    this.#result.replaceChildren();
    this.#answer = null;
  }

  #draw() {
    const { explanation, error } = this.#answer;
    this.#say(explanation.summary, true);
    this.#result.replaceChildren(...[
      this.#lesson && h("p", { class: "lesson" }, this.#lesson.text),
      view.verdict(explanation),
      view.notes([...this.#caseNotes, ...(explanation.notes ?? [])]),
      view.lanes(explanation),
      view.mends(explanation, this.#remembered),
      view.console_(explanation, this.#pasted.childElementCount > 0 ? null : error),
      view.steps(explanation),
    ].filter(Boolean));
  }

  async #loadPresets() {
    if (this.#presets.childElementCount > 0) return;
    let all;
    try {
      all = await (await fetch(new URL("presets.json", import.meta.url))).json();
    } catch {
      return; // there are no examples then
    }
    const teach = (p) => {
      this.#text.value = "";
      this.#clear();
      this.#lesson = p;
      this.#markPreset();
      return this.#show(p.case, [], true);
    };
    this.#presets.replaceChildren(...all.map((p) => h("li", {}, h("button", { type: "button", "aria-pressed": "false", title: p.text, click: () => teach(p) }, p.title))));
    // Somebody who has just come sees something.
    const expected = this.#turn > 0 || (this.hasAttribute("linked") && location.hash.length > 1);
    if (this.hasAttribute("first") && !expected) teach(all[0]);
  }

  async #toFragment(turn) {
    const state = this.#error ?? { case: this.#answer.case, notes: this.#caseNotes };
    try {
      const fragment = "#" + await pack(state);
      if (turn !== this.#turn) return;
      this.#written = fragment;
      history.replaceState(history.state, "", fragment);
    } catch (error) {
      this.#message.textContent = `This cannot be shared: ${error.message}.`;
    }
  }

  #fromFragment = async () => {
    const fragment = location.hash;
    if (fragment.length < 2 || fragment === this.#written) return;
    const turn = ++this.#turn;
    this.#say("Loading the model…");
    try {
      const state = await unpack(fragment.slice(1));
      if (typeof state.text === "string") {
        if (turn === this.#turn) await this.paste(state.text, Number.isInteger(state.reading) ? state.reading : 0);
        return;
      }
      // The model says first whether it is a case at all, and gives it back in order.
      const { case: c } = await ask("explain", JSON.stringify(state.case ?? null));
      const notes = Array.isArray(state.notes) ? state.notes.filter((n) => typeof n === "string").slice(0, 40) : [];
      if (turn === this.#turn) await this.#show(c, notes);
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#clear();
      this.#fail(`The link cannot be read: ${error.message}.`);
    }
  };
}

customElements.define("moat-explain", MoatExplain);
