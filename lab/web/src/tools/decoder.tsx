// The component of explain/web. It comes with the model, and not with this bundle.
import { useEffect, useState } from "preact/hooks";

declare module "preact" {
  namespace JSX {
    interface IntrinsicElements {
      "moat-explain": { first?: boolean };
    }
  }
}

const load = (address: string): Promise<unknown> => import(/* @vite-ignore */ address);

export default function Decoder() {
  const [state, setState] = useState("loading");
  useEffect(() => {
    load("/model/moat-explain.js").then(() => setState("there"), () => setState("failed"));
  }, []);
  if (state === "failed") return <p class="fault" role="alert">The decoder could not be loaded. Reload to try again.</p>;
  if (state === "loading") return <p class="soft" role="status">Loading…</p>;
  return <moat-explain first />;
}
