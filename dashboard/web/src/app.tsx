import { useEffect } from "preact/hooks";
import { get, type Budgets, type Reason } from "./api";
import { KillSwitch } from "./budgets";
import { Live } from "./live";
import { Overview } from "./overview";
import { usePolled } from "./poll";
import { Reasons } from "./reasons";
import { usePlace } from "./route";
import { Why } from "./why";

const views = [
  { name: "", title: "Overview" },
  { name: "live", title: "Live" },
  { name: "why", title: "Why" },
  { name: "reasons", title: "Reasons" },
];

// A gate without budgets has nothing to stop.
async function budgets(): Promise<Budgets | undefined> {
  const all = await get<Budgets>("/budgets");
  return all.budgets.length > 0 || all.stopped ? all : undefined;
}

export function App() {
  const place = usePlace();
  const [spent, look] = usePolled(budgets, 5000, []);
  const [reasons] = usePolled(() => get<Reason[]>("/reasons"), 3_600_000, []);
  const title = views.find((v) => v.name === place.view)?.title ?? "Overview";
  useEffect(() => {
    document.title = `${title} · moat`;
  }, [title]);
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById("main")?.focus(); }}>To the content</a>
      <header class="bar">
        <a class="brand" href="#/">moat</a>
        <nav aria-label="Views">
          {views.map((v) => (
            <a key={v.name} href={"#/" + v.name} aria-current={v.title === title ? "page" : undefined}>{v.title}</a>
          ))}
        </nav>
        {spent.value && <KillSwitch budgets={spent.value} changed={look} />}
      </header>
      <main id="main" tabIndex={-1}>
        {place.view === "live" ? <Live reasons={reasons.value} />
          : place.view === "why" ? <Why id={place.rest} />
          : place.view === "reasons" ? <Reasons code={place.rest} reasons={reasons.value} error={reasons.error} />
          : <Overview budgets={spent.value} />}
      </main>
      <footer>
        <p>This page asks the gate at <code>{location.host}</code> and nobody else. What it shows is kept in the gate's memory and ends with its process.</p>
      </footer>
    </>
  );
}
