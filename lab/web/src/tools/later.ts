// Tools are loaded when they are first shown: the lessons need none of them.
import { h, type ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

export function later<P extends object>(load: () => Promise<{ default: ComponentType<P> }>): ComponentType<P> {
  let View: ComponentType<P> | undefined;
  return function Later(props: P) {
    const [state, setState] = useState(View ? "there" : "loading");
    useEffect(() => {
      if (View) return;
      load().then((m) => { View = m.default; setState("there"); }, () => setState("failed"));
    }, []);
    if (View) return h(View, props);
    return h("p", { class: "soft", role: "status" }, state === "failed" ? "This part of the page could not be loaded. Reload to try again." : "Loading…");
  };
}
