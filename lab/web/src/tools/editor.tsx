// An editor for moat.yaml. It lives in a shadow root, whose style sheets are made by script:
// the page's policy allows no style elements.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, startCompletion, type CompletionContext, type CompletionResult } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import { bracketMatching, HighlightStyle, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { lintGutter, lintKeymap, setDiagnostics, type Diagnostic } from "@codemirror/lint";
import { Annotation, EditorState, Prec } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { useEffect, useRef } from "preact/hooks";
import { get } from "../lab";
import type { EditorProps, Fault } from "./faults";
import { offersAt, type Schema } from "./schema";

let schema: Promise<Schema> | undefined;

async function complete(context: CompletionContext): Promise<CompletionResult | null> {
  schema ??= get<Schema>("schema");
  const root = await schema.catch(() => {
    schema = undefined;
    return null;
  });
  const found = root && offersAt(context.state.doc.toString(), context.pos, root);
  if (!found || (!context.explicit && context.pos === found.from)) return null;
  return {
    from: found.from,
    options: found.offers.map((o) => ({ label: o.label, apply: o.apply, detail: o.detail, info: o.info || undefined, boost: o.required ? 1 : 0 })),
    validFor: /^[\w.-]*$/,
  };
}

const colours = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--page)" },
  { tag: [tags.string, tags.content], color: "var(--ink)" },
  { tag: [tags.bool, tags.number, tags.keyword], color: "var(--browser)" },
  { tag: tags.comment, color: "var(--soft)", fontStyle: "italic" },
  { tag: [tags.punctuation, tags.separator, tags.brace, tags.squareBracket], color: "var(--soft)" },
]);

