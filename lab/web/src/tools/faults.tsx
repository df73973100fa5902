// What is wrong with a moat.yaml, and the editor that shows where.
import { useEffect, useRef, useState } from "preact/hooks";
import { later } from "./later";

/** One thing that is wrong. */
export interface Fault {
  line: number;
  col: number;
  field?: string;
  reason: string;
}

export interface EditorProps {
  /** The text to begin with; another one is put in its place. */
  text: string;
  label: string;
  describedBy?: string;
  faults: Fault[];
  warnings: Fault[];
  onChange: (text: string) => void;
  onRun?: () => void;
  /** A line to go to. The object is new for each time. */
  at?: { line: number };
}

const Loaded = later<EditorProps>(() => import("./editor"));

/** The editor, which is large: it is loaded when it comes into view. Until then its text is shown. */
export function Editor(p: EditorProps) {
  const [near, setNear] = useState(false);
  const host = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const watch = new IntersectionObserver((seen) => { if (seen.some((s) => s.isIntersecting)) setNear(true); }, { rootMargin: "300px" });
    watch.observe(host.current!);
    return () => watch.disconnect();
  }, []);
  return <div ref={host} class="editor-host">{near ? <Loaded {...p} /> : <pre>{p.text}</pre>}</div>;
}

/** The faults as a list, each of which leads to its line. */
export function FaultList({ faults, onGo }: { faults: Fault[]; onGo: (line: number) => void }) {
  if (faults.length === 0) return null;
  return (
    <ul class="fault-list">
      {faults.slice(0, 20).map((f, i) => (
        <li key={i}>
          {f.line > 0 && <button type="button" class="quiet" onClick={() => onGo(f.line)}>line {f.line}</button>}
          <span>{f.field && <code>{f.field}</code>} {f.reason}</span>
        </li>
      ))}
      {faults.length > 20 && <li>and {faults.length - 20} more</li>}
    </ul>
  );
}
