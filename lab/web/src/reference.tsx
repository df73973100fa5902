// The quick reference: every row is a way to ask, and every cell is found out by asking, in
// the reader's own browser.
import { useState } from "preact/hooks";
import { codeOf, curl } from "./request";
import { filled } from "./fill";
import type { Asked, Boot, LedgerEvent, Lesson, PageRequest, Rule, Run, Target } from "./lab";
import { events } from "./lab";
import { to } from "./route";
import { make, noteSignIn, openTab, signedInAgo, signInAddress, type Progress } from "./run";

interface Row {
  id: string;
  title: string;
  from: "stranger" | "lab";
  request: PageRequest;
}

const transfer = "{target}/transfer";
const form = { kind: "urlencoded", text: "amount=10" };
const json = { kind: "text", text: '{"amount":10}' };

const rows: Row[] = [
  { id: "get", title: "GET", from: "stranger", request: { api: "fetch", url: "{target}/data", credentials: "include" } },
  { id: "get-auth", title: "GET with Authorization", from: "stranger", request: { api: "fetch", url: "{target}/data", credentials: "include", headers: [["Authorization", "Bearer some"]] } },
  { id: "post-json", title: "POST of JSON", from: "stranger", request: { api: "fetch", method: "POST", url: transfer, credentials: "include", headers: [["Content-Type", "application/json"]], body: json } },
  { id: "post-form", title: "POST of form data", from: "stranger", request: { api: "fetch", method: "POST", url: transfer, credentials: "include", body: form } },
  { id: "post-text", title: "POST of JSON as text/plain", from: "stranger", request: { api: "fetch", method: "POST", url: transfer, credentials: "include", body: json } },
  { id: "no-cors", title: "POST with mode no-cors", from: "stranger", request: { api: "fetch", method: "POST", mode: "no-cors", url: transfer, credentials: "include", body: form } },
  { id: "img", title: "<img src>", from: "stranger", request: { api: "img", url: "{target}/notes/delete?id=3&as=image" } },
  { id: "form", title: "a form, submitted", from: "stranger", request: { api: "form", method: "POST", url: transfer, body: form } },
  { id: "beacon", title: "sendBeacon", from: "stranger", request: { api: "beacon", url: transfer, body: form } },
  { id: "eventsource", title: "EventSource", from: "stranger", request: { api: "eventsource", url: "{target}/stream", with_credentials: true } },
  { id: "websocket", title: "WebSocket", from: "stranger", request: { api: "websocket", url: "{target:ws}/ws" } },
  { id: "curl", title: "curl", from: "lab", request: { api: "fetch", method: "POST", url: transfer, headers: [["Content-Type", "application/x-www-form-urlencoded"]], body: form } },
];

/** One cookie of each kind; session is what the API knows alice by. */
const cookies = [
  "session={session}; Path=/; HttpOnly; SameSite=None; Secure", "unset=1; Path=/", "lax=1; Path=/; SameSite=Lax", "strict=1; Path=/; SameSite=Strict",
];

const policy: Rule[] = [
  { headers: [["Vary", "Origin"]] },
  { origin: ["{bank}"], headers: [["Access-Control-Allow-Origin", "{bank}"], ["Access-Control-Allow-Credentials", "true"]] },
];

/** What was found out about a row at a target. */
interface Found {
  preflight: boolean;
  ran: boolean;
  hidden: boolean;
  cookies: string;
  fault?: string;
}

const columns: [title: string, target: Target, cell: (f: Found) => [text: string, tone: string]][] = [
  ["Asked first? (preflight)", "api", (f) => [f.preflight ? "yes" : "no", ""]],
  ["Did the API do it?", "api", (f) => [f.ran ? "yes" : "no", f.ran ? "bad" : "good"]],
  ["Answer hidden from script?", "api", (f) => [f.hidden ? "yes" : "no", f.hidden ? "" : "bad"]],
  ["Cookies that went along", "api", (f) => [f.cookies, f.cookies.includes("session") ? "bad" : ""]],
  ["Through moat: did the API do it?", "gate", (f) => [f.ran ? "yes" : "no", f.ran ? "bad" : "good"]],
];

const asked = (row: Row, target: Target): Asked => ({
  target,
  composed: { id: row.id, title: row.title, from: row.from, requests: [row.request], answers: policy, cookies: row.from === "lab" ? [] : cookies },
});

// One visit signs in for all rows.
const signIn: Asked = { ...asked(rows[0]!, "api"), lesson: "reference", run: "all" };

function found(p: Progress, all: LedgerEvent[], row: Row): Found {
  const arrived = all.filter((e) => e.kind === "arrived");
  const sent = arrived.filter((e) => !e.preflight).flatMap((e) => e.headers ?? []).find(([name]) => name === "Cookie")?.[1] ?? "";
  return {
    preflight: arrived.some((e) => e.preflight),
    ran: !!p.observed?.ran,
    hidden: !p.observed?.readable,
    cookies: row.from === "lab" ? "none: it has none" : sent.split(/;\s*/).map((c) => c.split("=")[0]).filter((n) => ["session", "unset", "lax", "strict"].includes(n!)).map((n) => (n === "session" ? "None (session)" : n === "unset" ? "without SameSite" : n === "lax" ? "Lax" : "Strict")).join(", ") || "none",
    fault: p.fault,
  };
}

