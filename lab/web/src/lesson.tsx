// A lesson: its text, its runs, and what became of the one that was made.
import { useEffect, useState } from "preact/hooks";
import { Agreement } from "./agreement";
import { filled } from "./fill";
import { type Asked, type Boot, type Lesson, type Role, type Run, type Target, homeOf } from "./lab";
import { Lanes } from "./lanes";
import { warm } from "./model";
import { Prediction, questions, rights, type Guess } from "./prediction";
import { done, noteDone } from "./progress";
import { AnswerRules, RequestCode } from "./request";
import { called, whose } from "./roles";
import { note, to, type Route } from "./route";
import { make, progress } from "./run";
import { SignIn } from "./signin";
import { Defend } from "./tools";

export function LessonScreen({ boot, lesson, route }: { boot: Boot; lesson: Lesson; route: Route }) {
  const all = [...lesson.runs, ...(lesson.break ?? [])];
  const run = all.find((r) => r.id === route.parts[2]) ?? all[0]!;
  const target: Target = run.only ?? (route.options.get("target") === "gate" ? "gate" : "api");
  const at = boot.lessons.indexOf(lesson);
  useEffect(warm, []);
  return (
    <main id="main" class="lesson">
      <header class="lesson-head">
        <p class="crumbs">
          <a href={boot.origins.lab + "/"}>All lessons</a> <span aria-hidden="true">/</span> {lesson.part}
        </p>
        <h1>
          {lesson.letter && <span class="letter" title={`Scenario ${lesson.letter}`}>{lesson.letter}</span>}
          {lesson.title}
        </h1>
        <div class="prose" dangerouslySetInnerHTML={{ __html: lesson.text }} />
      </header>
      <RunList boot={boot} lesson={lesson} current={run} />
      <RunScreen key={`${run.id} ${target}`} boot={boot} lesson={lesson} run={run} target={target} route={route} />
      {lesson.mend && (
        <section class="mend" aria-labelledby="mend-title">
          <h2 id="mend-title">Now mend it</h2>
          <div class="prose" dangerouslySetInnerHTML={{ __html: lesson.mend.text }} />
          <Defend boot={boot} lesson={lesson} onMended={() => noteDone(lesson.name, { mended: true })} />
        </section>
      )}
      <nav class="pager" aria-label="Lessons">
        {at > 0 && <a href={lessonAddress(boot, boot.lessons[at - 1]!)}>← {boot.lessons[at - 1]!.title}</a>}
        {at + 1 < boot.lessons.length && <a class="next" href={lessonAddress(boot, boot.lessons[at + 1]!)}>{boot.lessons[at + 1]!.title} →</a>}
      </nav>
    </main>
  );
}

/** Where a lesson begins: on the site whose page makes the first run. */
export function lessonAddress(boot: Boot, lesson: Lesson): string {
  const first = lesson.runs[0];
  return (first ? homeOf(boot, first) + (homeOf(boot, first) && "/") : "") + to(["lesson", lesson.name]);
}

function runAddress(boot: Boot, lesson: Lesson, run: Run): string {
  const home = homeOf(boot, run);
  return (home === location.origin || !home ? "" : home + "/") + to(["lesson", lesson.name, run.id]);
}

function RunList({ boot, lesson, current }: { boot: Boot; lesson: Lesson; current: Run }) {
  if (lesson.runs.length + (lesson.break?.length ?? 0) < 2) return null;
  const list = (title: string, runs: Run[]) =>
    runs.length > 0 && (
      <div>
        <h2>{title}</h2>
        <ul>
          {runs.map((r) => (
            <li key={r.id}>
              <a href={runAddress(boot, lesson, r)} aria-current={r === current ? "step" : undefined}>
                {r.title} <small>{fromOf(r.from)}</small>
              </a>
            </li>
          ))}
        </ul>
      </div>
    );
  return (
    <nav class="run-list" aria-label="Runs of this lesson">
      {list("Runs", lesson.runs)}
      {list("Try to break it", lesson.break ?? [])}
    </nav>
  );
}

const fromOf = (r: Role) => (r === "lab" ? "no browser" : `from ${called[r]}`);

interface Props {
  boot: Boot;
  lesson: Lesson;
  run: Run;
  target: Target;
  route: Route;
}

