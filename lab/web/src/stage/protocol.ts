// What the page and its stage say to each other.
import type { PageRequest, Role, Run, Target } from "../lab";

/** What script came to see of a request: the words are those of browser.Verdict.Script. */
export interface Saw {
  script: string;
  /** What it could read of the answer, shortened. */
  read?: string;
  /** The names of the header fields that it could read. */
  headers?: string[];
  /** Whether the reader's click still counted when a tab was led away. */
  activated?: boolean;
}

/** What a function of a lesson's script.js is given, but for say. */
export interface Setting {
  origins: Record<Role, string>;
  target: Target;
  run: Run;
}

export type ToStage =
  | { id: number; request: PageRequest; tab?: string }
  | { id: number; lesson: string; do: string; setting: Setting };

export type FromStage =
  | { ready: true }
  | { id: number; say: string }
  | { id: number; saw: Saw }
  | { id: number; did: { readable: boolean; saw: string } }
  | { id: number; fault: string };
