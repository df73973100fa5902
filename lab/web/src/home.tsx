// The lab's front door: what it is, who is who, the lessons, the tools.
import type { Boot, Lesson } from "./lab";
import { lessonAddress } from "./lesson";
import { done } from "./progress";
import { to } from "./route";
import { thirdParty } from "./run";
import { tools } from "./tools";
import { World } from "./world";

export function Home({ boot }: { boot: Boot }) {
  const lessons = boot.lessons.filter((l) => l.name !== "quick-reference"); // it is a table
  const first = lessons.find((l) => !done.value[l.name]) ?? lessons[0];
  return (
    <main id="main" class="home">
      <header class="hero">
        <h1>Watch your own browser do it. Predict it. Then stop it.</h1>
        <p class="lead">
          Real servers run {boot.shared ? "here" : "on this machine"}, and your own browser makes real requests to them, across origins and across sites. You say
          first what will become of each; then you see what the page's script saw, and what the server did meanwhile. In the end you
          configure a real gateway that stops what must not happen.
        </p>
        {first && (
          <p class="actions">
            <a class="button main" href={lessonAddress(boot, first)}>{Object.keys(done.value).length ? "Go on" : "Begin"}: {first.title}</a>
          </p>
        )}
        <Probe />
      </header>
      <World boot={boot} />
      <LessonList boot={boot} lessons={lessons} />
      <section class="tools" aria-labelledby="tools-title">
        <h2 id="tools-title">Tools</h2>
        <ul class="cards">
          <li><a href={to(["reference"])}><b>Quick reference</b><span>Twelve ways to ask, five questions about each; every cell is run in your browser.</span></a></li>
          {tools.map((t) => (
            <li key={t.name}><a href={to(["tool", t.name])}><b>{t.title}</b><span>{t.summary}</span></a></li>
          ))}
        </ul>
      </section>
    </main>
  );
}

function Probe() {
  switch (thirdParty.value) {
    case "blocked":
      return (
        <p class="probe">
          <b>Your browser blocks third-party cookies.</b> It protects you from some of what the lessons about cookies show: there, the
          stranger's requests come without alice's cookie, and the model is told so. Allow them for localhost to see what others see.
        </p>
      );
    case "unresolved":
      return (
        <p class="probe">
          <b>Your browser does not find stranger.localhost.</b> Chromium and Firefox take every name below localhost for this machine.
          Others ask the system: add the names of the map to its hosts file, or use one of those two.
        </p>
      );
  }
  return null;
}

function LessonList({ boot, lessons }: { boot: Boot; lessons: Lesson[] }) {
  const parts = [...new Set(lessons.map((l) => l.part))];
  const count = lessons.filter((l) => done.value[l.name]).length;
  return (
    <section class="lessons" aria-labelledby="lessons-title">
      <h2 id="lessons-title">Lessons <small>{count} of {lessons.length} done</small></h2>
      {parts.map((part) => (
        <section key={part} aria-label={part}>
          <h3>{part}</h3>
          <ol class="cards">
            {lessons.filter((l) => l.part === part).map((l) => <Card key={l.name} boot={boot} lesson={l} />)}
          </ol>
        </section>
      ))}
    </section>
  );
}

function Card({ boot, lesson: l }: { boot: Boot; lesson: Lesson }) {
  const d = done.value[l.name];
  return (
    <li>
      <a href={lessonAddress(boot, l)}>
        <b>{l.letter && <span class="letter">{l.letter}</span>}{l.title}</b>
        <span>{l.summary}</span>
        {(d || l.mend) && (
          <em>
            {d?.of ? `predicted ${d.predicted} of ${d.of}` : ""}
            {d?.of && l.mend ? " · " : ""}
            {l.mend ? (d?.mended ? "mended ✓" : "with a gate to mend") : ""}
          </em>
        )}
      </a>
    </li>
  );
}
