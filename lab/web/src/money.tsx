// Everybody's balance, all the time: money moves while the console says "blocked".
import { before, books, post, startBooks, type Books } from "./lab";

export function Money() {
  return (
    <div class="money" role="group" aria-label="The bank's books">
      <Balance who="alice" />
      <Balance who="mallory" />
      <button type="button" class="quiet" onClick={async () => startBooks(await post<Books>("reset", {}))}>Reset</button>
    </div>
  );
}

function Balance({ who }: { who: "alice" | "mallory" }) {
  const has = books.value[who];
  const by = has - before.value[who];
  return (
    <p class={`balance ${by ? "moved" : ""}`} aria-live="polite">
      <span>{who}</span> <strong data-balance={who}>{has}</strong>
      {by !== 0 && <em>{by > 0 ? `+${by}` : `−${-by}`}</em>}
    </p>
  );
}
