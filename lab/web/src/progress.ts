// What the reader has done so far. Every origin has a localStorage of its own, so the lab's
// server remembers, too, and the two are merged.
import { signal } from "@preact/signals";
import { post } from "./lab";

export interface Done {
  /** How many of the questions were answered rightly, the last time. */
  predicted: number;
  of: number;
  mended: boolean;
}

const key = "moat-lab-progress";

export const done = signal<Record<string, Done>>(stored());

function stored(): Record<string, Done> {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "{}") as Record<string, Done>;
  } catch {
    return {};
  }
}

/** Notes what was done in a lesson. */
export function noteDone(lesson: string, change: Partial<Done>): void {
  const before = done.value[lesson] ?? { predicted: 0, of: 0, mended: false };
  done.value = { ...done.value, [lesson]: { ...before, ...change } };
  merge();
}

/** Merges with what the lab remembers. */
export async function merge(): Promise<void> {
  try {
    done.value = { ...done.value, ...(await post<Record<string, Done>>("progress", done.value)) };
    localStorage.setItem(key, JSON.stringify(done.value));
  } catch {
    // It is a comfort; the lesson goes on without.
  }
}
