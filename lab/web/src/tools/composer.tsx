// The composer: any request of any page, any answer, any policy. Its state stands in the
// URL's fragment, so that a link is all there is to share.
import { useEffect, useRef, useState } from "preact/hooks";
import { Agreement } from "../agreement";
import { Copy } from "../copy";
import { filled } from "../fill";
import { events, get, post, type Asked, type Boot, type PageRequest, type Rule } from "../lab";
import { Lanes } from "../lanes";
import { warm } from "../model";
import { codeOf, RequestCode } from "../request";
import { whose } from "../roles";
import { note, route, to } from "../route";
import { make, progress } from "../run";
import { SignIn } from "../signin";
import { apis, bodiesOf, choices, fieldsOf, first, froms, headerOf, linesOf, methods, pathOf, read, runOf, urlOf, type Composed } from "./composed";
import { Editor, FaultList, type Fault } from "./faults";
import { pack, unpack } from "./link";
import { curlOf, harOf, vectorOf } from "./write";
import "./tools.css";

const none: Fault[] = [];

export default function Composer({ boot }: { boot: Boot }) {
  const [c, setC] = useState<Composed>();
  const [wrong, setWrong] = useState("");
  const [packed, setPacked] = useState("");
  const written = useRef("");
  const linked = route.value.options.get("c");

  // What a link holds, when one comes here by it.
  useEffect(() => {
    warm();
    if (linked === written.current && c) return;
    if (!linked) {
      setC(c ?? { ...first, from: boot.role === "lab" ? first.from : (boot.role as Composed["from"]) });
      return;
    }
    let current = true;
    unpack(linked).then(read).then((state) => { if (current) { written.current = linked; setC(state); setWrong(""); } }, (e: Error) => {
      if (!current) return;
      setC(first);
      setWrong(e.message);
    });
    return () => { current = false; };
  }, [linked]);

  useEffect(() => {
    if (!c) return;
    const timer = setTimeout(() => {
      pack(c).then((p) => {
        setPacked(p);
        written.current = p;
        if (route.value.parts[1] === "composer") note(["tool", "composer"], { c: p });
      }, (e: Error) => setWrong(e.message));
    }, 250);
    return () => clearTimeout(timer);
  }, [c]);

  if (!c) return <p class="soft" role="status">Loading…</p>;
  const change = (part: Partial<Composed>) => setC({ ...c, ...part });
  return (
    <>
      <p class="fault" role="alert">{wrong}</p>
      <Form c={c} boot={boot} change={change} />
      <RunIt c={c} boot={boot} packed={packed} change={change} />
    </>
  );
}

interface Part {
  c: Composed;
  boot: Boot;
  change: (part: Partial<Composed>) => void;
}