function RunScreen({ boot, lesson, run, target, route }: Props) {
  const asked: Asked = { lesson: lesson.name, run: run.id, target };
  const [guess, setGuess] = useState<Guess>(unpack(route.options.get("guess")));
  const [fault, setFault] = useState("");
  const [mine, setMine] = useState(false);
  const p = mine ? progress.value : null;
  const shown = p?.number ? p.run : filled(run, boot, target);
  const elsewhere = run.from !== "lab" && run.from !== boot.role;
  const state = (options: { target?: Target; guess?: Guess }) =>
    note(["lesson", lesson.name, run.id], { target: (options.target ?? target) === "gate" ? "gate" : undefined, guess: pack(options.guess ?? guess) });

  const start = async () => {
    setFault("");
    setMine(true);
    const smooth = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    document.querySelector(".predict")?.scrollIntoView({ behavior: smooth ? "smooth" : "auto", block: "start" }); // the lanes are below
    const made = await make(asked, filled(run, boot, target), boot);
    if (made.phase === "done" && made.observed && questions.every(([q]) => guess[q] !== undefined)) {
      noteDone(lesson.name, { predicted: rights(guess, made.observed), of: questions.length });
    }
  };
  const observed = p?.phase === "failed" ? undefined : p?.observed;
  return (
    <>
      <section class="setup" aria-labelledby="setup-title">
        <div class="setup-head">
          <h2 id="setup-title">{run.title}</h2>
          {!run.only && (
            <div class="target" role="group" aria-label="What the request meets">
              {(["api", "gate"] as const).map((t) => (
                <button key={t} type="button" aria-pressed={t === target} onClick={() => state({ target: t })}>{t === "api" ? "bare API" : "through moat"}</button>
              ))}
            </div>
          )}
        </div>
        <Whose boot={boot} run={run} />
        <div class="request">
          <RequestCode run={shown} script={lesson.script} />
          <AnswerRules rules={shown.answers} />
        </div>
        {!elsewhere && run.cookies?.length ? <SignIn asked={asked} run={run} onFault={setFault} /> : null}
      </section>
      {elsewhere ? (
        <section class="predict">
          <p class="actions">
            <a class="button main" href={runAddress(boot, lesson, run)}>Go to {whose[run.from]}</a>
            <span>This is done by a page there: <code>{boot.origins[run.from]}</code></span>
          </p>
        </section>
      ) : (
        <section class="predict" aria-labelledby="predict-title">
          <h2 id="predict-title">Predict, then run</h2>
          <Prediction guess={guess} observed={observed} onGuess={(g) => { setGuess(g); state({ guess: g }); }} />
          <p class="actions">
            <button type="button" class="main" id="run" disabled={p?.phase === "running"} onClick={start}>
              {p?.phase === "running" ? "Running…" : run.from === "lab" ? "Run it from the lab's server" : observed ? "Run it again" : "Run it"}
            </button>
            {observed && <button type="button" class="quiet" onClick={() => { setMine(false); setGuess({}); state({ guess: {} }); }}>Predict again</button>}
            {!observed && <span>{questions.every(([q]) => guess[q] !== undefined) ? "Your browser will do it for real." : "Answer the four questions first; guessing is fine."}</span>}
          </p>
        </section>
      )}
      <p class="fault" role="alert">{fault || (p?.phase === "failed" ? p.fault : "")}</p>
      {p && p.phase !== "failed" && <Lanes progress={p} />}
      {p?.phase === "done" && observed && <Outcome lesson={lesson} run={run} target={target} guess={guess} observed={observed} />}
      {p?.phase === "done" && <Agreement progress={p} title={`${lesson.title}: ${run.title}`} />}
      {p?.phase === "done" && run.why && (
        <section class="why" aria-labelledby="why-title">
          <h2 id="why-title">Why</h2>
          <div class="prose" dangerouslySetInnerHTML={{ __html: run.why }} />
        </section>
      )}
    </>
  );
}

function Whose({ boot, run }: { boot: Boot; run: Run }) {
  if (run.from === "lab") return <p class="whose lab">No page does this, and no browser: a program anywhere on the network.</p>;
  return (
    <p class={`whose ${run.from}`}>
      {run.from === boot.role ? "You are on " : "This is done on "}
      <b>{whose[run.from]}</b> <code>{boot.origins[run.from]}</code>
      {run.sandboxed && ", in a sandboxed frame, which has no origin"}
    </p>
  );
}

function Outcome({ lesson, run, target, guess, observed }: { lesson: Lesson; run: Run; target: Target; guess: Guess; observed: NonNullable<NonNullable<typeof progress.value>["observed"]> }) {
  const answered = questions.filter(([q]) => guess[q] !== undefined).length;
  const expected = target === "gate" ? run.gated : run.expect;
  const otherwise = expected && questions.filter(([q]) => expected[q] !== observed[q]);
  return (
    <section class="outcome" aria-labelledby="outcome-title" role="status">
      <h2 id="outcome-title">
        {answered > 0 ? `${rights(guess, observed)} of ${answered} right` : "What became of it"}
        {done.value[lesson.name]?.mended && " · mended"}
      </h2>
      <ul class="tally">
        {observed.alice !== 0 && <li class="bad">alice has {observed.alice > 0 ? `${observed.alice} more` : `${-observed.alice} less`} than before.</li>}
        {observed.error && <li>Chromium calls it <code>{observed.error}</code>.</li>}
        {observed.reason && <li>moat refused it: <code>{observed.reason}</code>.</li>}
        {otherwise && otherwise.length > 0 && (
          <li>
            The lesson expects otherwise here ({otherwise.map(([q, title]) => `${title} ${expected[q] ? "yes" : "no"}`).join("; ")}).
            {run.cookies?.length ? " Are you signed in, and does your browser block third-party cookies?" : ""}
          </li>
        )}
      </ul>
    </section>
  );
}

const letters = "larr"; // left, arrived, ran, readable; upper case is yes

function pack(g: Guess): string | undefined {
  const text = questions.map(([q], i) => (g[q] === undefined ? "-" : g[q] ? letters[i]!.toUpperCase() : letters[i]!)).join("");
  return text === "----" ? undefined : text;
}

function unpack(text: string | null): Guess {
  const g: Guess = {};
  questions.forEach(([q], i) => {
    const c = text?.[i];
    if (c && c !== "-") g[q] = c === c.toUpperCase();
  });
  return g;
}

