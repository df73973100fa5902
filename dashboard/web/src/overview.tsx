import { useMemo, useState } from "preact/hooks";
import { get, ranges, type Budgets, type Means, type Mode, type Range, type Row, type Series, type Top, type TopEntry } from "./api";
import { BudgetPanel } from "./budgets";
import { Chart, type Layer } from "./chart";
import { usePolled } from "./poll";
import { reason } from "./route";
import { count, guardName, moment, routeName, share, short } from "./words";

type By = "step" | "reason";

const every = 5000;
const tones = 7; // and an eighth for all others

export function Overview({ budgets }: { budgets?: Budgets }) {
  const [range, setRange] = useState<Range>("1h");
  const [route, setRoute] = useState("");
  const [by, setBy] = useState<By>("step");
  const [asked] = usePolled(() => get<Series>("/series", { range }), every, [range]);
  const [top] = usePolled(() => get<Top>("/top", { route: route === "" ? "" : route.slice(1) || "-" }), every, [route]);
  const series = asked.value;
  // A route is "/" and its name here, so that the one without a name is not all of them.
  const routes = useMemo(() => [...new Set(series?.rows.map((r) => r.route))].sort(), [series]);
  if (!series) return asked.error ? <p role="alert" class="fault">{asked.error.message}</p> : <p class="soft">Asking the gate…</p>;
  const rows = series.rows.filter((r) => route === "" || "/" + r.route === route);
  const sum = (mode: Mode, ...means: Means[]) => rows.reduce((n, r) => (r.mode === mode && (means.length === 0 || means.includes(r.means)) ? n + r.total : n), 0);
  const served = sum("enforce", "served");
  const refused = sum("enforce", "refused");
  const failed = sum("enforce", "failed");
  const passed = served + failed + sum("enforce", "aborted");
  const spared = sum("would_refuse");
  const tone = toned(rows, by);
  return (
    <>
      <div class="head">
        <h1>What the gate decides</h1>
        <div class="controls">
          <label>
            <span>Route</span>
            <select value={route} onChange={(e) => setRoute(e.currentTarget.value)}>
              <option value="">all</option>
              {routes.map((r) => <option key={r} value={"/" + r}>{routeName(r)}</option>)}
            </select>
          </label>
          <Switch name="range" legend="Range" options={ranges.map((r) => [r, r])} value={range} choose={setRange} />
        </div>
      </div>
      {asked.error && <p role="alert" class="fault">The gate does not answer: {asked.error.message}. What stands here is of {moment(series.from)} and later.</p>}
      <dl class="figures">
        <Figure name="Served" id="served" n={served} of={`${share(served, served + refused + failed)} of what came`} />
        <Figure name="Refused" id="refused" n={refused} of={`${share(refused, served + refused + failed)} of what came`} kind="bad" />
        <Figure name="Enforcing would refuse" id="spared" n={spared} of={`${share(spared, passed)} of what passed`} kind="note" />
        <Figure name="Failed behind the gate" id="failed" n={failed} of="the upstream, or its credential" />
      </dl>
      <section aria-label="Served and refused">
        <Chart
          series={series} title="Served and refused" none="No request has come yet."
          layers={[
            { name: "served", label: "served", tone: 9, points: gather(rows, (r) => r.mode === "enforce" && r.means === "served") },
            { name: "failed", label: "failed", tone: 4, points: gather(rows, (r) => r.mode === "enforce" && r.means === "failed") },
            { name: "refused", label: "refused", tone: 10, points: gather(rows, (r) => r.mode === "enforce" && r.means === "refused") },
          ]}
        />
        <ul class="legend">
          <li><i class="key tone-9" />served</li>
          <li><i class="key tone-4" />failed</li>
          <li><i class="key tone-10" />refused</li>
        </ul>
      </section>
      <section aria-labelledby="decisions">
        <div class="head">
          <h2 id="decisions">Why it refuses</h2>
          <Switch name="by" legend="Stacked by" options={[["step", "guard"], ["reason", "reason"]]} value={by} choose={setBy} />
        </div>
        <div class="pair">
          <Chart series={series} title="Enforced: these were refused" none="Nothing was refused." layers={stacked(rows, "enforce", by, tone)} />
          <Chart series={series} title="Reported: not refused for this" none="Nothing was reported." layers={stacked(rows, "report", by, tone)} />
        </div>
        <ul class="legend">
          {tone.names.map((name, i) => <li key={name}><i class={`key tone-${i + 1}`} />{label(name, by)}</li>)}
          {tone.others && <li><i class="key tone-8" />all others</li>}
        </ul>
      </section>
      <Enforcing rows={rows} passed={passed} spared={spared} all={route === ""} />
      <div class="columns">
        <TopReasons rows={rows} />
        {top.value && <TopOnes title="Top clients" entries={top.value.clients} top={top.value} />}
        {top.value && top.value.callers.length > 0 && <TopOnes title="Top callers" entries={top.value.callers} top={top.value} />}
      </div>
      {budgets && <BudgetPanel budgets={budgets} />}
      <p class="soft">Counting began at {moment(series.since)}, with the process. A reload of the configuration does not end it, a restart does.</p>
    </>
  );
}

