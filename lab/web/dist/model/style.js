// The component's style, in its shadow root. Colours follow color-scheme.

export const sheet = new CSSStyleSheet();
sheet.replaceSync(`
:host {
  --ground: light-dark(#fbfbf9, #15171a);
  --card: light-dark(#ffffff, #1d2024);
  --sunk: light-dark(#f2f2ee, #111315);
  --ink: light-dark(#1a1c1e, #e6e6e2);
  --soft: light-dark(#5c6166, #9ba1a8);
  --line: light-dark(#dcdcd5, #34383e);
  --rail: light-dark(#c9c9c1, #3d4248);
  --blue: light-dark(#1c55b5, #8ab4f8);
  --red: light-dark(#b3261e, #ff8a80);
  --red-ground: light-dark(#fdf0ee, #2c1a1a);
  --green: light-dark(#1b6e3c, #7fd39b);
  --green-ground: light-dark(#eef7f0, #17251c);
  --amber: light-dark(#8a5300, #f0b860);
  --amber-ground: light-dark(#fdf5e6, #2a2216);
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "Liberation Mono", monospace;
  display: block;
  color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif;
  container: moat-explain / inline-size;
  text-align: start;
}
*, *::before, *::after { box-sizing: border-box; }
[hidden] { display: none !important; }
h2, h3, h4, p, ul, ol, dl, dd, blockquote, pre, fieldset { margin: 0; padding: 0; border: 0; }
ul, ol { list-style: none; }
h2 { font-size: 22px; line-height: 1.3; font-weight: 600; letter-spacing: -0.01em; text-wrap: balance; }
h3 { font-size: 13px; font-weight: 600; color: var(--soft); margin-bottom: 10px; }
h4 { font-size: 15px; font-weight: 600; }
a { color: var(--blue); text-underline-offset: 2px; text-decoration-thickness: 1px; }
code, pre, textarea, input[type=text], input[type=number] { font-family: var(--mono); font-size: 13px; }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 1px; }

label, .label { display: block; font-size: 13px; color: var(--soft); }
input[type=text], input[type=number], select, textarea {
  width: 100%; min-width: 0; padding: 6px 8px; color: var(--ink); background: var(--card);
  border: 1px solid var(--line); border-radius: 4px; line-height: 1.45;
}
select { font: inherit; font-size: 14px; padding: 5px 6px; }
textarea { display: block; resize: vertical; }
::placeholder { color: var(--soft); opacity: .75; }
button { font: inherit; font-size: 14px; color: var(--ink); background: none; border: 1px solid var(--line); border-radius: 4px; padding: 5px 12px; cursor: pointer; }
button:hover { border-color: var(--soft); }
button.main { color: var(--card); background: var(--ink); border-color: var(--ink); padding: 7px 18px; }

.top { display: grid; gap: 20px; }
.top > * { min-width: 0; }
.paste label { font-size: 15px; font-weight: 600; color: var(--ink); margin-bottom: 6px; }
.actions { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; margin-top: 8px; }
.hint { font-size: 13px; color: var(--soft); }
.presets { display: flex; gap: 7px; margin-top: 6px; overflow-x: auto; padding: 2px 2px 8px; scrollbar-width: thin; }
.presets button { white-space: nowrap; font-size: 13.5px; background: var(--card); }
.presets button[aria-pressed=true] { border-color: var(--ink); box-shadow: inset 0 0 0 1px var(--ink); }
.lesson { font-size: 17px; line-height: 1.45; color: var(--soft); max-width: 72ch; margin-bottom: -12px; text-wrap: pretty; }

.message:not(:empty) { margin-top: 16px; padding: 10px 14px; border-left: 3px solid var(--red); background: var(--red-ground); overflow-wrap: anywhere; }
.status:not(:empty) { color: var(--soft); padding: 12px 0; }
.status.heard { position: absolute; width: 1px; height: 1px; padding: 0; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

.work { display: grid; gap: 28px; margin-top: 24px; }
.main-column { min-width: 0; display: grid; gap: 28px; align-content: start; }
.main-column > :empty { display: none; }
.result { display: grid; gap: 32px; min-width: 0; }
.result > * { min-width: 0; }

.describe { min-width: 0; align-self: start; }
summary { cursor: pointer; font-weight: 600; padding: 6px 0; }
.describe > summary { font-size: 15px; }
.more > summary { font-size: 13px; color: var(--soft); font-weight: 400; }
.request { display: grid; gap: 18px; margin-top: 8px; }
fieldset { display: grid; gap: 9px; min-width: 0; }
legend { font-weight: 600; font-size: 14px; padding: 0 0 7px; width: 100%; border-bottom: 1px solid var(--line); margin-bottom: 9px; }
.field { min-width: 0; }
.field label { margin-bottom: 2px; }
.check { display: flex; gap: 8px; align-items: baseline; }
.check label { color: var(--ink); }
.check input { accent-color: var(--blue); margin: 0; }
.more .field, .more .check { margin-top: 9px; }
.rows { display: grid; gap: 10px; }
.row { display: grid; grid-template-columns: minmax(0, 1fr) 64px auto; gap: 6px 8px; align-items: end; padding: 10px; background: var(--sunk); border-radius: 6px; }
.row .wide { grid-column: 1 / -1; }
.row button { padding: 5px 8px; font-size: 13px; }
.add { justify-self: start; font-size: 13px; }

.verdict { border-top: 3px solid var(--soft); padding-top: 14px; }
.verdict.blocked, .verdict.refused { border-color: var(--red); }
.verdict.allowed { border-color: var(--green); }
.two { display: grid; gap: 12px; margin-top: 16px; }
.cell { padding: 12px 16px 14px; border-radius: 6px; background: var(--sunk); }
.cell .ask { font-size: 13px; color: var(--soft); }
.cell .answer { font-size: 24px; line-height: 1.25; font-weight: 600; letter-spacing: -0.01em; }
.cell .say { font-size: 13.5px; color: var(--soft); overflow-wrap: anywhere; margin-top: 2px; }
.cell.yes { background: var(--green-ground); } .cell.yes .answer { color: var(--green); }
.cell.no { background: var(--red-ground); } .cell.no .answer { color: var(--red); }
.cell.did { background: var(--amber-ground); } .cell.did .answer { color: var(--amber); }

.notes { display: grid; gap: 4px; padding-left: 14px; border-left: 3px solid var(--amber); font-size: 14px; overflow-wrap: anywhere; }

/* The lanes. Small: four rails on the left, the cards beside them. */
.lanes { position: relative; --step: 15px; --left: 72px; }
.heads { display: grid; grid-template-columns: repeat(4, auto); justify-content: start; gap: 2px 14px; font-size: 12.5px; white-space: nowrap; font-weight: 600; padding-bottom: 10px; }
.head { display: flex; align-items: center; gap: 6px; }
.head::before { content: ""; width: 9px; height: 9px; border-radius: 50%; background: var(--c); }
.page { --c: light-dark(#6b4fa0, #c0a5f5); } .browser { --c: light-dark(#1c55b5, #8ab4f8); }
.network { --c: light-dark(#6c7278, #9ba1a8); } .backend { --c: light-dark(#8a5300, #f0b860); }
.rails i { position: absolute; top: 30px; bottom: 0; width: 2px; background: var(--c); opacity: .45; }
.rails .page { left: 8px; } .rails .browser { left: calc(8px + var(--step)); }
.rails .network { left: calc(8px + 2 * var(--step)); } .rails .backend { left: calc(8px + 3 * var(--step)); }
.lanes ol { display: grid; gap: 10px; position: relative; padding-left: var(--left); }
.event { position: relative; min-width: 0; --a: 0; --b: 1; --paint: var(--ink); }
.event.failed { --paint: var(--red); }
.from-browser.to-backend, .from-backend.to-browser { --a: 1; --b: 3; }
.from-browser.to-network { --a: 1; --b: 2; }
.own.from-browser { --a: 1; --b: 1; }
.arrow { position: absolute; top: 18px; height: 2px; background: var(--paint);
  left: calc(9px + var(--a) * var(--step) - var(--left)); width: calc((var(--b) - var(--a)) * var(--step)); }
.arrow::after { content: ""; position: absolute; top: -4px; border: 5px solid transparent; }
.right .arrow::after { right: -2px; border-left: 7px solid var(--paint); border-right-width: 0; }
.left .arrow::after { left: -2px; border-right: 7px solid var(--paint); border-left-width: 0; }
.arrow.dot { width: 10px; height: 10px; margin: -4px 0 0 -5px; border-radius: 50%; }
.arrow.dot::after { display: none; }
.to-network.failed .arrow::after { content: "✕"; border: 0; top: -11px; right: -7px; color: var(--red); font: 700 14px/22px system-ui, sans-serif; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 7px 11px 9px; min-width: 0; overflow-wrap: anywhere; }
.own .card { background: none; border-color: transparent; padding-block: 4px; }
.failed .card { border-color: var(--red); background: var(--red-ground); }
.who { font-size: 12px; color: var(--soft); }
.cross:not(:empty) { color: var(--red); font-weight: 600; margin-left: 8px; }
.title { font-weight: 600; font-size: 14px; }
.own .title { font-weight: 400; }
.own.failed .title { font-weight: 600; }
.title.code { font-family: var(--mono); font-size: 13px; }
.card a { font-size: 12.5px; }
.headers { margin-top: 4px; font-family: var(--mono); font-size: 12px; line-height: 1.55; color: var(--soft); }
.headers .telling { color: var(--ink); }
.headers .telling .name { color: var(--blue); }
.headers .aside { font-family: system-ui, sans-serif; font-size: 12.5px; font-style: italic; }
.failed .headers .aside { color: var(--red); font-style: normal; font-weight: 600; }

.ran { margin: 4px 0 0 12px; font-size: 12.5px; font-weight: 600; color: var(--amber); }
.ran::before { content: "The backend "; }
.ran.not { color: var(--soft); font-weight: 400; }

.code-box { position: relative; margin-top: 6px; }
pre { overflow-x: auto; background: var(--sunk); border: 1px solid var(--line); border-radius: 6px; padding: 12px 14px; line-height: 1.5; tab-size: 4; max-height: 420px; }
.said pre, .change pre { white-space: pre-wrap; overflow-wrap: anywhere; padding-right: 84px; }
.copy { position: absolute; top: 7px; right: 7px; font-size: 12.5px; padding: 2px 9px; background: var(--card); z-index: 1; }
dl { display: grid; gap: 2px 18px; margin-top: 12px; }
dt { font-size: 13px; color: var(--soft); margin-top: 6px; }
dd { overflow-wrap: anywhere; }
.said > p:not(.label) { margin-top: 12px; }
.field-line { display: block; }

.change { border-left: 3px solid var(--line); padding-left: 14px; margin-bottom: 16px; }
.lead { margin-bottom: 10px; }
[role=tablist] { display: flex; gap: 2px 4px; overflow-x: auto; border-bottom: 1px solid var(--line); scrollbar-width: thin; }
[role=tab] { border: 0; border-bottom: 2px solid transparent; border-radius: 0; padding: 6px 10px; color: var(--soft); white-space: nowrap; margin-bottom: -1px; }
[role=tab][aria-selected=true] { color: var(--ink); border-bottom-color: var(--ink); font-weight: 600; }
[role=tab]:focus-visible { outline-offset: -2px; }
[role=tabpanel] { padding-top: 10px; }
.file { font-size: 13.5px; color: var(--soft); overflow-wrap: anywhere; }
.file b { color: var(--ink); font-weight: 600; }
.note { margin-top: 8px; font-size: 14px; color: var(--soft); max-width: 72ch; }

.steps ol { display: grid; gap: 6px; counter-reset: step; font-size: 14px; }
.steps li { counter-increment: step; display: grid; grid-template-columns: 22px minmax(0, 1fr); gap: 0 6px; overflow-wrap: anywhere; }
.steps li::before { content: counter(step); color: var(--soft); font-variant-numeric: tabular-nums; }
.steps li span:last-child { grid-column: 2; }
.steps li.failed span:last-child { color: var(--red); font-weight: 600; }

.diagnosis { padding: 16px 18px 18px; background: var(--sunk); border-radius: 8px; display: grid; gap: 10px; }
blockquote { font-family: var(--mono); font-size: 13px; overflow-wrap: anywhere; border-left: 3px solid var(--rail); padding-left: 12px; }
.choices { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; font-size: 13.5px; }
.choices span { flex-basis: 100%; color: var(--soft); }
.choices button { font-family: var(--mono); font-size: 12.5px; padding: 3px 9px; }
.choices button[aria-pressed=true] { background: var(--ink); color: var(--card); border-color: var(--ink); }
.findings { display: grid; gap: 4px; }

@container moat-explain (min-width: 620px) {
  .two { grid-template-columns: 1fr 1fr; }
  dl { grid-template-columns: max-content minmax(0, 1fr); gap: 6px 18px; align-items: baseline; }
  dt { margin-top: 0; }
  .presets { flex-wrap: wrap; padding-bottom: 0; }
  .steps li { grid-template-columns: 22px 190px minmax(0, 1fr); }
  .steps li span:last-child { grid-column: 3; }
}

@container moat-explain (min-width: 1000px) {
  .work { grid-template-columns: 320px minmax(0, 1fr); gap: 40px; }
  h2 { font-size: 26px; }
  .cell .answer { font-size: 30px; }

  /* Wide: four columns. Each lane is two halves, so that arrows can end on its rail. */
  .lanes { --left: 0px; }
  .heads, .event { display: grid; grid-template-columns: repeat(2, minmax(0, 1.5fr)) repeat(2, minmax(0, 1.1fr)) repeat(2, minmax(0, 2fr)) repeat(2, minmax(0, .7fr)); gap: 0; justify-content: stretch; }
  .head { grid-column: span 2; justify-content: center; font-size: 13px; padding-bottom: 6px; }
  .rails { position: absolute; inset: 30px 0 0; display: grid; grid-template-columns: 1.5fr 1.1fr 2fr .7fr; }
  .rails i { position: static; justify-self: center; height: 100%; }
  .lanes ol { gap: 14px; }
  .arrow { position: relative; inset: auto; width: auto; align-self: start; margin-top: 30px; grid-row: 1; }
  .card { grid-row: 1; margin-inline: 12px; position: relative; }
  .at-page .card { grid-column: 1 / 3; margin-left: 0; }
  .at-page .arrow { grid-column: 3 / 4; margin-left: -12px; }
  .at-network .card { grid-column: 5 / 7; }
  .from-browser.to-backend .arrow, .from-backend.to-browser .arrow { grid-column: 4 / 8; }
  .from-browser.to-network .arrow { grid-column: 4 / 5; margin-right: -12px; }
  .own .card { grid-column: 3 / 7; margin-inline: 0; justify-self: start; background: var(--ground); border-color: var(--line); max-width: 100%; margin-left: 8%; }
  .own.failed .card { background: var(--red-ground); border-color: var(--red); }
  .own .arrow { display: none; }
  .ran { grid-row: 1; grid-column: 7 / 9; justify-self: center; align-self: start; margin: 38px 0 0; padding: 1px 7px; background: var(--ground); text-align: center; }
  .ran::before { content: none; }
}

@media (prefers-reduced-motion: no-preference) {
  .verdict, .lanes { animation: appear .18s ease-out; }
  @keyframes appear { from { opacity: 0; } }
}
@media (forced-colors: active) { .rails i, .arrow { background: CanvasText; } }
`);