function Form({ c, boot, change }: Part) {
  const r = c.request;
  const has = fieldsOf[r.api] ?? [];
  const set = (part: Partial<PageRequest>) => {
    const request = { ...r, ...part };
    for (const [name, value] of Object.entries(part)) if (value === undefined || value === "" || value === false) delete (request as Record<string, unknown>)[name];
    change({ request });
  };
  const bodies = bodiesOf[r.api] ?? {};
  return (
    <form class="composer" autocomplete="off" onSubmit={(e) => { e.preventDefault(); document.getElementById("run")?.click(); }}>
      <div class="column">
        <fieldset>
          <legend>Who asks</legend>
          <Select label="Page" value={c.from} options={Object.fromEntries(froms.map((f) => [f, f === "lab" ? "no page: the lab's own client, as curl" : `${whose[f]}, ${boot.origins[f]}`]))} set={(v) => change({ from: v as Composed["from"] })} />
          {c.from !== "lab" && <Check label="in a sandboxed frame: its origin is null" value={c.sandboxed} set={(v) => change({ sandboxed: v })} />}
        </fieldset>
        <fieldset>
          <legend>What is asked</legend>
          <div class="row">
            <Select label="By" value={r.api} options={apis} set={(api) => change({ request: { ...r, api, url: urlOf(api, pathOf(r.url)) } })} />
            {has.includes("method") && <Select label="Method" value={r.method ?? "GET"} options={Object.fromEntries((r.api === "form" ? ["GET", "POST"] : methods).map((m) => [m, m]))} set={(v) => set({ method: v === "GET" ? "" : v })} />}
          </div>
          <Text label="Path at the bank's API" value={pathOf(r.url)} set={(v) => set({ url: urlOf(r.api, v) })} list="paths" />
          <datalist id="paths">{paths.map((p) => <option key={p} value={p} />)}</datalist>
          {has.includes("headers") && <Lines label="Headers that script sets" value={linesOf(r.headers)} set={(v) => set({ headers: v.trim() ? headerOf(v) : undefined })} placeholder="Content-Type: application/json" />}
          {has.includes("body") && (
            <div class="row">
              <Select label="Body" value={r.body?.kind ?? ""} options={{ "": "none", ...bodies }} set={(kind) => set({ body: kind ? { ...r.body, kind, text: r.body?.text ?? (kind === "text" ? '{"amount": 50}' : "amount=50") } : undefined, method: kind && !r.method && r.api !== "beacon" ? "POST" : r.method })} />
              {r.body?.kind === "blob" && <Text label="Its type" value={r.body.type ?? ""} set={(type) => set({ body: { ...r.body!, type } })} />}
            </div>
          )}
          {has.includes("body") && r.body && <Lines label="Its text" value={r.body.text ?? ""} set={(text) => set({ body: { ...r.body!, text } })} />}
          <div class="row">
            {["credentials", "mode", "redirect", "cache", "crossorigin", "referrer_policy"].filter((n) => has.includes(n)).map((n) => (
              <Select key={n} label={n === "referrer_policy" ? "Referrer policy" : n === "crossorigin" ? "crossorigin" : n[0]!.toUpperCase() + n.slice(1)} value={(r as unknown as Record<string, string>)[n] ?? ""} options={{ "": "default", ...Object.fromEntries(choices[n]!.map((v) => [v, v])) }} set={(v) => set({ [n]: v })} />
            ))}
          </div>
          {has.includes("with_credentials") && <Check label="withCredentials" value={!!r.with_credentials} set={(v) => set({ with_credentials: v })} />}
          {has.includes("upload_listener") && <Check label="script listens to the upload" value={!!r.upload_listener} set={(v) => set({ upload_listener: v })} />}
        </fieldset>
      </div>
      <div class="column">
        <Rules rules={c.answers} set={(answers) => change({ answers })} />
        <fieldset>
          <legend>What the browser has</legend>
          <Lines label="Cookies that the API set when alice signed in, one Set-Cookie a line" value={c.cookies.join("\n")} set={(v) => change({ cookies: v.split("\n").filter((l) => l.trim()) })} placeholder="session={session}; Path=/; HttpOnly; SameSite=Lax" />
        </fieldset>
      </div>
    </form>
  );
}

function Rules({ rules, set }: { rules: Rule[]; set: (rules: Rule[]) => void }) {
  const [named, setNamed] = useState<Record<string, Rule[]>>({});
  useEffect(() => { get<Record<string, Rule[] | null>>("answers").then((all) => setNamed(Object.fromEntries(Object.entries(all).map(([n, r]) => [n, r ?? []]))), () => {}); }, []);
  const current = Object.entries(named).find(([, r]) => JSON.stringify(r) === JSON.stringify(rules))?.[0] ?? "";
  const edit = (i: number, part: Partial<Rule>) => set(rules.map((r, n) => (n === i ? { ...r, ...part } : r)));
  return (
    <fieldset>
      <legend>What the API's middleware answers</legend>
      <Select label="A policy to begin with" value={current} options={{ "": "as below", ...Object.fromEntries(Object.keys(named).map((n) => [n, n])) }} set={(n) => { if (named[n]) set(named[n]); }} />
      {rules.map((r, i) => (
        <div key={i} class="rule-edit">
          <div class="row">
            <Select label="To" value={r.on ?? ""} options={{ "": "every request", preflight: "preflights", actual: "what is no preflight" }} set={(v) => edit(i, { on: v || undefined })} />
            <Text label="Status" value={r.status ? String(r.status) : ""} set={(v) => edit(i, { status: Number.parseInt(v, 10) || undefined })} numeric />
          </div>
          <Text label="From the origins (empty: any)" value={(r.origin ?? []).join(" ")} set={(v) => edit(i, { origin: v.trim() ? v.trim().split(/\s+/) : undefined })} />
          <Lines label="Headers" value={linesOf(r.headers)} set={(v) => edit(i, { headers: headerOf(v) })} placeholder="Access-Control-Allow-Origin: {bank}" />
          <button type="button" class="quiet" aria-label={`Remove answer ${i + 1}`} onClick={() => set(rules.filter((_, n) => n !== i))}>Remove</button>
        </div>
      ))}
      <p class="actions">
        <button type="button" onClick={() => set([...rules, { headers: [["Access-Control-Allow-Origin", "{bank}"]] }])}>Add an answer</button>
        <span>All that match count. <code>{"{bank}"}</code>, <code>{"{stranger}"}</code> stand for origins, <code>{"{origin}"}</code> for the request's own.</span>
      </p>
    </fieldset>
  );
}