const look = EditorView.theme({
  "&": { color: "var(--ink)", backgroundColor: "var(--card)", fontSize: "14px" },
  "&.cm-focused": { outline: "2px solid var(--page)", outlineOffset: "-2px" },
  ".cm-content": { fontFamily: "var(--mono)", padding: "10px 0", caretColor: "var(--ink)" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.6", minHeight: "240px", maxHeight: "560px", overflow: "auto" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  ".cm-gutters": { backgroundColor: "var(--sunk)", color: "var(--soft)", border: "0", borderRight: "1px solid var(--line)" },
  ".cm-activeLine": { backgroundColor: "color-mix(in srgb, var(--page) 7%, transparent)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "color-mix(in srgb, var(--page) 25%, transparent) !important" },
  ".cm-matchingBracket": { backgroundColor: "color-mix(in srgb, var(--page) 20%, transparent) !important" },
  ".cm-tooltip": { backgroundColor: "var(--card)", color: "var(--ink)", border: "1px solid var(--edge)", borderRadius: "6px" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)", fontSize: "13.5px", maxHeight: "16em" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li": { padding: "3px 10px" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li[aria-selected]": { backgroundColor: "var(--ink)", color: "var(--ground)" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li[aria-selected] .cm-completionDetail": { color: "inherit" },
  ".cm-completionDetail": { color: "var(--soft)", fontStyle: "normal", fontSize: "12.5px" },
  ".cm-completionMatchedText": { textDecoration: "none", fontWeight: "700" },
  ".cm-tooltip.cm-completionInfo": { padding: "8px 12px", maxWidth: "340px", font: "13.5px/1.45 system-ui, sans-serif", whiteSpace: "pre-line" },
  // CodeMirror's own marks are images, which the page's policy does not allow.
  ".cm-lintRange-error": { backgroundImage: "none", textDecoration: "underline wavy var(--bad) 1px", textUnderlineOffset: "4px" },
  ".cm-lintRange-warning": { backgroundImage: "none", textDecoration: "underline wavy var(--network) 1px", textUnderlineOffset: "4px" },
  ".cm-lintRange-active": { backgroundColor: "var(--bad-ground)" },
  ".cm-lint-marker-error, .cm-lint-marker-warning": { content: "''", width: "8px", height: "8px", margin: "7px 2px", borderRadius: "50%", backgroundColor: "var(--bad)" },
  ".cm-lint-marker-warning": { borderRadius: "0", backgroundColor: "var(--network)" },
  ".cm-diagnostic": { padding: "6px 12px", font: "13.5px/1.45 system-ui, sans-serif" },
  ".cm-diagnostic-error": { borderLeft: "3px solid var(--bad)" },
  ".cm-diagnostic-warning": { borderLeft: "3px solid var(--network)" },
});

const phrases = EditorState.phrases.of({ "Completions": "What fits here", "Diagnostics": "Faults" });

const fromOutside = Annotation.define<boolean>();

export default function Editor(p: EditorProps) {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView>(null);
  const told = useRef<string[]>([]);
  const now = useRef(p);
  now.current = p;

  useEffect(() => {
    const root = host.current!.shadowRoot ?? host.current!.attachShadow({ mode: "open" });
    const state = EditorState.create({
      doc: now.current.text,
      extensions: [
        lineNumbers(), history(), drawSelection(), indentOnInput(), bracketMatching(), closeBrackets(), highlightActiveLine(), lintGutter(), indentUnit.of("  "),
        yaml(), syntaxHighlighting(colours), look, phrases, EditorView.lineWrapping,
        autocompletion({ override: [complete], icons: false, activateOnTypingDelay: 60 }),
        Prec.high(keymap.of([{ key: "Mod-Enter", run: () => { now.current.onRun?.(); return true; } }, { key: "Ctrl-Space", run: startCompletion }])),
        // Escape, then Tab, leaves the editor: CodeMirror sees to that.
        keymap.of([...closeBracketsKeymap, ...completionKeymap, ...lintKeymap, ...historyKeymap, ...defaultKeymap, indentWithTab]),
        EditorView.contentAttributes.of({ "aria-label": now.current.label, spellcheck: "false", autocapitalize: "off" }),
        EditorView.updateListener.of((u) => {
          if (!u.docChanged || u.transactions.some((tr) => tr.annotation(fromOutside))) return;
          const text = u.state.doc.toString();
          told.current.push(text);
          now.current.onChange(text);
        }),
      ],
    });
    const made = new EditorView({ state, parent: root, root });
    view.current = made;
    return () => made.destroy();
  }, []);

  useEffect(() => {
    const v = view.current;
    if (!v) return;
    if (v.state.doc.toString() === p.text) {
      told.current = [];
      return;
    }
    // What was written here comes back a moment later, when there may be more already.
    if (told.current.includes(p.text)) return;
    v.dispatch({ changes: { from: 0, to: v.state.doc.length, insert: p.text }, annotations: fromOutside.of(true) });
  });

  useEffect(() => {
    const v = view.current;
    if (!v) return;
    const mark = (severity: "error" | "warning") => (f: Fault): Diagnostic => {
      const line = v.state.doc.line(Math.min(Math.max(f.line, 1), v.state.doc.lines));
      const from = Math.min(line.from + Math.max(f.col - 1, 0), line.to);
      const word = /^[^\s,{}[\]]+/.exec(v.state.sliceDoc(from, line.to))?.[0].length ?? 0;
      return { from, to: from + word, severity, message: (f.field ? `${f.field}: ` : "") + f.reason };
    };
    v.dispatch(setDiagnostics(v.state, [...p.faults.map(mark("error")), ...p.warnings.map(mark("warning"))].sort((a, b) => a.from - b.from)));
  }, [p.faults, p.warnings]);

  useEffect(() => {
    const v = view.current;
    if (!v || !p.at) return;
    const line = v.state.doc.line(Math.min(Math.max(p.at.line, 1), v.state.doc.lines));
    v.dispatch({ selection: { anchor: line.from }, effects: EditorView.scrollIntoView(line.from, { y: "center" }) });
    v.focus();
  }, [p.at]);

  return <div ref={host} class="editor" />;
}
