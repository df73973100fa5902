// Where in a YAML document the cursor is. It is read line by line, because what is being
// written is seldom a whole document yet.

export interface Place {
  /** The keys and items that lead to the mapping or value. */
  path: (string | number)[];
  /** What is written here: a key of a mapping, or a value. A bare word may be both. */
  kind: "key" | "value" | "either";
  /** Where the word begins that is being written. */
  from: number;
  /** Keys that the mapping has already. */
  siblings: string[];
}

interface Level {
  indent: number;
  key: string | number;
}

const keyPattern = /^("(?:[^"\\]|\\.)*"|'[^']*'|[^\s#:"'{}[\],&*!|>][^#:{}[\],]*?)\s*:(?=\s|$)/;

const bare = (key: string): string => key.replace(/^(["'])(.*)\1$/, "$2");

/** The place of an offset in the text; null inside comments and block texts. */
export function placeAt(text: string, offset: number): Place | null {
  const lines = text.slice(0, offset).split("\n");
  const last = lines.pop() ?? "";
  const levels: Level[] = [];
  let open: Flow | null = null;
  let blockText = -1; // the indent of what holds a text of several lines
  for (const line of lines) {
    if (open) {
      open.read(line);
      if (open.closed) open = null;
      continue;
    }
    const indent = indentOf(line);
    if (blockText >= 0 && (line.trim() === "" || indent > blockText)) continue;
    blockText = -1;
    const rest = descend(levels, line);
    if (rest === null) continue;
    if (/^[|>][+-]?\d*\s*(#.*)?$/.test(rest)) blockText = levels.at(-1)?.indent ?? indent;
    if (/^[{[]/.test(rest)) {
      open = new Flow(rest);
      if (open.closed) open = null;
    }
  }
  const start = offset - last.length;
  if (open) {
    open.read(last);
    return open.place(levels.map((l) => l.key), offset);
  }
  if (blockText >= 0 && indentOf(last) > blockText) return null;
  if (inComment(last)) return null;

  // The cursor's own line.
  let at = indentOf(last);
  let rest = last.slice(at);
  for (let dash = /^-(\s+|$)/.exec(rest); dash; dash = /^-(\s+|$)/.exec(rest)) {
    item(levels, at);
    at += dash[0].length;
    rest = last.slice(at);
  }
  const key = keyPattern.exec(rest);
  if (!key) {
    unwind(levels, at);
    const path = levels.map((l) => l.key);
    if (/^[{[]/.test(rest)) return new Flow(rest).place(path, offset);
    const quote = /^["']/.test(rest) ? 1 : 0;
    // Behind a dash it may be a value of the list as well as the first key of a mapping.
    return { path, kind: /^\s*-/.test(last) ? "either" : "key", from: start + at + quote, siblings: siblingsOf(text, start, at) };
  }
  unwind(levels, at);
  levels.push({ indent: at, key: bare(key[1] ?? "") });
  const path = levels.map((l) => l.key);
  const value = rest.slice(key[0].length);
  const begins = key[0].length + (value.length - value.trimStart().length);
  if (value === "") return null; // right behind the colon, where a space has to be first
  const written = rest.slice(begins);
  if (/^[{[]/.test(written)) return new Flow(written).place(path, offset);
  return { path, kind: "value", from: start + at + begins + (/^["']/.test(written) ? 1 : 0), siblings: [] };
}

const indentOf = (line: string): number => line.length - line.trimStart().length;

function inComment(line: string): boolean {
  return /(^|\s)#/.test(line.replace(/"(?:[^"\\]|\\.)*"?|'[^']*'?/g, (s) => "x".repeat(s.length)));
}

function unwind(levels: Level[], indent: number): void {
  while ((levels.at(-1)?.indent ?? -1) >= indent) levels.pop();
}

// item begins the next item of a list, which may stand as deep as the key that has it.
function item(levels: Level[], indent: number): void {
  let index = 0;
  for (let top = levels.at(-1); top && (top.indent > indent || (top.indent === indent && typeof top.key === "number")); top = levels.at(-1)) {
    if (top.indent === indent) index = (top.key as number) + 1;
    levels.pop();
  }
  levels.push({ indent, key: index });
}

// descend takes a whole line into account, and returns what stands behind its key.
function descend(levels: Level[], line: string): string | null {
  let at = indentOf(line);
  let rest = line.slice(at);
  if (rest === "" || rest.startsWith("#")) return null;
  for (let dash = /^-(\s+|$)/.exec(rest); dash; dash = /^-(\s+|$)/.exec(rest)) {
    item(levels, at);
    at += dash[0].length;
    rest = line.slice(at);
  }
  const key = keyPattern.exec(rest);
  if (!key) return rest;
  unwind(levels, at);
  levels.push({ indent: at, key: bare(key[1] ?? "") });
  return rest.slice(key[0].length).trimStart();
}

// siblingsOf are the other keys of the mapping, before and behind the line.
function siblingsOf(text: string, start: number, indent: number): string[] {
  const found: string[] = [];
  const [own = "", ...after] = text.slice(start).split("\n");
  const look = (lines: string[]): void => {
    for (const line of lines) {
      if (line.trim() === "" || line.trimStart().startsWith("#")) continue;
      const lead = /^\s*(?:-\s+)*/.exec(line)?.[0].length ?? 0;
      const key = lead === indent ? keyPattern.exec(line.slice(lead)) : null;
      const begins = indentOf(line) < indent; // of another item, or of what is around
      if (key && (!begins || lines !== after)) found.push(bare(key[1] ?? ""));
      if (begins) return;
    }
  };
  if (indentOf(own) >= indent) look(text.slice(0, start).split("\n").reverse());
  look(after);
  return found;
}

/** What is written in braces and brackets, over any number of lines. */
class Flow {
  #stack: { kind: "{" | "["; key: string; index: number; value: boolean; keys: string[] }[] = [];
  #word = "";
  #quote = "";
  #before = "";

  constructor(text: string) {
    this.read(text, true);
  }

  get closed(): boolean {
    return this.#stack.length === 0;
  }

  read(text: string, first = false): void {
    if (!first) this.#word = "";
    for (const c of text) {
      const top = this.#stack.at(-1);
      if (this.#quote) {
        if (c === this.#quote) this.#quote = "";
        else this.#word += c;
      } else if (c === '"' || c === "'") {
        this.#quote = c;
      } else if (c === "#" && /\s|^$/.test(this.#before)) {
        break;
      } else if (c === "{" || c === "[") {
        this.#stack.push({ kind: c, key: "", index: 0, value: false, keys: [] });
        this.#word = "";
      } else if (c === "}" || c === "]") {
        this.#stack.pop();
        this.#word = "";
        if (this.closed) return;
      } else if (c === "," && top) {
        top.index++;
        top.value = false;
        this.#word = "";
      } else if (c === " " && top?.kind === "{" && !top.value && this.#before === ":") {
        top.key = this.#word.replace(/:$/, "").trim();
        top.keys.push(top.key);
        top.value = true;
        this.#word = "";
      } else {
        this.#word += c;
      }
      this.#before = c;
    }
  }

  place(base: (string | number)[], offset: number): Place | null {
    const top = this.#stack.at(-1);
    if (!top) return null;
    const path = [...base];
    for (const level of this.#stack.slice(0, -1)) path.push(level.kind === "{" ? level.key : level.index);
    const from = offset - this.#word.trimStart().length;
    if (top.kind === "[") return { path: [...path, top.index], kind: "value", from, siblings: [] };
    if (top.value) return { path: [...path, top.key], kind: "value", from, siblings: [] };
    return { path, kind: "key", from, siblings: top.keys };
  }
}

/** The keys of a mapping at the top of the document: the names of policies, of upstreams. */
export function namesUnder(text: string, field: string): string[] {
  const names: string[] = [];
  let inside = false;
  let depth = -1;
  for (const line of text.split("\n")) {
    if (line.trim() === "" || line.trimStart().startsWith("#")) continue;
    const indent = indentOf(line);
    if (indent === 0) {
      inside = line.startsWith(field + ":");
      depth = -1;
      const flow = inside ? /^[^{]*\{(.*)/.exec(line)?.[1] : undefined;
      if (flow) for (const m of flow.replace(/\{[^}]*\}/g, "").matchAll(/([\w-]+)\s*:/g)) names.push(m[1] ?? "");
      continue;
    }
    if (!inside) continue;
    if (depth < 0) depth = indent;
    const key = indent === depth ? keyPattern.exec(line.trimStart()) : null;
    if (key) names.push(bare(key[1] ?? ""));
  }
  return names;
}
