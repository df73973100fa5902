import { make, type MoatFetch, type Options } from "./fetch.js";

export { MoatError } from "./error.js";
export type { MoatFetch, Options };

/** fetch, with a ticket for each call to the gate's origin. */
export function moat(options?: Options): MoatFetch {
  return make(() => import("./solver.js"), options);
}
