// "Audit my config": a pasted configuration, and what a stranger's page could do with it.
import { useState } from "preact/hooks";
import { Copy } from "../copy";
import { post, type Boot, type Header } from "../lab";
import { Fields } from "../lanes";
import { FaultList, type Fault } from "./faults";
import { Reason } from "./reason";
import { samples } from "./samples";
import "./tools.css";

interface Question {
  title: string;
  from: string;
  request: string;
  attack: boolean;
  level: "danger" | "warning" | "open" | "fine";
  outcome: string;
  executed: boolean;
  readable: boolean;
  reason?: string;
  why: string;
  change?: string;
  explanation?: { failure?: { text: string; console?: string; link?: string } };
}

interface Audit {
  kind: string;
  faults?: Fault[];
  warnings?: Fault[];
  notes?: string[];
  page?: string;
  headers?: { title: string; headers: Header | null }[];
  questions?: Question[];
  mend?: { title: string; file: string; code: string; note?: string };
}

const kinds: Record<string, string> = { "moat.yaml": "a moat.yaml", nginx: "nginx", express: "Express", apache: "Apache", headers: "header lines of an answer" };

const levels: [Question["level"], string, string][] = [
  ["danger", "Dangerous", "a page that should not can do or read what is the user's"],
  ["warning", "To be looked at", "it may be meant so; if not, here is the change"],
  ["open", "Nothing here is against it", "other defences have to be"],
  ["fine", "As it should be", ""],
];

export default function AuditTool(_: { boot: Boot }) {
  const [text, setText] = useState("");
  const [audit, setAudit] = useState<Audit>();
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  const run = async (t: string) => {
    setBusy(true);
    setWrong("");
    setAudit(undefined);
    try {
      setAudit(await post<Audit>("audit", { text: t }));
    } catch (e) {
      setWrong(e instanceof Error ? e.message : String(e));
    } finally {
      setBusy(false);
    }
  };
  const go = (line: number) => {
    const area = document.getElementById("audit-text") as HTMLTextAreaElement;
    const from = text.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    const end = text.indexOf("\n", from);
    area.focus();
    area.setSelectionRange(from, end < 0 ? text.length : end);
  };
  return (
    <>
      <form class="stack" onSubmit={(e) => { e.preventDefault(); run(text); }}>
        <label for="audit-text">Your configuration</label>
        <textarea
          id="audit-text" rows={12} spellcheck={false} autocapitalize="off" value={text} maxLength={200_000} onInput={(e) => setText(e.currentTarget.value)}
          placeholder={"add_header Access-Control-Allow-Origin $http_origin always;\nadd_header Access-Control-Allow-Credentials true always;"}
          onKeyDown={(e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) run(text); }}
        />
        <p class="actions">
          <button type="submit" class="main" id="audit" disabled={busy || !text.trim()}>{busy ? "Asking…" : "Audit it"}</button>
          <span>It is read by this lab alone. No upstream, file or variable that it names is looked at.</span>
        </p>
        <p class="samples">
          <span>Or try:</span>
          {samples.map((s) => <button key={s.title} type="button" class="quiet" onClick={() => { setText(s.text); run(s.text); }}>{s.title}</button>)}
        </p>
      </form>
      <p class="fault" role="alert">{wrong}</p>
      {audit && <Result audit={audit} onGo={go} />}
    </>
  );
}

function Result({ audit: a, onGo }: { audit: Audit; onGo: (line: number) => void }) {
  const questions = a.questions ?? [];
  const count = (l: Question["level"]) => questions.filter((q) => q.level === l).length;
  const faults = a.faults ?? [];
  return (
    <div class="audit-result">
      <section aria-labelledby="audit-title">
        <h2 id="audit-title">
          {faults.length > 0
            ? `${faults.length} ${faults.length > 1 ? "faults" : "fault"}: moat would not start with it`
            : count("danger") > 0
              ? `${count("danger")} ${count("danger") > 1 ? "dangerous answers" : "dangerous answer"}`
              : "Nothing dangerous was found"}
        </h2>
        <p class="soft" role="status">
          Read as {kinds[a.kind] ?? a.kind}. {a.page && <>The page that is taken for yours is <code>{a.page}</code>. </>}
          {questions.length > 0 && `${questions.length} questions were put to it.`}
        </p>
        <FaultList faults={faults} onGo={onGo} />
        {(a.warnings ?? []).length > 0 && (
          <div class="warn">
            <FaultList faults={a.warnings ?? []} onGo={onGo} />
          </div>
        )}
        {(a.notes ?? []).length > 0 && <ul class="notes">{a.notes!.map((n) => <li key={n}>{n}</li>)}</ul>}
      </section>
      {a.mend && count("danger") + count("warning") > 0 && (
        <section aria-label="The change">
          <figure class="code">
            <figcaption>Grants this to your page, and to nobody else: {a.mend.title}, {a.mend.file} <Copy text={a.mend.code} /></figcaption>
            <pre tabIndex={0}><code>{a.mend.code}</code></pre>
          </figure>
          {a.mend.note && <p class="soft">{a.mend.note}</p>}
        </section>
      )}
      {levels.map(([level, title, what]) => count(level) > 0 && (
        <section key={level} aria-label={title}>
          <h3 class={`level-head ${level}`}>{title} <small>{what}</small></h3>
          <ul class="answers">
            {questions.filter((q) => q.level === level).map((q, i) => <Row key={i} q={q} />)}
          </ul>
        </section>
      ))}
      {(a.headers ?? []).length > 0 && (
        <section class="columns" aria-label="The headers">
          {a.headers!.map((h) => (
            <figure key={h.title} class="rules">
              <figcaption>{h.title}: what your page is answered</figcaption>
              <div class="rule">{h.headers?.length ? <Fields headers={h.headers} /> : <p>no headers</p>}</div>
            </figure>
          ))}
        </section>
      )}
    </div>
  );
}

function Row({ q }: { q: Question }) {
  const blocked = !q.executed && !q.readable;
  return (
    <li class={`answer ${q.level}`}>
      <p class="answer-title"><b>{q.title}</b></p>
      <p class="answer-what"><code>{q.from}</code> <code>{q.request}</code></p>
      <div class="tags">
        <span class={q.executed === q.attack ? "no" : "yes"}>{q.executed ? "the handler runs" : "the handler does not run"}</span>
        <span class={q.readable === q.attack ? "no" : "yes"}>{q.readable ? "the answer can be read" : blocked ? "nothing can be read" : "the answer cannot be read"}</span>
        {q.reason && <Reason code={q.reason} />}
      </div>
      <p>{q.why}</p>
      {q.change && <p class="change"><b>Change:</b> {q.change}</p>}
      {q.explanation?.failure && !q.attack && <p class="soft">{q.explanation.failure.console ?? q.explanation.failure.text}</p>}
    </li>
  );
}
