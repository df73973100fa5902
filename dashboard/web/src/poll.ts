import { useEffect, useState } from "preact/hooks";

export interface Polled<T> {
  value?: T;
  error?: Error;
}

// usePolled asks again and again while the page is visible. What it had stays until there is
// something newer, also when the gate does not answer for a while.
export function usePolled<T>(ask: () => Promise<T>, every: number, depends: unknown[]): [Polled<T>, () => void] {
  const [state, set] = useState<Polled<T>>({});
  const [again, setAgain] = useState(0);
  useEffect(() => {
    let over = false;
    const once = async () => {
      if (document.hidden) return;
      try {
        const value = await ask();
        if (!over) set({ value });
      } catch (error) {
        if (!over) set((last) => ({ value: last.value, error: error as Error }));
      }
    };
    void once();
    const timer = setInterval(once, every);
    document.addEventListener("visibilitychange", once);
    return () => {
      over = true;
      clearInterval(timer);
      document.removeEventListener("visibilitychange", once);
    };
  }, [...depends, again]);
  return [state, () => setAgain((n) => n + 1)];
}
