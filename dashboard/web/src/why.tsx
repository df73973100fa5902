import { useEffect, useState } from "preact/hooks";
import { get, type Explained } from "./api";
import { Copy } from "./copy";
import { reason, why } from "./route";
import { guardName, moment, routeName } from "./words";

export function Why({ id }: { id: string }) {
  const [found, setFound] = useState<Explained | undefined>();
  const [fault, setFault] = useState("");
  const [typed, setTyped] = useState(id);
  useEffect(() => {
    setFound(undefined);
    setFault("");
    setTyped(id);
    if (id === "") return;
    let over = false;
    get<Explained>("/decisions/" + encodeURIComponent(id)).then((d) => !over && setFound(d), (e: Error) => !over && setFault(e.message));
    return () => {
      over = true;
    };
  }, [id]);
  return (
    <>
      <h1>Why was this one refused?</h1>
      <form class="ask" onSubmit={(e) => { e.preventDefault(); location.hash = why(typed.trim()); }}>
        <label>
          <span>The id that the client was told, or that stands in the log</span>
          <input name="id" value={typed} spellcheck={false} autocomplete="off" onInput={(e) => setTyped(e.currentTarget.value)} />
        </label>
        <button type="submit">Explain</button>
      </form>
      {fault && <p role="alert" class="fault">{fault}</p>}
      {found && <Explanation d={found} />}
      {id === "" && <p class="soft">A row of <a href="#/live">Live</a> leads here, too.</p>}
    </>
  );
}

function outcome(d: Explained): string {
  if (d.mode === "report") return "only reported; enforcing would have refused it";
  return d.status ? `refused with ${d.status}` : "recorded";
}

function Explanation({ d }: { d: Explained }) {
  const again = d.reproduction;
  return (
    <article class="why" aria-labelledby="code">
      <header class={d.mode}>
        <h2 id="code"><a href={reason(d.code)}><code>{d.code}</code></a></h2>
        <p>{guardName(d.step)} · {outcome(d)} · <time dateTime={d.time}>{moment(d.time)}</time></p>
      </header>
      <div class="pair">
        <section aria-label="Cause">
          <h3>Cause</h3>
          <p>{d.cause}</p>
          {d.mode === "report" && <p class="soft">That is what enforcing would have meant. In report mode the request went on.</p>}
        </section>
        <section aria-label="To mend it">
          <h3>To mend it, if the request was meant well</h3>
          <p>{d.fix}</p>
        </section>
      </div>
      <dl class="facts">
        {d.where && <Fact name="Decided by" value={d.where} />}
        {d.where && (d.got || d.step !== "body") && <Fact name="Found there" value={d.got ?? ""} code />}
        <Fact name="Wanted" value={d.want || undefined} />
        <Fact name="Request" value={`${d.method} ${d.host}${d.path}`} code />
        <Fact name="Client" value={d.client} code />
        <Fact name="Caller" value={d.caller} code />
        <Fact name="Route" value={routeName(d.route)} code />
        <Fact name="The client was told" value={d.client_was_told} />
        <Fact name="Id" value={d.id} code />
      </dl>
      {again.trail && again.trail.length > 0 && (
        <section aria-labelledby="trail">
          <h3 id="trail">Its way through the guards, on paper</h3>
          <ol class="trail">
            {again.trail.map((s, i) => (
              <li key={i} class={s.outcome === "deny" ? s.mode : "allow"}>
                <b>{guardName(s.guard)}</b> <span>{s.outcome === "deny" ? (s.mode === "report" ? "would refuse" : "refuses") : s.outcome === "answer" ? "answers" : s.outcome === "amend" ? "changes" : "allows"}</span>
                {s.code !== "ok" && <code> {s.code}</code>}
              </li>
            ))}
          </ol>
        </section>
      )}
      <section aria-labelledby="again" class="again">
        <h3 id="again">Have it again</h3>
        {again.because && <p id="because">{again.because}</p>}
        {again.test && <Snippet id="test" title="Under tests: in moat.yaml, for moat check" text={again.test} label="Copy the test" />}
        {again.curl && <Snippet id="curl" title={again.same ? "As curl" : "The request as curl, whatever it leads to now"} text={again.curl} label="Copy the command" />}
        <p class="soft small">No credential, cookie, ticket, value of the query or body is kept, so none is in it.</p>
      </section>
    </article>
  );
}

function Fact({ name, value, code }: { name: string; value?: string; code?: boolean }) {
  if (value === undefined) return null;
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value === "" ? <em>nothing</em> : code ? <code>{value}</code> : value}</dd>
    </div>
  );
}

function Snippet({ id, title, text, label }: { id: string; title: string; text: string; label: string }) {
  return (
    <figure class="snippet">
      <figcaption>{title} <Copy text={text} label={label} /></figcaption>
      <pre id={id} tabIndex={0}><code>{text}</code></pre>
    </figure>
  );
}
