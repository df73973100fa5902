// A stacked bar chart as SVG. It is drawn here, and not by a library, because it needs little:
// some 70 bars of a few layers. As SVG it takes its colours from the style sheet, light and
// dark, stays sharp, and prints.
import { useRef, useState } from "preact/hooks";
import type { Series } from "./api";
import { clock, count, short } from "./words";

export interface Layer {
  name: string;
  label: string;
  tone: number; // a colour of the style sheet, 1 to 8
  points: Map<number, number>; // by bucket of the series
}

// grouped are how many buckets of a series make a bar: one minute, 5 or 20.
const grouped = { "1h": 6, "6h": 5, "24h": 5 };

const height = 160;
const wide = 1000;

export function Chart({ series, layers, title, none }: { series: Series; layers: Layer[]; title: string; none: string }) {
  const [at, setAt] = useState<number | undefined>();
  const plot = useRef<SVGSVGElement>(null);
  const per = grouped[series.range];
  const bars = Math.ceil(series.buckets / per);
  const stacks = Array.from({ length: bars }, () => layers.map(() => 0));
  layers.forEach((layer, l) => layer.points.forEach((n, bucket) => (stacks[Math.floor(bucket / per)]![l]! += n)));
  const sums = stacks.map((stack) => stack.reduce((a, b) => a + b, 0));
  const top = nice(Math.max(1, ...sums));
  const begins = (bar: number) => new Date(series.from).getTime() + bar * per * series.step * 1000;
  const said = (bar: number) =>
    `${clock(begins(bar))} to ${clock(begins(bar + 1))}: ` +
    (sums[bar] === 0 ? "nothing" : layers.flatMap((layer, l) => (stacks[bar]![l]! > 0 ? [`${layer.label} ${count(stacks[bar]![l]!)}`] : [])).reverse().join(", "));
  const point = (e: PointerEvent) => {
    const box = plot.current!.getBoundingClientRect();
    setAt(Math.max(0, Math.min(bars - 1, Math.floor(((e.clientX - box.left) / box.width) * bars))));
  };
  const key = (e: KeyboardEvent) => {
    const to = { ArrowLeft: (at ?? bars) - 1, ArrowRight: (at ?? -1) + 1, Home: 0, End: bars - 1 }[e.key];
    if (e.key === "Escape") setAt(undefined);
    if (to === undefined) return;
    e.preventDefault();
    setAt(Math.max(0, Math.min(bars - 1, to)));
  };
  const width = wide / bars;
  const empty = sums.every((n) => n === 0);
  const filled = stacks.map((_, bar) => bar).filter((bar) => sums[bar]! > 0);
  return (
    <figure class="chart">
      <figcaption>
        <h3>{title}</h3>
        <p class="readout" aria-live="polite">{at === undefined ? "" : said(at)}</p>
      </figcaption>
      <div class="plot">
        <svg
          ref={plot} viewBox={`0 0 ${wide} ${height}`} preserveAspectRatio="none" role="img" tabIndex={0}
          aria-label={`${title}: bars of ${(per * series.step) / 60} minutes. ${empty ? none : "Arrow keys read them out; the table below has them all."}`}
          onPointerMove={point} onPointerLeave={() => setAt(undefined)} onKeyDown={key} onBlur={() => setAt(undefined)}
        >
          {[0.5, 1].map((share) => <line key={share} class="grid" x1="0" x2={wide} y1={height * (1 - share)} y2={height * (1 - share)} />)}
          {at !== undefined && <rect class="cursor" x={at * width} y="0" width={width} height={height} />}
          {stacks.map((stack, bar) => {
            let base = 0;
            return stack.map((n, l) => {
              if (n === 0) return null;
              const h = Math.max((n / top) * height, 1);
              base += h;
              return <rect key={`${bar} ${l}`} class={`tone-${layers[l]!.tone}`} x={bar * width + width * 0.1} y={height - base} width={width * 0.8} height={h} />;
            });
          })}
          <line class="axis" x1="0" x2={wide} y1={height} y2={height} />
        </svg>
        <span class="tick top" aria-hidden="true">{short(top)}</span>
        <span class="tick half" aria-hidden="true">{top > 1 ? short(top / 2) : ""}</span>
        {empty && <p class="none">{none}</p>}
      </div>
      <p class="times" aria-hidden="true">
        {[0, 0.25, 0.5, 0.75].map((share) => <span key={share}>{clock(begins(Math.round(bars * share)))}</span>)}
        <span>now</span>
      </p>
      {!empty && (
        <details>
          <summary>As a table</summary>
          <div class="scroll" tabIndex={0} role="region" aria-label={`${title}, as a table`}>
            <table>
              <thead>
                <tr><th scope="col">From</th>{layers.map((layer) => <th key={layer.name} scope="col">{layer.label}</th>)}</tr>
              </thead>
              <tbody>
                {filled.map((bar) => (
                  <tr key={bar}><th scope="row">{clock(begins(bar))}</th>{stacks[bar]!.map((n, l) => <td key={l}>{n > 0 ? count(n) : "·"}</td>)}</tr>
                ))}
              </tbody>
            </table>
          </div>
        </details>
      )}
    </figure>
  );
}

// nice is the next number that one likes to read on an axis, and can halve.
function nice(n: number): number {
  if (n <= 2) return n;
  const unit = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 4, 6, 8, 10].map((m) => m * unit).find((m) => m >= n)!;
}
