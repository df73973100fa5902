// What both pages share: the ledger's figures, the list of requests, and the grid of
// actions, each with a cell for the bare backend and one for moat.

export const at = { ...document.documentElement.dataset };

export const targets = [
  { key: "bare", name: "Bare backend", base: at.backend },
  { key: "moat", name: "Through moat", base: at.gate },
];

export const host = (origin) => origin.replace(/^https?:\/\//, "");

export const byId = (id) => document.getElementById(id);

// el makes an element; text goes in as text, never as markup.
export function el(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "class") e.className = value;
    else e.setAttribute(name, value);
  }
  e.append(...children);
  return e;
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

const signed = (n) => (n < 0 ? "\u2212" : "+") + Math.abs(n);

// ---- the ledger

// A hung server must not stop the page: every request to it has a limit.
const limit = () => AbortSignal.timeout(4000);

async function readLedger(since) {
  const answer = await fetch(`${at.ledger}/ledger?since=${since}`, { signal: limit() });
  if (!answer.ok) throw new Error(`the ledger answers ${answer.status}`);
  return answer.json();
}

// Each page has those that its data-figures names.
const figures = [
  { name: "Alice", value: (r) => r.balances.alice, start: (r) => r.opening.alice },
  { name: "Bob", value: (r) => r.balances.bob, start: (r) => r.opening.bob },
  { name: "Mallory", value: (r) => r.balances.mallory, start: (r) => r.opening.mallory },
  { name: "Notes left", value: (r) => r.notes.length, start: () => 10 },
  { name: "Handler runs", value: runs, start: () => 0 },
].filter((f) => byId("figures").dataset.figures.includes(f.name));

function runs(reading) {
  return Object.values(reading.runs).reduce((sum, n) => sum + n, 0);
}

// show puts the figures on the page. Beside each stands its change since the reset; a
// change since the last reading is marked for as long as it takes to see it, unless the
// ledger is a fresh one.
function show(reading, fresh) {
  const list = byId("figures");
  if (!list.children.length) {
    for (const f of figures) {
      f.number = el("b", {}, "");
      f.change = el("span", { class: "change" }, "");
      list.append(el("div", {}, el("dt", {}, f.name), el("dd", {}, f.number, " ", f.change)));
    }
  }
  for (const f of figures) {
    const value = f.value(reading);
    const change = value - f.start(reading);
    f.number.textContent = value;
    f.change.textContent = change ? signed(change) : "";
    if (!fresh && f.last !== value) {
      const box = list.children[figures.indexOf(f)];
      box.classList.add("moved");
      clearTimeout(f.timer);
      f.timer = setTimeout(() => box.classList.remove("moved"), 1600);
    }
    f.last = value;
  }
}

const rowsMax = 12;

// history is what the page has been told of, oldest first: each reading of the ledger
// brings only what is new since the last.
const history = [];
const historyMax = 200;

function list(reading, fresh) {
  const body = byId("requests").tBodies[0];
  if (fresh) {
    body.replaceChildren();
    history.length = 0;
  }
  history.push(...reading.requests);
  history.splice(0, history.length - historyMax);
  for (const r of reading.requests) {
    body.prepend(
      el("tr", { class: r.ran ? "" : "preflight" },
        el("td", { class: "num" }, String(r.seq)),
        el("td", {}, r.via),
        el("td", {}, el("code", {}, `${r.method} ${r.path}`)),
        el("td", {}, r.origin ? el("code", {}, r.origin) : "none"),
        el("td", {}, r.site || "none"),
        el("td", {}, r.cookie ? "yes" : "no"),
        el("td", {}, r.did),
      ),
    );
  }
  while (body.rows.length > rowsMax) body.lastElementChild.remove();
  byId("requests").hidden = body.rows.length === 0;
  byId("requests-none").hidden = body.rows.length !== 0;
}

let latest = null;
let reading = Promise.resolve();

// refresh reads the ledger and shows it. Calls take turns, so that no older reading is
// shown after a newer one, and each returns one that began after the call.
export function refresh() {
  reading = reading.catch(() => {}).then(async () => {
    let r;
    try {
      r = await readLedger(latest ? latest.seq : 0);
    } catch (error) {
      byId("link").textContent = "The ledger does not answer: has the demo stopped?";
      throw error;
    }
    byId("link").textContent = "";
    let fresh = !latest || latest.resets !== r.resets;
    if (latest && r.seq < latest.seq) {
      // Numbers that went back are those of a demo that was started anew.
      fresh = true;
      r = await readLedger(0);
    }
    latest = r;
    show(r, fresh);
    list(r, fresh);
    return r;
  });
  return reading;
}

