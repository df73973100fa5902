import { useRef, useState } from "preact/hooks";
import { post, type Amount, type Budgets } from "./api";
import { bytes, count, money, moment, share } from "./words";

// KillSwitch stops everything that costs money, after a second look, and lets it go on.
export function KillSwitch({ budgets, changed }: { budgets: Budgets; changed: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [fault, setFault] = useState("");
  const press = async (path: string) => {
    try {
      await post(path);
      setFault("");
      dialog.current?.close();
      changed();
    } catch (e) {
      setFault((e as Error).message);
    }
  };
  return (
    <div class="kill">
      {budgets.stopped ? (
        <>
          <strong role="status">Spending is stopped{budgets.stopped_since && ` since ${moment(budgets.stopped_since)}`}</strong>
          <button type="button" id="resume" onClick={() => press("/budgets/resume")}>Resume</button>
        </>
      ) : (
        <button type="button" id="stop" class="danger" onClick={() => dialog.current?.showModal()}>Stop spending</button>
      )}
      {fault && !dialog.current?.open && <span role="alert" class="bad">{fault}</span>}
      <dialog ref={dialog} aria-labelledby="stop-title">
        <h2 id="stop-title">Stop everything that spends?</h2>
        <p>Each route with a budget answers 503 from now on, in every process that shares the budgets' store, until somebody resumes. Calls under way come to their end.</p>
        {fault && <p role="alert" class="fault">{fault}</p>}
        <p class="actions">
          <button type="button" id="stop-now" class="danger" onClick={() => press("/budgets/stop")}>Stop now</button>
          <button type="button" onClick={() => dialog.current?.close()}>Leave it running</button>
        </p>
      </dialog>
    </div>
  );
}

const kinds = [
  ["spend", "spend", money],
  ["tokens", "tokens", count],
  ["requests", "requests", count],
  ["bytes", "", bytes],
] as const;

export function BudgetPanel({ budgets }: { budgets: Budgets }) {
  const file = budgets.store === "ledger"; // whose figures are known although it cannot be written
  return (
    <section aria-labelledby="budgets" class="panel">
      <h2 id="budgets">Budgets</h2>
      {budgets.error && (
        <p role="alert" class="fault">
          {file ? "The file cannot be written, so nobody spends beyond what it says already: " : "The store does not answer, so nobody spends, and what has been spent is not known: "}
          {budgets.error}
        </p>
      )}
      <div class="budgets">
        {(file || !budgets.error) && budgets.budgets.map((b) => (
          <article key={b.name}>
            <h3><code>{b.name}</code> <small>per {b.per}, {b.by === "site" ? "all together" : `each ${b.by}`}{b.mode === "report" && "; reported only"}; begins anew {moment(b.resets, false)}</small></h3>
            <ul class="gauges">
              {kinds.filter(([kind]) => b.cap[kind] || b.used[kind]).map(([kind, name, text]) => (
                <Gauge key={kind} name={name} text={text} used={b.used[kind] ?? 0} cap={b.cap[kind] ?? 0} by={b.by} />
              ))}
            </ul>
            {b.top.length > 0 && (
              <details open>
                <summary>Who used most{b.spenders > b.top.length && ` of ${count(b.spenders)}`}</summary>
                <ol class="spenders">
                  {b.top.slice(0, shown).map((t) => (
                    <li key={t.who}><code>{t.who}</code> <span>{described(t.used)}</span><Fill share={fullest(t.used, b.cap)} /></li>
                  ))}
                </ol>
              </details>
            )}
          </article>
        ))}
      </div>
    </section>
  );
}

const shown = 8; // GET /budgets has more

// Gauge shows what all have used together. The cap of a budget by visitor is that of each.
function Gauge({ name, text, used, cap, by }: { name: string; text: (n: number) => string; used: number; cap: number; by: string }) {
  if (by !== "site") {
    return (
      <li>
        <span><b>{text(used)}</b> {name} <small>by all together{cap > 0 && `; each ${by} may use ${text(cap)}`}</small></span>
      </li>
    );
  }
  return (
    <li>
      <span><b>{text(used)}</b> {cap > 0 && `of ${text(cap)} `}{name}{cap > 0 && `, ${share(used, cap)}`}</span>
      {cap > 0 && <Fill share={used / cap} />}
    </li>
  );
}

function Fill({ share }: { share: number }) {
  const part = Math.max(0, Math.min(1, share));
  return (
    <svg class="fill" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
      <rect class="sunk" width="100" height="6" />
      <rect class={part >= 1 ? "tone-10" : part >= 0.8 ? "tone-4" : "tone-9"} width={100 * part} height="6" />
    </svg>
  );
}

const described = (a: Amount) =>
  kinds.flatMap(([kind, name, text]) => (a[kind] ? [`${text(a[kind]!)} ${name}`.trim()] : [])).join(", ") || "nothing";

const fullest = (used: Amount, cap: Amount) => Math.max(0, ...kinds.map(([kind]) => (cap[kind] ? (used[kind] ?? 0) / cap[kind]! : 0)));
