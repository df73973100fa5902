import { useEffect } from "preact/hooks";
import type { Reason } from "./api";
import { guardName } from "./words";

export function Reasons({ code, reasons, error }: { code: string; reasons?: Reason[]; error?: Error }) {
  useEffect(() => {
    if (code && reasons) document.getElementById(code)?.scrollIntoView({ block: "start" });
  }, [code, reasons]);
  const list = (reasons ?? []).filter((r) => r.cause);
  return (
    <>
      <h1>Reasons</h1>
      <p class="lead">Every code with which the gate refuses, or notes something. The same stands in docs/reasons.md.</p>
      {error && <p role="alert" class="fault">{error.message}</p>}
      {[...new Set(list.map((r) => r.step))].map((step) => (
        <section key={step} aria-label={guardName(step)} class="reasons">
          <h2>{guardName(step)}</h2>
          {list.filter((r) => r.step === step).map((r) => (
            <article key={r.code} id={r.code} class={r.code === code ? "chosen" : ""}>
              <h3><code>{r.code}</code> <small>{r.status ? `refused with ${r.status}` : "refuses nothing"} · <a href={"#/live/" + encodeURIComponent("reason=" + r.code)}>live</a></small></h3>
              <p>{r.cause}</p>
              <p class="soft">{r.fix}</p>
            </article>
          ))}
        </section>
      ))}
    </>
  );
}