function Figure({ name, id, n, of, kind = "" }: { name: string; id: string; n: number; of: string; kind?: string }) {
  return (
    <div class={`figure ${n > 0 ? kind : ""}`}>
      <dt>{name}</dt>
      <dd><strong id={id} title={count(n)} data-n={n}>{short(n)}</strong><small>{of}</small></dd>
    </div>
  );
}

export function Switch<T extends string>({ name, legend, options, value, choose }: { name: string; legend: string; options: (readonly [T, string])[]; value: T; choose: (value: T) => void }) {
  return (
    <fieldset class="switch">
      <legend>{legend}</legend>
      {options.map(([option, text]) => (
        <label key={option}>
          <input type="radio" name={name} value={option} checked={option === value} onChange={() => choose(option)} />
          <span>{text}</span>
        </label>
      ))}
    </fieldset>
  );
}

function gather(rows: Row[], matches: (r: Row) => boolean): Map<number, number> {
  const points = new Map<number, number>();
  for (const row of rows) {
    if (matches(row)) for (const [bucket, n] of row.points) points.set(bucket, (points.get(bucket) ?? 0) + n);
  }
  return points;
}

// Both charts give a guard, or a reason, the same colour.
interface Tones {
  names: string[];
  others: boolean;
}

const refuses = (r: Row) => r.means === "refused" && r.mode !== "would_refuse";

function toned(rows: Row[], by: By): Tones {
  const totals = new Map<string, number>();
  for (const r of rows.filter(refuses)) totals.set(r[by], (totals.get(r[by]) ?? 0) + r.total);
  const names = [...totals].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1)).map(([name]) => name);
  return { names: names.slice(0, tones), others: names.length > tones };
}

const label = (name: string, by: By) => (by === "step" ? guardName(name) : name);

function stacked(rows: Row[], mode: Mode, by: By, { names, others }: Tones): Layer[] {
  const of = rows.filter((r) => refuses(r) && r.mode === mode);
  const layers = names.map((name, i) => ({ name, label: label(name, by), tone: i + 1, points: gather(of, (r) => r[by] === name) }));
  if (others) layers.push({ name: "", label: "all others", tone: 8, points: gather(of, (r) => !names.includes(r[by])) });
  return layers.filter((l) => l.points.size > 0);
}

