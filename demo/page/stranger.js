import { at, build, byId, el, pause, perform, poll, reset, targets } from "./common.js";

const amount = 50;
const order = JSON.stringify({ to: "mallory", amount });
const form = new URLSearchParams({ to: "mallory", amount });

// attempt is what a script that wants the answer writes, and all that it learns.
async function attempt(url, options) {
  try {
    const answer = await fetch(url, options);
    if (answer.type === "opaque") return "an opaque response: no status, no headers, no body";
    return `${answer.status} ${await answer.text()}`;
  } catch (error) {
    return String(error);
  }
}

// settled waits for one of an element's events, for no longer than a few seconds.
function settled(element, ...events) {
  return new Promise((done) => {
    const end = (event) => {
      clearTimeout(timer);
      done(event);
    };
    const timer = setTimeout(() => end(null), 4000);
    for (const name of events) element.addEventListener(name, end, { once: true });
  });
}

const attacks = [
  {
    id: "read",
    name: "Plain read",
    path: "/api/data",
    request: "fetch GET /api/data",
    why: "A simple request needs no preflight. The work is done, its cost is yours; only the answer is withheld.",
    run: (base) => attempt(`${base}/api/data`),
  },
  {
    id: "urlencoded",
    name: "Form-style POST",
    path: "/api/transfer",
    request: "fetch POST /api/transfer, application/x-www-form-urlencoded",
    why: "What a form could send, a script may send too, with no preflight.",
    run: (base) => attempt(`${base}/api/transfer`, { method: "POST", body: form }),
  },
  {
    id: "text",
    name: "JSON called text",
    path: "/api/transfer",
    request: "fetch POST /api/transfer, text/plain",
    why: "The body is JSON, the type says text: no preflight, and a lenient parser reads it.",
    run: (base) => attempt(`${base}/api/transfer`, { method: "POST", headers: { "Content-Type": "text/plain" }, body: order }),
  },
  {
    id: "form",
    name: "Hidden form",
    path: "/api/transfer",
    request: "form POST /api/transfer, in a hidden iframe",
    why: "A navigation, not a fetch: CORS has no part in it at all, and the visitor sees nothing.",
    run: submitForm,
  },
  {
    id: "image",
    name: "Image tag",
    path: "/api/delete-note",
    request: "img GET /api/delete-note?id=\u2026",
    why: "A GET that deletes. An image tag is enough, without any script.",
    run: loadImage,
  },
  {
    id: "no-cors",
    name: "no-cors POST",
    path: "/api/transfer",
    request: "fetch POST /api/transfer?to=\u2026, mode no-cors",
    why: "The script gives up the answer beforehand. It never wanted one.",
    run: (base) => attempt(`${base}/api/transfer?${form}`, { method: "POST", mode: "no-cors" }),
  },
  {
    id: "json",
    name: "JSON POST",
    path: "/api/transfer",
    request: "fetch POST /api/transfer, application/json",
    why: "The one case that CORS does stop: the browser asks first, is not told yes, and sends nothing more.",
    run: (base) => attempt(`${base}/api/transfer`, { method: "POST", headers: { "Content-Type": "application/json" }, body: order }),
  },
];

async function submitForm(base) {
  const frame = el("iframe", { name: `frame-${Date.now()}`, hidden: "", title: "target of the hidden form" });
  const sender = el("form", { method: "post", action: `${base}/api/transfer`, target: frame.name, hidden: "" });
  for (const [name, value] of form) sender.append(el("input", { type: "hidden", name, value }));
  document.body.append(frame, sender);
  try {
    // The load of the empty document that a frame begins with may come late.
    await pause(50);
    const loaded = settled(frame, "load");
    sender.submit();
    return (await loaded) ? "a frame loaded; what is in it, this page may not see" : "nothing: the frame never loaded";
  } finally {
    frame.remove();
    sender.remove();
  }
}

async function loadImage(base, before) {
  // With no note left the handler still runs, and finds nothing to delete.
  const id = before.notes[0] ?? 1;
  const image = new Image();
  const event = settled(image, "load", "error");
  image.src = `${base}/api/delete-note?id=${id}`;
  const got = await event;
  return got ? `an ${got.type} event, and no reason` : "nothing";
}

// ---- the table

const rows = new Map();

function buildSummary() {
  const body = byId("summary").tBodies[0];
  for (const attack of attacks) {
    const row = { bare: el("td", {}, "\u2013"), moat: el("td", {}, "\u2013"), reason: el("td", {}, "\u2013") };
    rows.set(attack, row);
    body.append(el("tr", {}, el("th", { scope: "row" }, el("a", { href: `#${attack.id}` }, attack.name)), row.bare, row.moat, row.reason));
  }
}

function clearSummary() {
  for (const row of rows.values()) {
    for (const cell of Object.values(row)) {
      cell.textContent = "\u2013";
      cell.className = "";
    }
  }
}

function effect(result) {
  if (result.lost) return `yes: Alice \u2212${result.lost}`;
  if (result.ran) return `yes: ${result.did}`;
  return result.preflight ? "no: preflight failed" : "no";
}

function fill(attack, target, result) {
  const row = rows.get(attack);
  const cell = row[target.key];
  cell.className = !result.tried ? "" : result.ran ? "ran" : "idle";
  cell.textContent = result.tried ? effect(result) : "no server answers";
  if (target.key !== "moat") return;
  row.reason.textContent = !result.tried ? "\u2013" : result.ran ? "none: it passed" : "not told";
}

async function run(attack, target) {
  const result = await perform(attack, target);
  fill(attack, target, result);
  return result;
}

// ---- all of them

function sum(results) {
  const tried = results.filter((r) => r.tried);
  if (tried.length === 0) return "does not answer";
  const lost = tried.reduce((all, r) => all + r.lost, 0);
  return `${tried.filter((r) => r.ran).length} of ${tried.length} reached the handler, Alice lost ${lost}`;
}

async function runAll() {
  const button = byId("run-all");
  const status = byId("status");
  button.disabled = true;
  status.className = "small";
  clearSummary();
  const results = { bare: [], moat: [] };
  try {
    for (const [i, attack] of attacks.entries()) {
      for (const target of targets) {
        status.textContent = `Attack ${i + 1} of ${attacks.length}: ${attack.name}, ${target.name.toLowerCase()}`;
        results[target.key].push(await run(attack, target));
        // Slow enough to watch the figures move.
        await pause(250);
      }
    }
    status.textContent = `Bare backend: ${sum(results.bare)}. Through moat: ${sum(results.moat)}.`;
    status.className = "";
    byId("said").textContent = "Not one answer to read.";
    byId("said-of").textContent = "All seven, both ways. Now look at the money.";
  } catch {
    status.textContent = "Stopped: the ledger does not answer.";
  } finally {
    button.disabled = false;
  }
}

for (const attack of attacks) attack.start = (target) => run(attack, target).catch(() => {});
build(attacks, "Attack", "Script saw", "Backend did");
buildSummary();
byId("run-all").addEventListener("click", runAll);
byId("reset").addEventListener("click", async () => {
  await reset().catch(() => {});
  clearSummary();
});
poll();
