// The four lanes: page script, browser, network, backend. Wide screens have them side by
// side, narrow ones as one time line whose entries are labelled.
import { entries, part, type Entry, type Lane } from "./timeline";
import { events, type Header } from "./lab";
import type { Progress } from "./run";

const titles: Record<Lane, [name: string, what: string]> = {
  page: ["Page script", "what the site's JavaScript does and sees"],
  browser: ["Browser", "what it decides, by the standard"],
  network: ["Network", "what travels"],
  backend: ["Backend", "what the server's ledger has"],
};

const order: Lane[] = ["page", "browser", "network", "backend"];

export function Lanes({ progress }: { progress: Progress }) {
  const all = entries(progress, events.value);
  return (
    <section class="lanes" aria-labelledby="lanes-title" data-run={progress.number}>
      <h2 id="lanes-title">What happened</h2>
      <div class="lane-heads" aria-hidden="true">
        {order.map((lane) => (
          <div key={lane} class={`lane-head ${lane}`}>
            <strong>{titles[lane][0]}</strong>
            <span>{titles[lane][1]}</span>
          </div>
        ))}
      </div>
      <ol class="lane-rows" aria-live="polite" aria-relevant="additions">
        {all.map((e, i) => (
          <Row key={e.key} entry={e} index={i} />
        ))}
      </ol>
    </section>
  );
}

function Row({ entry: e, index }: { entry: Entry; index: number }) {
  const [telling, rest] = part(e.headers);
  return (
    <li class={`event ${e.lane} ${e.tone ?? ""}`} data-lane={e.lane} style={{ "--i": index }}>
      <div class="event-card">
        <p class="event-label">
          <span class="lane-name">{titles[e.lane][0]}</span>
          {e.label && <span>{e.link ? <a href={e.link} rel="noreferrer" target="_blank">{e.label}</a> : e.label}</span>}
        </p>
        <p class="event-title">{e.title}</p>
        {e.text && <p class="event-text">{e.text}</p>}
        <Fields headers={telling} />
        {rest.length > 0 && (
          <details>
            <summary>{rest.length} more {rest.length > 1 ? "headers" : "header"}</summary>
            <Fields headers={rest} />
          </details>
        )}
        {e.fix && (
          <details>
            <summary>If that was meant to pass</summary>
            <p class="event-text">{e.fix}</p>
          </details>
        )}
      </div>
    </li>
  );
}

export function Fields({ headers }: { headers: Header }) {
  if (headers.length === 0) return null;
  return (
    <ul class="fields">
      {headers.map(([name, value], i) => (
        <li key={i}>
          <b>{name}:</b> {value}
        </li>
      ))}
    </ul>
  );
}