function RunIt({ c, boot, packed, change }: Part & { packed: string }) {
  const [wrong, setWrong] = useState("");
  const [faults, setFaults] = useState<Fault[]>(none);
  const [at, setAt] = useState<{ line: number }>();
  const [mine, setMine] = useState(false);
  const began = useRef(new Date());
  const composed = runOf(c);
  const asked: Asked = { composed, target: c.target };
  const shown = filled({ ...composed, expect: { left: false, arrived: false, ran: false, readable: false } }, boot, c.target);
  const p = mine ? progress.value : null;
  const elsewhere = c.from !== "lab" && c.from !== boot.role;
  const here = to(["tool", "composer"], { c: packed });
  const start = async () => {
    setWrong("");
    setFaults(none);
    if (c.target === "gate") {
      try {
        const judged = await post<{ ok: boolean; faults?: Fault[] }>("config", { text: c.policy || starter });
        if (!judged.ok) {
          setFaults(judged.faults ?? none);
          setWrong("The moat.yaml has faults, so nothing was asked.");
          return;
        }
      } catch (e) {
        setWrong(String(e instanceof Error ? e.message : e));
        return;
      }
    }
    setMine(true);
    began.current = new Date();
    await make(asked, shown, boot);
  };
  const origin = c.from === "lab" ? "" : c.sandboxed ? "null" : boot.origins[c.from];
  const observed = p?.phase === "done" ? p.observed : undefined;
  return (
    <>
      <section class="setup" aria-labelledby="composed-title">
        <div class="setup-head">
          <h2 id="composed-title">The request</h2>
          <div class="target" role="group" aria-label="What the request meets">
            {(["api", "gate"] as const).map((t) => (
              <button key={t} type="button" aria-pressed={t === c.target} onClick={() => change({ target: t })}>{t === "api" ? "bare API" : "through moat"}</button>
            ))}
          </div>
        </div>
        <div class="composed"><RequestCode run={shown} /></div>
        {c.target === "gate" && (
          <details class="policy" open={!!c.policy}>
            <summary>The moat.yaml that is in force {c.policy ? "" : "(not changed yet)"}</summary>
            <figure class="editor-frame">
              <figcaption><span>moat.yaml</span><span class="keys">Ctrl-Space: what fits here · Esc, then Tab: leave</span></figcaption>
              <Editor text={c.policy || starter} label="moat.yaml for this request" faults={faults} warnings={none} onChange={(policy) => change({ policy })} onRun={start} at={at} />
            </figure>
            <FaultList faults={faults} onGo={(line) => setAt({ line })} />
          </details>
        )}
        {!elsewhere && c.cookies.length && c.from !== "lab" ? <SignIn asked={asked} run={shown} onFault={setWrong} /> : null}
        <p class="actions">
          {elsewhere ? (
            <>
              <a class="button main" id="go" href={`${boot.origins[c.from]}/${here}`}>Go to {whose[c.from]}</a>
              <span>A page there asks: <code>{boot.origins[c.from]}</code>. What you composed goes along.</span>
            </>
          ) : (
            <button type="button" class="main" id="run" disabled={p?.phase === "running"} onClick={start}>
              {p?.phase === "running" ? "Running…" : c.from === "lab" ? "Run it from the lab's server" : "Run it in this browser"}
            </button>
          )}
          <Copy text={location.origin + "/" + here} label="Copy the link" />
        </p>
      </section>
      <p class="fault" role="alert">{wrong || (p?.phase === "failed" ? p.fault : "")}</p>
      {p && p.phase !== "failed" && <Lanes progress={p} />}
      {observed && (
        <section class="outcome" role="status" aria-label="What became of it">
          <ul class="tally">
            <li>It {observed.arrived ? "arrived" : "did not arrive"}; the handler {observed.ran ? "ran" : "did not run"}; script {observed.readable ? "can" : "cannot"} read the answer.</li>
            {observed.alice !== 0 && <li class="bad">alice has {observed.alice > 0 ? `${observed.alice} more` : `${-observed.alice} less`} than before.</li>}
            {observed.error && <li>Chromium calls it <code>{observed.error}</code>.</li>}
            {observed.reason && <li>moat refused it: <code>{observed.reason}</code>.</li>}
          </ul>
        </section>
      )}
      {p?.phase === "done" && <Agreement progress={p} title="Composed" />}
      <section class="takeaway" aria-labelledby="take-title">
        <h2 id="take-title">Take it away</h2>
        <p class="actions">
          <Copy text={curlOf(shown, origin)} label="Copy as curl" />
          {c.from !== "lab" && <Copy text={(shown.requests ?? []).map(codeOf).join("\n")} label={c.request.api === "fetch" ? "Copy as fetch" : "Copy as code of a page"} />}
          {p?.phase === "done" && <Copy text={harOf(p, events.value, origin || "curl", began.current)} label="Copy as HAR" />}
          {p?.phase === "done" && p.case && <Copy text={vectorOf(p, "composed in the lab")} label="Copy as test vector" />}
          {p?.phase !== "done" && <span>After a run also as HAR, and as a case of vectors/browser.</span>}
        </p>
      </section>
    </>
  );
}

