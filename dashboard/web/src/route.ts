import { useEffect, useState } from "preact/hooks";

export interface Place {
  view: string;
  rest: string;
}

function read(): Place {
  const [view = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  let text = rest.join("/");
  try {
    text = decodeURIComponent(text);
  } catch {} // it is what somebody typed
  return { view, rest: text };
}

export function usePlace(): Place {
  const [place, set] = useState(read);
  useEffect(() => {
    const changed = () => set(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return place;
}

export const why = (id: string) => "#/why/" + encodeURIComponent(id);
export const reason = (code: string) => "#/reasons/" + encodeURIComponent(code);
