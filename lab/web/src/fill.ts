// Origins in the place of their names, as lab/names.go has it: for showing a run before it
// is made. What the server fills in is what counts.
import type { Boot, PageRequest, Role, Rule, Run, Target } from "./lab";

export function fill(text: string, boot: Boot, target: Target): string {
  return text.replace(/\{(\w+)(:ws|:host)?\}/g, (whole, name: string, form?: string) => {
    const origin = boot.origins[(name === "target" ? target : name) as Role];
    if (!origin) return whole;
    if (form === ":host") return new URL(origin).host;
    return form === ":ws" ? origin.replace(/^http/, "ws") : origin;
  });
}

export function filled(run: Run, boot: Boot, target: Target): Run {
  const f = (text: string) => fill(text, boot, target);
  const pairs = <T extends [string, string][] | undefined>(h: T) => h?.map(([n, v]) => [n, f(v)]) as T;
  return {
    ...run,
    requests: run.requests?.map((r): PageRequest => ({ ...r, url: f(r.url), headers: pairs(r.headers), body: r.body && { ...r.body, text: r.body.text && f(r.body.text) } })),
    answers: run.answers?.map((r): Rule => ({ ...r, origin: r.origin?.map(f), headers: pairs(r.headers) })),
    cookies: run.cookies?.map(f),
  };
}
