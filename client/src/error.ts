/**
 * What keeps a call from being made. `code` is stable, so that a page can say it in its own words; `message` is
 * English, for developers. Where the gate refused, `code` is that of its refusal (docs/reasons.md), and `status`
 * and `retryAfter` (seconds) are what it answered.
 */
export class MoatError extends Error {
  override name = "MoatError";
  constructor(
    readonly code: string,
    message: string,
    readonly status?: number,
    readonly retryAfter?: number,
  ) {
    super(message);
  }
}
