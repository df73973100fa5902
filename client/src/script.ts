// For <script src="https://api.example/.moat/client.js">: the gate is where the script came from, and relative URLs are
// its own.
import { MoatError } from "./error.js";
import { make, type Options } from "./fetch.js";

const src = (document.currentScript as HTMLScriptElement).src;
const moat = (options?: Options) =>
  // A script of another origin imports nothing by a relative URL.
  make(() => import(new URL("solver.js", src).href), { gate: new URL(".", src).href, base: src, ...options });

Object.assign(globalThis, { moat: Object.assign(moat, { fetch: moat(), MoatError }) });
