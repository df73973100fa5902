// What the model says, as elements.

import { h, out, newID } from "./dom.js";

const parties = ["page", "browser", "network", "backend"];
const partyNames = { page: "Page script", browser: "Browser", network: "Network", backend: "Backend" };

// The fields of requests and answers on which it hangs.
const telling = /^(origin|cookie|authorization|access-control-.*|set-cookie|location|vary|cross-origin-.*|\(.*)$/i;

function detail(text) {
  const at = text.indexOf(": ");
  if (at < 0) return h("li", { class: "aside" }, text);
  const name = text.slice(0, at);
  return h("li", { class: telling.test(name) ? "telling" : "" }, h("span", { class: "name" }, name + ":"), " " + text.slice(at + 2));
}

/** The lanes: time goes down, each message from the one who sends it to the one who gets it. */
export function lanes(explanation) {
  const steps = explanation.trace?.steps ?? [];
  const stepOf = (title) => steps.find((s) => s.text.toLowerCase() === title.toLowerCase());
  const events = [...(explanation.lanes ?? [])];
  const failed = explanation.failure;
  if (failed && !events.some((e) => e.failed && e.from === e.to)) {
    // The terminal draws it at the answer's arrow; here it has a place of its own.
    events.splice(-1, 0, { from: "browser", to: "browser", title: failed.text[0].toUpperCase() + failed.text.slice(1), failed: true });
  }
  const sent = (explanation.trace?.exchanges ?? []).filter((x) => !x.from_cache);
  const items = events.map((event) => {
    const leaves = event.from === "browser" && (event.to === "backend" || event.to === "network");
    return lane(event, stepOf, leaves ? sent.shift() : undefined);
  });
  return h("div", { class: "lanes" },
    h("div", { class: "heads", "aria-hidden": "true" }, parties.map((p) => h("span", { class: `head ${p}` }, partyNames[p]))),
    h("div", { class: "rails", "aria-hidden": "true" }, parties.map((p) => h("i", { class: p }))),
    h("ol", {}, items));
}

function lane(event, stepOf, exchange) {
  const from = parties.indexOf(event.from);
  const to = parties.indexOf(event.to);
  const own = from === to;
  const direction = own ? "own" : to > from ? "right" : "left";
  // A message stands in the lane of the network; what the page says or sees, in its own.
  const at = Math.max(from, to) >= 2 ? "network" : "page";
  const who = own ? partyNames[event.from] : `${partyNames[event.from]} → ${partyNames[event.to]}`;
  const step = own && stepOf(event.title);
  return h("li", { class: `event ${direction} ${own ? "" : `at-${at}`} from-${event.from} to-${event.to}${event.failed ? " failed" : ""}` },
    h("i", { class: own ? "arrow dot" : "arrow", "aria-hidden": "true" }),
    h("div", { class: "card" },
      h("p", { class: "who" }, who, event.failed && own && h("span", { class: "cross" }, "✕ fails here")),
      h("p", { class: own ? "title" : "title code" }, event.title),
      event.details?.length > 0 && h("ul", { class: "headers" }, event.details.map(detail)),
      step && out(step.link, step.algorithm)),
    exchange && event.to === "backend" && h("p", { class: exchange.executed ? "ran" : "ran not" }, exchange.executed ? "executes it" : "only answers"));
}

const readable = {
  readable: ["yes", "Yes"], opaque: ["no", "No"], blocked: ["no", "No"], failed: ["no", "No"], threw: ["no", "No"],
};

/** The verdict: can script read it, and did the backend do it? */
export function verdict(explanation) {
  const v = explanation.trace?.verdict ?? {};
  const [readClass, read] = readable[v.outcome] ?? ["", "Unknown"];
  const did = explanation.executed ?? {};
  const didWord = { yes: "Yes", no: "No", "only the preflight": "No", unknown: "Nobody knows" }[did.answer] ?? did.answer;
  return h("section", { class: `verdict ${explanation.outcome}` },
    h("h2", {}, explanation.summary),
    h("div", { class: "two" },
      h("div", { class: `cell ${readClass}` },
        h("p", { class: "ask" }, "May the page read the answer?"),
        h("p", { class: "answer" }, read),
        h("p", { class: "say" }, sees(explanation))),
      h("div", { class: `cell ${did.answer === "yes" ? "did" : "not"}` },
        h("p", { class: "ask" }, "Did the backend execute it?"),
        h("p", { class: "answer" }, didWord),
        h("p", { class: "say" }, did.text))));
}

function sees(explanation) {
  const last = (explanation.lanes ?? []).at(-1);
  return last?.to === "page" ? `What it gets: ${last.title}` : "";
}

function copyButton(text, what) {
  const button = h("button", { type: "button", class: "copy", "aria-label": `Copy ${what}`, click: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  } }, "Copy");
  return button;
}

const code = (text, what, language) => h("div", { class: "code-box" }, copyButton(text, what), h("pre", { tabIndex: 0, "data-language": language }, h("code", {}, text)));