export function Reference({ boot }: { boot: Boot }) {
  const [known, setKnown] = useState<Record<string, Found>>({});
  const [busy, setBusy] = useState("");
  const lesson = boot.lessons.find((l) => l.name === "quick-reference");
  const here = boot.role === "stranger";
  const ago = signedInAgo(signIn);

  const run = async (row: Row, target: Target, tab?: Window | null) => {
    setBusy(`${row.id} ${target}`);
    const a = asked(row, target);
    const p = await make(a, filled(a.composed as Run, boot, target), boot, tab);
    setKnown((k) => ({ ...k, [`${row.id} ${target}`]: found(p, events.value, row) }));
    setBusy("");
  };
  const runAll = async () => {
    const tab = openTab();
    for (const row of rows) for (const target of ["api", "gate"] as const) await run(row, target, tab);
    tab?.close();
  };
  const goSignIn = async () => {
    const address = await signInAddress(signIn);
    if (!address) return;
    noteSignIn(signIn);
    location.assign(address);
  };
  return (
    <main id="main" class="reference">
      <header class="lesson-head">
        <p class="crumbs"><a href={boot.origins.lab + "/"}>All lessons</a></p>
        <h1>Quick reference</h1>
        <p class="lead">
          What can a stranger's page do to an API whose CORS policy lists the bank's page alone? Nothing in this table is written down:
          press a cell, and your browser finds it out.
        </p>
        {here ? (
          <p class="actions">
            <button type="button" class={ago === undefined ? "main" : ""} onClick={goSignIn}>{ago === undefined ? "1. Sign alice in" : `Sign in again (${ago} s ago)`}</button>
            <button type="button" class={ago === undefined ? "" : "main"} id="run-all" disabled={!!busy} onClick={runAll}>{ago === undefined ? "2. Run all" : "Run all"}</button>
            <span role="status">{busy ? `running: ${rows.find((r) => busy.startsWith(r.id + " "))?.title}` : "For the column of cookies, alice signs in at the API first."}</span>
          </p>
        ) : (
          <p class="actions">
            <a class="button main" href={boot.origins.stranger + "/" + to(["reference"])}>Go to the stranger's site</a>
            <span>These requests are made by a page there.</span>
          </p>
        )}
      </header>
      <div class="wide" role="region" aria-label="What a stranger's page can do" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">The stranger's page asks by</th>
              {columns.map(([title]) => <th key={title} scope="col">{title}</th>)}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.id}>
                <th scope="row" title={row.from === "lab" ? curl(row.request) : codeOf(row.request)}>{row.title}</th>
                {columns.map(([title, target, cell]) => {
                  const key = `${row.id} ${target}`;
                  const f = known[key];
                  const [text, tone] = f ? cell(f) : ["run", "unknown"];
                  return (
                    <td key={title}>
                      <button type="button" class={`cell ${f?.fault ? "" : tone}`} disabled={!!busy || (!here && row.from !== "lab")} aria-label={`${row.title}: ${title} ${f ? text : "not run yet"}`} onClick={() => run(row, target)}>
                        {busy === key ? "…" : (f?.fault ?? text)}
                      </button>
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {lesson && <Policies boot={boot} lesson={lesson} />}
    </main>
  );
}

// Policies is the article's table: the runs of a lesson whose ids are ROW.COLUMN.
function Policies({ boot, lesson }: { boot: Boot; lesson: Lesson }) {
  const [known, setKnown] = useState<Record<string, string>>({});
  const [busy, setBusy] = useState("");
  const part = (r: Run) => r.title.split(" · ");
  const rowNames = [...new Set(lesson.runs.map((r) => part(r)[0]!))];
  const columnNames = [...new Set(lesson.runs.map((r) => part(r)[1] ?? ""))];
  const possible = (r: Run) => r.from === "lab" || r.from === boot.role;
  const run = async (r: Run, tab?: Window | null) => {
    setBusy(r.id);
    const p = await make({ lesson: lesson.name, run: r.id, target: "api" }, filled(r, boot, "api"), boot, tab);
    const o = p.observed;
    setKnown((k) => ({ ...k, [r.id]: o ? (o.readable ? "read" : o.ran ? "done, hidden" : "stopped") : (p.fault ?? "?") }));
    setBusy("");
  };
  const runAll = async () => {
    const tab = openTab();
    for (const r of lesson.runs.filter(possible)) await run(r, tab);
    tab?.close();
  };
  return (
    <section aria-labelledby="policies-title" class="policies">
      <h2 id="policies-title">{lesson.title}</h2>
      <p class="prose">{lesson.summary}</p>
      <p class="actions">
        <button type="button" disabled={!!busy || !lesson.runs.some(possible)} onClick={runAll}>Run all that this site's page makes</button>
        <span>
          A cell of another site's page leads there. <b class="read">read</b>: script has the answer. <b class="hidden-answer">done, hidden</b>: the API did it, script
          sees nothing. <b class="stopped">stopped</b>: the API did nothing.
        </span>
      </p>
      <div class="wide" role="region" aria-label={lesson.title} tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">Request</th>
              {columnNames.map((c) => <th key={c} scope="col">{c}</th>)}
            </tr>
          </thead>
          <tbody>
            {rowNames.map((name) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                {columnNames.map((c) => {
                  const r = lesson.runs.find((one) => part(one)[0] === name && (part(one)[1] ?? "") === c);
                  if (!r) return <td key={c}>–</td>;
                  const text = known[r.id];
                  return (
                    <td key={c}>
                      {possible(r) ? (
                        <button type="button" class={`cell ${text === "read" ? "read" : text === "stopped" ? "good" : text ? "bad" : "unknown"}`} disabled={!!busy} aria-label={`${name}, ${c}: ${text ?? "not run yet"}`} onClick={() => run(r)}>
                          {busy === r.id ? "…" : (text ?? "run")}
                        </button>
                      ) : (
                        <a class="cell" href={`${boot.origins[r.from]}/${to(["reference"])}`} aria-label={`${name}, ${c}: there, at the site that makes it`}>there</a>
                      )}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
