// Where the reader is, which stands in the URL's fragment:
// #/, #/lesson/NAME/RUN?target=gate, #/reference, #/tool/NAME.
import { signal } from "@preact/signals";

export interface Route {
  parts: string[];
  options: URLSearchParams;
}

export const route = signal(read());

function read(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { parts: path.split("/").filter(Boolean).map(decode), options: new URLSearchParams(query) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

addEventListener("hashchange", () => (route.value = read()));

/** The fragment of a place. */
export function to(parts: string[], options: Record<string, string | undefined> = {}): string {
  const query = new URLSearchParams(Object.entries(options).filter((o): o is [string, string] => !!o[1]));
  return "#/" + parts.map(encodeURIComponent).join("/") + (query.size ? "?" + query : "");
}

/** Notes state in the URL without another entry in the history. */
export function note(parts: string[], options: Record<string, string | undefined>): void {
  history.replaceState(null, "", to(parts, options));
  route.value = read();
}
