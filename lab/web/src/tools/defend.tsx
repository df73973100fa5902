// "Now mend it": the reader's moat.yaml, put in force in a real gate, and a battery of
// attacks and of legitimate requests against it.
import { useEffect, useRef, useState } from "preact/hooks";
import { homeOf, post, type Boot, type Lesson } from "../lab";
import { to } from "../route";
import { Editor, FaultList, type Fault } from "./faults";
import { Reason } from "./reason";
import "./tools.css";

interface Check {
  id: string;
  title: string;
  attack: boolean;
  passed: boolean;
  ran: boolean;
  readable: boolean;
  reason?: string;
  why?: string;
}

interface Judged {
  ok: boolean;
  faults?: Fault[];
  warnings?: Fault[];
  checks?: Check[];
  stopped?: number;
  attacks?: number;
  working?: number;
  legitimate?: number;
}

interface Props {
  boot: Boot;
  lesson: Lesson;
  onMended: () => void;
}

const none: Fault[] = [];

export default function Defend({ boot, lesson, onMended }: Props) {
  const mend = lesson.mend!;
  const draft = `draft ${lesson.name}`;
  const [text, setText] = useState(() => read(draft) ?? mend.start);
  const [judged, setJudged] = useState<Judged>();
  const [busy, setBusy] = useState(false);
  const [tried, setTried] = useState(false);
  const [wrong, setWrong] = useState("");
  const [at, setAt] = useState<{ line: number }>();
  const [solution, setSolution] = useState(false);
  const judgedText = useRef("");
  const [live, setLive] = useState<Judged>();

  // While one writes, the file is only judged.
  useEffect(() => {
    if (text === judgedText.current) return;
    let outdated = false;
    const timer = setTimeout(() => {
      post<Judged>("check", { text }).then((j) => { if (!outdated) setLive(j); }, () => {});
    }, 600);
    return () => { outdated = true; clearTimeout(timer); };
  }, [text]);

  const change = (t: string) => {
    setText(t);
    write(draft, t === mend.start ? undefined : t);
  };
  const run = async () => {
    setBusy(true);
    setWrong("");
    try {
      judgedText.current = text;
      const j = await post<Judged>("defend", { lesson: lesson.name, text });
      setJudged(j);
      setLive(j);
      setTried(true);
      if (j.ok && j.checks?.length && j.checks.every((c) => c.passed)) onMended();
    } catch (e) {
      setWrong(e instanceof Error ? e.message : String(e));
    } finally {
      setBusy(false);
    }
  };
  const faults = live?.faults ?? none;
  const warnings = live?.warnings ?? none;
  const stale = judged && text !== judgedText.current;
  return (
    <div class="defend">
      <figure class="editor-frame">
        <figcaption>
          <span>moat.yaml <small>of the gate at {boot.origins.gate}</small></span>
          <span class="keys">Ctrl-Space: what fits here · Ctrl-Enter: run · Esc, then Tab: leave</span>
        </figcaption>
        <Editor text={text} label="moat.yaml of this lesson's gate" faults={faults} warnings={warnings} onChange={change} onRun={run} at={at} />
      </figure>
      <FaultList faults={faults} onGo={(line) => setAt({ line })} />
      <FaultList faults={warnings.map((w) => ({ ...w, reason: `Warning: ${w.reason}` }))} onGo={(line) => setAt({ line })} />
      <p class="actions">
        <button type="button" class="main" id="defend" disabled={busy} onClick={run}>{busy ? "Running…" : "Run the battery"}</button>
        <button type="button" disabled={text === mend.start} onClick={() => { change(mend.start); setJudged(undefined); }}>Back to the start</button>
        {tried && !solution && <button type="button" onClick={() => setSolution(true)}>Show a solution</button>}
        <span>The lab puts your file in force in a real gate, and makes every attack and every legitimate request again.</span>
      </p>
      <p class="fault" role="alert">{wrong}</p>
      {judged?.ok && <Battery boot={boot} lesson={lesson} judged={judged} stale={!!stale} />}
      {judged && !judged.ok && <p role="status" class="fault">The file has faults, so the gate keeps the one before. Mend them, and run again.</p>}
      {solution && (
        <section class="solution" aria-label="A solution">
          <figure class="code">
            <figcaption>
              One solution of several
              <button type="button" class="quiet" onClick={() => change(mend.solution)}>Put it into the editor</button>
            </figcaption>
            <pre tabIndex={0}><code>{mend.solution}</code></pre>
          </figure>
        </section>
      )}
    </div>
  );
}

function Battery({ boot, lesson, judged: j, stale }: { boot: Boot; lesson: Lesson; judged: Judged; stale: boolean }) {
  const all = j.checks ?? [];
  const done = all.every((c) => c.passed);
  return (
    <section class={`battery${stale ? " stale" : ""}`} aria-label="What the battery found">
      <p class="score" role="status">
        <b class={j.stopped === j.attacks ? "good" : "bad"}>{j.stopped} of {j.attacks}</b> attacks stopped{" · "}
        <b class={j.working === j.legitimate ? "good" : "bad"}>{j.working} of {j.legitimate}</b> legitimate requests work
        {done && " — mended."}
        {stale && <small> of the text as it was when the battery ran</small>}
      </p>
      {[["Attacks", all.filter((c) => c.attack)] as const, ["Must go on working", all.filter((c) => !c.attack)] as const].map(([title, checks]) => checks.length > 0 && (
        <div key={title}>
          <h3>{title}</h3>
          <ul class="checks">
            {checks.map((c) => <CheckRow key={c.id} boot={boot} lesson={lesson} check={c} />)}
          </ul>
        </div>
      ))}
    </section>
  );
}

function CheckRow({ boot, lesson, check: c }: { boot: Boot; lesson: Lesson; check: Check }) {
  const run = [...lesson.runs, ...(lesson.break ?? [])].find((r) => r.id === c.id);
  const home = run ? homeOf(boot, run) : "";
  return (
    <li class={c.passed ? "passed" : "failed"}>
      <p>
        <b class="mark">{c.passed ? "✓" : "✗"}<span class="unseen">{c.passed ? " passed: " : " failed: "}</span></b>
        {c.title}
      </p>
      <div class="detail">
        <span>{c.passed || !c.why ? happened(c) : c.why}</span>
        {c.reason && <Reason code={c.reason} />}
        {run && run.only !== "api" && (
          <a href={(home && home !== location.origin ? home + "/" : "") + to(["lesson", lesson.name, run.id], { target: "gate" })}>
            {run.from === "lab" ? "Run it here, through moat" : "Run it in your own browser, through moat"}
          </a>
        )}
      </div>
    </li>
  );
}

function happened(c: Check): string {
  if (!c.ran) return "It did not reach the handler.";
  if (c.attack) return "It reached the handler.";
  return c.readable ? "It ran, and the page could read the answer." : c.passed ? "It ran." : "It ran, but the page could not read the answer.";
}

// What is being written outlives a reload, where the browser keeps such things.
function read(key: string): string | undefined {
  try {
    return localStorage.getItem(key) ?? undefined;
  } catch {
    return undefined;
  }
}

function write(key: string, text: string | undefined): void {
  try {
    if (text === undefined) localStorage.removeItem(key);
    else localStorage.setItem(key, text);
  } catch {
    // then it is kept as long as the page is
  }
}