function Enforcing({ rows, passed, spared, all }: { rows: Row[]; passed: number; spared: number; all: boolean }) {
  const would = rows.filter((r) => r.mode === "would_refuse").sort((a, b) => b.total - a.total);
  const reported = rows.some((r) => r.mode === "report");
  const through = new Map<string, number>();
  for (const r of rows) {
    if (r.mode === "enforce" && ["served", "failed", "aborted"].includes(r.means)) through.set(r.route, (through.get(r.route) ?? 0) + r.total);
  }
  return (
    <section aria-labelledby="enforcing" class="panel">
      <h2 id="enforcing">What enforcing would do</h2>
      {would.length === 0 ? (
        <p class="soft">{reported ? "Guards in report mode have recorded something, and nothing that passed would have been refused." : "No guard in report mode has anything against what passed."}</p>
      ) : (
        <>
          <p>
            Of {count(passed)} requests that passed, <strong class="note">{count(spared)}</strong> ({share(spared, passed)}) would have been refused if all that is in report mode were enforced.
          </p>
          <div class="scroll" tabIndex={0} role="region" aria-label="What enforcing would do, as a table">
            <table class="would">
              <thead><tr><th scope="col">First refused for</th><th scope="col">by</th><th scope="col">on</th><th scope="col" class="n">requests</th><th scope="col" class="n">of what passed there</th></tr></thead>
              <tbody>
                {would.slice(0, 30).map((r) => (
                  <tr key={r.route + " " + r.reason}>
                    <td><a href={reason(r.reason)}><code>{r.reason}</code></a></td>
                    <td>{guardName(r.step)}</td>
                    <td><code>{routeName(r.route)}</code></td>
                    <td class="n">{count(r.total)}</td>
                    <td class="n">{share(r.total, through.get(r.route) ?? 0)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          {would.length > 30 && <p class="soft">And {would.length - 30} more rows{all ? "; choose a route to see its own" : ""}.</p>}
        </>
      )}
    </section>
  );
}

function TopReasons({ rows }: { rows: Row[] }) {
  const of = (...means: Means[]) => {
    const all = new Map<string, { code: string; step: string; enforce: number; report: number }>();
    for (const r of rows) {
      if (r.mode === "would_refuse" || !means.includes(r.means)) continue;
      const entry = all.get(r.reason) ?? { code: r.reason, step: r.step, enforce: 0, report: 0 };
      entry[r.mode] += r.total;
      all.set(r.reason, entry);
    }
    return [...all.values()].sort((a, b) => b.enforce + b.report - a.enforce - a.report);
  };
  const list = of("refused", "failed").slice(0, 10);
  const noted = of("noted");
  const most = Math.max(1, ...list.map((e) => e.enforce + e.report));
  return (
    <section aria-labelledby="top-reasons" class="panel">
      <h2 id="top-reasons">Top reasons</h2>
      {list.length === 0 ? <p class="soft">None.</p> : (
        <ol class="ranks">
          {list.map((e) => (
            <li key={e.code}>
              <span class="who"><a href={reason(e.code)}><code>{e.code}</code></a> <small>{guardName(e.step)}</small></span>
              <Tally enforced={e.enforce} reported={e.report} most={most} />
            </li>
          ))}
        </ol>
      )}
      {noted.length > 0 && (
        <p class="soft small">Noted, and passed on: {noted.map((e, i) => <span key={e.code}>{i > 0 && ", "}<a href={reason(e.code)}><code>{e.code}</code></a> {count(e.enforce + e.report)}</span>)}.</p>
      )}
    </section>
  );
}

function TopOnes({ title, entries, top }: { title: string; entries: TopEntry[]; top: Top }) {
  const most = Math.max(1, ...entries.map((e) => e.enforced + e.reported));
  return (
    <section aria-label={title} class="panel">
      <h2>{title}</h2>
      {entries.length === 0 ? <p class="soft">None.</p> : (
        <>
          <ol class="ranks">
            {entries.map((e) => (
              <li key={e.who}>
                <span class="who"><a href={"#/live/" + encodeURIComponent("client=" + e.who)}><code>{e.who}</code></a> <small>mostly {e.reason}</small></span>
                <Tally enforced={e.enforced} reported={e.reported} most={most} />
              </li>
            ))}
          </ol>
          <p class="soft small">Among the latest {count(top.of)} records, since {moment(top.since)}.</p>
        </>
      )}
    </section>
  );
}

function Tally({ enforced, reported, most }: { enforced: number; reported: number; most: number }) {
  return (
    <span class="tally">
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        <rect class="tone-10" width={(100 * enforced) / most} height="6" />
        <rect class="tone-4" x={(100 * enforced) / most} width={(100 * reported) / most} height="6" />
      </svg>
      <span>{[enforced > 0 && `${count(enforced)} enforced`, reported > 0 && `${count(reported)} reported`].filter(Boolean).join(", ")}</span>
    </span>
  );
}
