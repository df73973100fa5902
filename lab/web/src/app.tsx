// What stands around every screen, and which screen it is.
import { useEffect } from "preact/hooks";
import { Home } from "./home";
import type { Boot } from "./lab";
import { LessonScreen } from "./lesson";
import { Money } from "./money";
import { Reference } from "./reference";
import { whose } from "./roles";
import { route } from "./route";
import { tools } from "./tools";

export function App({ boot }: { boot: Boot }) {
  const { parts } = route.value;
  const title = titleOf(boot, parts);
  useEffect(() => {
    document.title = title ? `${title} · moat lab` : "moat lab";
  }, [title]);
  useEffect(() => scrollTo(0, 0), [parts[0], parts[1]]);
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById("main")?.scrollIntoView(); }}>To the content</a>
      <header class="bar">
        <a class="brand" href={boot.origins.lab + "/"}>moat lab</a>
        <p class={`site ${boot.role}`}>
          <span>You are on {whose[boot.role]}</span> <code>{location.host}</code>
        </p>
        <Money />
      </header>
      <Screen boot={boot} />
      <footer>
        <p>{boot.shared ? "Every visitor has a world of his own here" : "Everything here is on this machine"}, and no request goes anywhere else. The API is wrong on purpose.</p>
      </footer>
    </>
  );
}

function titleOf(boot: Boot, parts: string[]): string | undefined {
  switch (parts[0]) {
    case "lesson":
      return boot.lessons.find((l) => l.name === parts[1])?.title;
    case "reference":
      return "Quick reference";
    case "tool":
      return tools.find((t) => t.name === parts[1])?.title;
  }
  return undefined;
}

function Screen({ boot }: { boot: Boot }) {
  const { parts } = route.value;
  const lesson = parts[0] === "lesson" && boot.lessons.find((l) => l.name === parts[1]);
  if (parts[0] === "reference" || parts[1] === "quick-reference") return <Reference boot={boot} />;
  if (lesson) return <LessonScreen key={lesson.name} boot={boot} lesson={lesson} route={route.value} />;
  const tool = parts[0] === "tool" && tools.find((t) => t.name === parts[1]);
  if (tool) {
    return (
      <main id="main" class="tool">
        <h1>{tool.title}</h1>
        <p class="lead">{tool.summary}</p>
        <tool.View boot={boot} />
      </main>
    );
  }
  return <Home boot={boot} />;
}