/** What the browsers' consoles say. */
export function console_(explanation, error) {
  const v = explanation.trace?.verdict ?? {};
  const failure = explanation.failure;
  if (!v.console && !v.firefox && !v.net_error && !failure) return null;
  return h("section", { class: "said" },
    h("h3", {}, "What the browser says"),
    v.console && h("p", { class: "label" }, explanation.browser === "firefox" ? "Chrome's console would say" : "Chrome's console, word for word"),
    v.console && code(v.console, "the console's text"),
    h("dl", {},
      v.cors_error && [h("dt", {}, "Chrome's name"), h("dd", {}, h("code", {}, v.cors_error))],
      v.firefox && [h("dt", {}, "Firefox's reason"), h("dd", {}, h("code", {}, v.firefox))],
      v.net_error && [h("dt", {}, "Network error"), h("dd", {}, h("code", {}, v.net_error))],
      v.blocked_reason && [h("dt", {}, "Blocked by"), h("dd", {}, h("code", {}, v.blocked_reason))],
      failure && [h("dt", {}, "Where it fails"), h("dd", {}, out(failure.link, failure.step), `: ${failure.text}`)],
      failure?.came?.length > 0 && [h("dt", {}, "Came"), h("dd", {}, fieldsOf(failure.came))],
      failure?.needed?.length > 0 && [h("dt", {}, "Needed"), h("dd", {}, fieldsOf(failure.needed))]),
    error && h("p", {}, error.cause));
}

const fieldsOf = (header) => header.map(([name, value]) => h("code", { class: "field-line" }, name === ":status" ? `status ${value}` : `${name}: ${value}`));

/** The ways out: one grant in a tab for each kind of server, and other changes. */
export function mends(explanation, remembered) {
  const changes = explanation.changes ?? [];
  const targets = explanation.mends ?? [];
  if (changes.length + targets.length === 0) return null;
  return h("section", { class: "mends" },
    h("h3", {}, "How to mend it"),
    changes.map((c) => h("div", { class: "change" },
      h("p", { class: "who" }, { page: "in the page", server: "on the server", user: "by the user" }[c.who] ?? c.who),
      h("h4", {}, c.title), h("p", {}, c.text), c.example && code(c.example, "the example", c.language))),
    targets.length > 0 && h("p", { class: "lead" }, changes.length > 0 ? "And let the server grant what the page needs, to this page and no other. One of these is enough:" : "Let the server grant what the page needs, to this page and no other. One of these is enough:"),
    targets.length > 0 && tabs(targets, remembered));
}

function tabs(targets, remembered) {
  const group = newID();
  const panels = [];
  const buttons = [];
  const select = (i, focus) => {
    buttons.forEach((b, j) => {
      b.setAttribute("aria-selected", String(i === j));
      b.tabIndex = i === j ? 0 : -1;
      panels[j].hidden = i !== j;
    });
    remembered.target = targets[i].target;
    if (focus) buttons[i].focus();
  };
  targets.forEach((m, i) => {
    buttons.push(h("button", { type: "button", role: "tab", id: `${group}t${i}`, "aria-controls": `${group}p${i}`, click: () => select(i),
      keydown: (e) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
        const to = step ? (i + step + targets.length) % targets.length : { Home: 0, End: targets.length - 1 }[e.key];
        if (to === undefined) return;
        e.preventDefault();
        select(to, true);
      } }, shortName(m)));
    panels.push(h("div", { role: "tabpanel", id: `${group}p${i}`, "aria-labelledby": `${group}t${i}` },
      h("p", { class: "file" }, h("b", {}, m.title), ` · ${m.file}`), code(m.code, `the change for ${m.title}`, m.language), m.note && h("p", { class: "note" }, m.note)));
  });
  select(Math.max(0, targets.findIndex((m) => m.target === remembered.target)));
  return h("div", { class: "tabs" }, h("div", { role: "tablist", "aria-label": "Kinds of servers" }, buttons), panels);
}

const shortNames = { moat: "moat", go: "Go + moat", "go-net-http": "net/http", nginx: "nginx", caddy: "Caddy", express: "Express", spring: "Spring", fastapi: "FastAPI" };
const shortName = (m) => shortNames[m.target] ?? m.target;

/** Every step of the standard, in order. */
export function steps(explanation) {
  const all = explanation.trace?.steps ?? [];
  if (all.length === 0) return null;
  return h("section", { class: "steps" },
    h("h3", {}, "Every step, in the standard"),
    h("ol", {}, all.map((s) => h("li", { class: s.failed ? "failed" : "" }, out(s.link, s.algorithm), h("span", {}, s.text)))));
}

/** Notes, if there are any. */
export const notes = (list) => (list?.length > 0 ? h("ul", { class: "notes" }, list.map((n) => h("li", {}, n))) : null);

const browserNames = { chrome: "Chrome's", firefox: "Firefox's", safari: "Safari's" };

/** What a pasted error says. choose is called with a reading. */
export function diagnosis(finding, chosen, choose) {
  const d = finding.diagnosis;
  const readings = finding.readings ?? [];
  const error = readings[chosen]?.error;
  return h("section", { class: "diagnosis" },
    h("p", { class: "who" }, d.browser ? `${browserNames[d.browser]} message` : "An error's message"),
    h("blockquote", {}, d.text),
    readings.length > 1 && h("div", { class: "choices", role: "group", "aria-label": "Which of these was it?" },
      h("span", {}, "The text fits several. Which was it?"),
      readings.map((r, i) => h("button", { type: "button", "aria-pressed": String(i === chosen), click: () => choose(i) }, r.error?.name ?? `${i + 1}`))),
    error && [
      h("h2", {}, error.title),
      h("dl", {},
        h("dt", {}, "Cause"), h("dd", {}, error.cause),
        h("dt", {}, "What reached the server"), h("dd", {}, error.reached),
        h("dt", {}, "Way out"), h("dd", {}, error.mend),
        h("dt", {}, "In the standard"), h("dd", {}, out(error.link, error.step)))],
    finding.other && [h("h2", {}, finding.other.title), h("p", {}, finding.other.text)]);
}
