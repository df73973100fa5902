// A reason code of moat, and its text.
import { useEffect, useState } from "preact/hooks";
import { get } from "../lab";

interface Text {
  title?: string;
  cause: string;
  fix?: string;
}

let all: Promise<Record<string, Text>> | undefined;

export function Reason({ code }: { code: string }) {
  const [text, setText] = useState<Text>();
  useEffect(() => {
    all ??= get<Record<string, Text>>("reasons");
    all.then((texts) => setText(texts[code]), () => { all = undefined; });
  }, [code]);
  return (
    <details class="reason">
      <summary><code>{code}</code></summary>
      {text ? <p>{text.cause} {text.fix && <><b>If it is legitimate:</b> {text.fix}</>}</p> : <p>Its text is in docs/reasons.md.</p>}
    </details>
  );
}