export function poll() {
  const again = () => {
    if (document.visibilityState === "visible") refresh().catch(() => {});
  };
  document.addEventListener("visibilitychange", again);
  setInterval(again, 1000);
  again();
}

export async function reset() {
  await fetch(`${at.ledger}/reset`, { method: "POST", signal: limit() });
  await refresh();
}

// ---- actions

// Actions take turns, so that what the ledger shows between before and after is the
// work of one of them.
let turn = Promise.resolve();

function inTurn(work) {
  const mine = turn.then(work);
  turn = mine.catch(() => {});
  return mine;
}

// answers reports whether anything answers at a target. Where no request arrived, a gate
// that is not running would otherwise look like one that refuses everything. It asks
// anew every ten seconds, so as not to fill the gate's record with its own questions.
async function answers(target) {
  if (Date.now() - (target.answered ?? 0) < 10_000) return true;
  try {
    await fetch(target.base + "/", { mode: "no-cors", cache: "no-store", signal: limit() });
    target.answered = Date.now();
    return true;
  } catch {
    return false;
  }
}

// perform runs an action against a target, and returns what the script saw and which
// requests to the action's path the backend took meanwhile.
export function perform(action, target) {
  return inTurn(async () => {
    const cell = action.cells[target.key];
    cell.button.disabled = true;
    try {
      // What the script sees, it may see piecemeal: a stream reports as it goes.
      const tell = (text) => {
        cell.saw.textContent = text;
        byId("said").textContent = text;
        // The console is more talkative than what it lets a script know.
        const console = text.startsWith("TypeError") ? "; console: blocked by CORS policy" : "";
        byId("said-of").textContent = `${action.name}, ${target.name.toLowerCase()}${console}`;
      };
      cell.did.className = "";
      cell.did.textContent = "\u2026";
      tell("\u2026");
      const before = await refresh();
      tell(await action.run(target.base, before, tell));
      const after = await refresh();
      const taken = history.filter((r) => r.seq > before.seq && r.path === action.path);
      if (taken.length === 0 && !(await answers(target))) {
        cell.did.textContent = `nothing: no server answers at ${host(target.base)}`;
        byId("said-of").textContent = `${action.name}: no server answers at ${host(target.base)}`;
        return { tried: false };
      }
      const ran = taken.filter((r) => r.ran);
      const lost = before.balances.alice - after.balances.alice;
      cell.did.textContent = describe(taken, ran);
      cell.did.className = ran.length ? "ran" : "idle";
      return { tried: true, ran: ran.length > 0, preflight: taken.length > ran.length, lost, did: ran.map((r) => r.did).join("; ") };
    } finally {
      cell.button.disabled = false;
    }
  });
}

function describe(taken, ran) {
  if (taken.length === 0) return "nothing arrived; the handler did not run";
  const preflight = taken.find((r) => !r.ran);
  if (ran.length === 0) return `${preflight.did}; the handler did not run`;
  const times = ran.length === 1 ? "once" : `${ran.length} times`;
  const asked = preflight ? `${preflight.did}; ` : "";
  return `${asked}the handler ran ${times}: ${ran.map((r) => r.did).join("; ")}`;
}

// build makes the grid. Every action gets its cells, with the elements that perform fills.
export function build(actions, verb, saw, did) {
  for (const action of actions) {
    action.cells = {};
    const cells = targets.map((target) => {
      const cell = {
        button: el("button", { type: "button", "aria-label": `${verb}: ${action.name}, ${target.name.toLowerCase()}` }, verb),
        saw: el("dd", {}, "\u2013"),
        did: el("dd", {}, "\u2013"),
      };
      action.cells[target.key] = cell;
      cell.button.addEventListener("click", () => action.start(target));
      return el("div", { class: `cell ${target.key}` },
        el("p", { class: "target" }, el("span", {}, el("strong", {}, target.name), " ", el("code", {}, host(target.base))), cell.button),
        el("dl", {}, el("div", {}, el("dt", {}, saw), cell.saw), el("div", {}, el("dt", {}, did), cell.did)),
      );
    });
    byId("actions").append(
      el("article", { id: action.id },
        el("div", { class: "what" }, el("h3", {}, action.name), el("p", { class: "request" }, el("code", {}, action.request)), el("p", { class: "small" }, action.why)),
        ...cells,
      ),
    );
  }
}
