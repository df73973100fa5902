import { useEffect, useRef, useState } from "preact/hooks";
import { get, type Decision, type Reason } from "./api";
import { usePlace, why } from "./route";
import { clock, count, guardName, routeName } from "./words";

const kept = 200;

interface Filter {
  route: string;
  step: string;
  reason: string;
  mode: string;
  client: string;
}

const none: Filter = { route: "", step: "", reason: "", mode: "", client: "" };

// A filter stands in the address, so that a view can be passed on.
const write = (f: Filter) => "#/live/" + encodeURIComponent(new URLSearchParams(Object.entries(f).filter(([, v]) => v !== "")).toString());
const read = (text: string): Filter => ({ ...none, ...Object.fromEntries([...new URLSearchParams(text)].filter(([k]) => k in none)) });

export function Live({ reasons }: { reasons?: Reason[] }) {
  const { rest } = usePlace();
  const filter = read(rest);
  const [rows, setRows] = useState<Decision[]>([]);
  const [missed, setMissed] = useState(0);
  const [state, setState] = useState<"asking" | "watching" | "lost" | "full">("asking");
  const [paused, setPaused] = useState(false);
  const [held, setHeld] = useState<Decision[]>([]);
  const [again, setAgain] = useState(0);
  const stopped = useRef(false);
  stopped.current = paused;

  useEffect(() => {
    const params = Object.fromEntries(Object.entries(filter).filter(([, v]) => v !== ""));
    setRows([]);
    setHeld([]);
    setMissed(0);
    let over = false;
    const source = new EventSource("/live?" + new URLSearchParams(params));
    source.addEventListener("watching", () => {
      setState("watching");
      // The stream tells only what comes. What was before is asked for now, so that nothing falls between the two.
      get<Decision[]>("/decisions", { ...params, n: String(kept) }).then(
        (before) => !over && setRows((now) => [...now, ...before.filter((b) => !now.some((n) => n.id === b.id))].slice(0, kept)),
        () => {},
      );
    });
    source.addEventListener("record", (e) => {
      const one = JSON.parse((e as MessageEvent<string>).data) as Decision;
      (stopped.current ? setHeld : setRows)((now) => [one, ...now.filter((n) => n.id !== one.id)].slice(0, kept));
    });
    const left = (e: Event) => setMissed((n) => n + Number((e as MessageEvent<string>).data));
    source.addEventListener("missed", left);
    source.addEventListener("beat", left);
    // A browser tries again by itself unless the answer was a refusal.
    source.onerror = () => setState(source.readyState === EventSource.CLOSED ? "full" : "lost");
    return () => {
      over = true;
      source.close();
    };
  }, [rest, again]);

  const resume = () => {
    setRows((now) => [...held, ...now.filter((n) => !held.some((h) => h.id === n.id))].slice(0, kept));
    setHeld([]);
    setPaused(false);
  };
  const set = (change: Partial<Filter>) => location.replace(write({ ...filter, ...change }));
  const steps = [...new Set(reasons?.map((r) => r.step))];
  const codes = (reasons ?? []).filter((r) => r.means !== "served" && r.means !== "answered" && (filter.step === "" || r.step === filter.step));
  return (
    <>
      <div class="head">
        <h1>Live</h1>
        <p class={`state ${state}`} role="status">
          {state === "watching" && !paused && "Watching"}
          {paused && `Paused${held.length > 0 ? `, ${held.length === kept ? `${kept} or more` : held.length} waiting` : ""}`}
          {!paused && state === "asking" && "Asking the gate…"}
          {!paused && state === "lost" && "The gate does not answer; trying again"}
          {state === "full" && "The gate takes no more watchers"}
        </p>
        <p class="actions">
          <button type="button" id="pause" aria-pressed={paused} onClick={() => (paused ? resume() : setPaused(true))}>{paused ? "Go on" : "Pause"}</button>
          {state === "full" && <button type="button" onClick={() => { setState("asking"); setAgain((n) => n + 1); }}>Try again</button>}
        </p>
      </div>
      <form class="filters" onSubmit={(e) => e.preventDefault()}>
        <Pick name="step" label="Step" value={filter.step} options={steps.map((s) => [s, guardName(s)])} choose={(step) => set({ step, reason: "" })} />
        <Pick name="reason" label="Reason" value={filter.reason} options={codes.map((r) => [r.code, r.code])} choose={(reason) => set({ reason })} />
        <Pick name="mode" label="Mode" value={filter.mode} options={[["enforce", "enforced"], ["report", "reported"]]} choose={(mode) => set({ mode })} />
        <Text name="route" label="Route" value={filter.route} hint="its name" choose={(route) => set({ route })} />
        <Text name="client" label="Client or caller" value={filter.client} hint="203.0.113." choose={(client) => set({ client })} />
        <button type="button" class="quiet" onClick={() => set(none)}>Clear</button>
      </form>
      {missed > 0 && <p class="soft">{count(missed)} more came faster than they are shown. They are counted in the overview.</p>}
      {rows.length === 0 ? <p class="soft empty">Nothing yet{rest && " that matches"}. Each refusal appears here when it is made.</p> : (
        <div class="scroll" tabIndex={0} role="region" aria-label="Decisions">
          <table class="tail">
            <thead><tr><th scope="col">Time</th><th scope="col">Reason</th><th scope="col">Request</th><th scope="col">Client</th><th scope="col">Route</th></tr></thead>
            <tbody>{rows.map((d) => <Line key={d.id} d={d} />)}</tbody>
          </table>
        </div>
      )}
    </>
  );
}

function Line({ d }: { d: Decision }) {
  const open = (e: MouseEvent) => {
    if (!(e.target as Element).closest("a") && getSelection()?.isCollapsed !== false) location.hash = why(d.id);
  };
  return (
    <tr onClick={open} class={d.mode}>
      <td><time dateTime={d.time}>{clock(d.time, true)}</time></td>
      <td><a href={why(d.id)}><code>{d.code}</code></a> <small>{d.mode === "report" ? "reported" : guardName(d.step)}</small></td>
      <td class="asked"><b>{d.method}</b> <code>{d.host}{d.path}</code></td>
      <td><code>{d.client}</code>{d.caller && <small> {d.caller}</small>}</td>
      <td>{routeName(d.route)}</td>
    </tr>
  );
}

function Pick({ name, label, value, options, choose }: { name: string; label: string; value: string; options: (readonly [string, string])[]; choose: (value: string) => void }) {
  return (
    <label>
      <span>{label}</span>
      <select name={name} value={value} onChange={(e) => choose(e.currentTarget.value)}>
        <option value="">all</option>
        {options.map(([option, text]) => <option key={option} value={option}>{text}</option>)}
      </select>
    </label>
  );
}

function Text({ name, label, value, hint, choose }: { name: string; label: string; value: string; hint: string; choose: (value: string) => void }) {
  return (
    <label>
      <span>{label}</span>
      <input name={name} value={value} placeholder={hint} spellcheck={false} autocomplete="off" onChange={(e) => choose(e.currentTarget.value.trim())} />
    </label>
  );
}