const starter = `version: 1
public_origins: ["{gate}"]
upstreams:
  api: {url: "{backend}"}
policies:
  pages:
    origins: ["{bank}"]
routes:
  - {match: /, name: api, upstream: api, auth: public, policy: pages}
`;

// What the API has to offer: lab/backend.go.
const paths = ["/data", "/transfer?amount=50", "/me", "/account/transfer?amount=50", "/notes", "/notes/delete?id=1", "/redirect?to={api}/data", "/cached?max-age=60", "/ws", "/stream", "/ask?prompt=hello"];

let ids = 0;

function useID(): string {
  return useRef(`composer-${++ids}`).current;
}

function Select({ label, value, options, set }: { label: string; value: string; options: Record<string, string>; set: (v: string) => void }) {
  const id = useID();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select id={id} value={value} onChange={(e) => set(e.currentTarget.value)}>
        {!(value in options) && <option value={value}>{value}</option>}
        {Object.entries(options).map(([v, title]) => <option key={v} value={v}>{title}</option>)}
      </select>
    </div>
  );
}

function Text({ label, value, set, list, numeric }: { label: string; value: string; set: (v: string) => void; list?: string; numeric?: boolean }) {
  const id = useID();
  return (
    <div class={`field${numeric ? " narrow" : ""}`}>
      <label for={id}>{label}</label>
      <input id={id} type="text" inputMode={numeric ? "numeric" : undefined} list={list} spellcheck={false} autocapitalize="off" value={value} onInput={(e) => set(e.currentTarget.value)} />
    </div>
  );
}

// Lines are edited as they are written, and read as a whole: a line that is not whole yet
// stays as it is.
function Lines({ label, value, set, placeholder }: { label: string; value: string; set: (v: string) => void; placeholder?: string }) {
  const id = useID();
  const [text, setText] = useState(value);
  const mine = useRef(value);
  useEffect(() => {
    if (value !== mine.current) setText(value);
    mine.current = value;
  }, [value]);
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <textarea
        id={id} rows={Math.min(8, Math.max(2, text.split("\n").length))} spellcheck={false} autocapitalize="off" placeholder={placeholder} value={text}
        onInput={(e) => { setText(e.currentTarget.value); mine.current = linesOf(headerOf(e.currentTarget.value)); set(e.currentTarget.value); }}
        onBlur={() => { if (value !== text) { mine.current = value; setText(value); } }}
      />
    </div>
  );
}

function Check({ label, value, set }: { label: string; value: boolean; set: (v: boolean) => void }) {
  const id = useID();
  return (
    <div class="tick">
      <input id={id} type="checkbox" checked={value} onChange={(e) => set(e.currentTarget.checked)} />
      <label for={id}>{label}</label>
    </div>
  );
}
