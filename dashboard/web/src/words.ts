const integers = new Intl.NumberFormat("en-GB");
const compact = new Intl.NumberFormat("en-GB", { notation: "compact", maximumFractionDigits: 1 });

export const count = (n: number) => integers.format(n);
export const short = (n: number) => (n < 10_000 ? integers.format(n) : compact.format(n));

export function share(part: number, whole: number): string {
  if (whole === 0) return "0%";
  const percent = (100 * part) / whole;
  if (percent > 0 && percent < 0.1) return "under 0.1%";
  if (percent > 99.9 && percent < 100) return "over 99.9%";
  return `${percent < 10 ? Math.round(percent * 10) / 10 : Math.round(percent)}%`;
}

export const clock = (time: string | number | Date, seconds = false) =>
  new Date(time).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined });

export function moment(time: string, seconds = true): string {
  const at = new Date(time);
  const day = at.toDateString() === new Date().toDateString() ? "" : at.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) + ", ";
  return day + clock(at, seconds);
}

export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i > 0 && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

export const money = (n: number) => n.toFixed(n !== 0 && Math.abs(n) < 1 ? 4 : 2);

// guardName is a step of the data path in words.
export const guardName = (step: string) => (step === "cors" || step === "csrf" ? step.toUpperCase() : step.replaceAll("_", " "));

export const routeName = (route: string) => route || "no route";
