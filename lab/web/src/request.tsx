// A run's requests as the code that makes them, and what the API's CORS rules answer.
import { Copy } from "./copy";
import type { PageRequest, Rule, Run } from "./lab";
import { Fields } from "./lanes";

export function RequestCode({ run, script }: { run: Run; script?: string }) {
  const code = run.do ? functionOf(script ?? "", run.do) : (run.requests ?? []).map((r) => (run.from === "lab" ? curl(r) : codeOf(r))).join("\n\n");
  return (
    <figure class="code">
      <figcaption>
        {run.from === "lab" ? "In a terminal, with no browser" : run.sandboxed ? "The page does this in a sandboxed frame" : "The page does this"}
        <Copy text={code} />
      </figcaption>
      <pre tabIndex={0} aria-label="The request as code"><code>{code}</code></pre>
    </figure>
  );
}

export function AnswerRules({ rules }: { rules?: Rule[] | null }) {
  return (
    <figure class="rules">
      <figcaption>The API's CORS middleware answers</figcaption>
      {!rules?.length && <p class="none">no CORS headers at all</p>}
      {rules?.map((r, i) => (
        <div key={i} class="rule">
          <p>{whenOf(r)}</p>
          {r.status ? <p><code>status {r.status}</code></p> : null}
          <Fields headers={r.headers ?? []} />
        </div>
      ))}
    </figure>
  );
}

function whenOf(r: Rule): string {
  const what = r.on === "preflight" ? "to a preflight" : r.on === "actual" ? "to what is no preflight" : "to every request";
  const from = r.origin?.length ? ` from ${r.origin.join(" or ")}` : "";
  return what + from + (r.path ? ` for ${r.path}` : "");
}

// functionOf is the function's source in the lesson's script: from its line to the brace
// that stands where the line began.
function functionOf(script: string, name: string): string {
  const at = script.search(new RegExp(`^export (async )?function ${name}\\b`, "m"));
  if (at < 0) return script;
  const end = script.indexOf("\n}", at);
  return script.slice(at, end < 0 ? undefined : end + 2);
}

// q is the text as a literal, and JSON in single quotes, where it needs no backslashes.
const q = (text: string) => (/^[^'\\\n\r]*"[^'\\\n\r]*$/.test(text) ? `'${text}'` : JSON.stringify(text));

function bodyCode(r: PageRequest): string {
  const text = q(r.body?.text ?? "");
  switch (r.body?.kind) {
    case "urlencoded":
      return `new URLSearchParams(${text})`;
    case "form-data":
      return `formData(${text})`;
    case "blob":
      return r.body.type ? `new Blob([${text}], {type: ${q(r.body.type)}})` : `new Blob([${text}])`;
    case "buffer":
      return `new TextEncoder().encode(${text})`;
    case "stream":
      return `new Blob([${text}]).stream()`;
  }
  return text;
}

/** The request as code of a page. */
export function codeOf(r: PageRequest): string {
  const attribute = (name: string, value?: string) => (value ? ` ${name}="${value}"` : "");
  const extras = attribute("crossorigin", r.crossorigin) + attribute("referrerpolicy", r.referrer_policy);
  switch (r.api) {
    case "fetch": {
      const init: string[] = [];
      if (r.method) init.push(`method: ${q(r.method)}`);
      for (const key of ["mode", "credentials", "redirect", "cache"] as const) if (r[key]) init.push(`${key}: ${q(r[key])}`);
      if (r.referrer_policy) init.push(`referrerPolicy: ${q(r.referrer_policy)}`);
      if (r.headers?.length) init.push(`headers: {${r.headers.map(([n, v]) => `${q(n)}: ${q(v)}`).join(", ")}}`);
      if (r.body) init.push(`body: ${bodyCode(r)}`);
      return init.length ? `fetch(${q(r.url)}, {\n  ${init.join(",\n  ")},\n})` : `fetch(${q(r.url)})`;
    }
    case "xhr":
      return [
        "const x = new XMLHttpRequest()", `x.open(${q(r.method ?? "GET")}, ${q(r.url)})`,
        ...(r.with_credentials ? ["x.withCredentials = true"] : []),
        ...(r.headers ?? []).map(([n, v]) => `x.setRequestHeader(${q(n)}, ${q(v)})`),
        ...(r.upload_listener ? ["x.upload.onprogress = () => {}"] : []), `x.send(${r.body ? bodyCode(r) : ""})`,
      ].join("\n");
    case "form": {
      const enctype = { "form-data": "multipart/form-data", plain: "text/plain" }[r.body?.kind ?? ""];
      const plain = r.body?.kind === "plain";
      const text = r.body?.text ?? "";
      const at = text.indexOf("=");
      const pairs = plain ? [[at < 0 ? text : text.slice(0, at), at < 0 ? "" : text.slice(at + 1)] as const] : [...new URLSearchParams(text)];
      const quote = (v: string) => (v.includes('"') ? `'${v}'` : `"${v}"`);
      return [`<form method="${(r.method ?? "get").toLowerCase()}" action="${r.url}"${attribute("enctype", enctype)}>`,
        ...pairs.map(([n, v]) => `  <input type="hidden" name=${quote(n)} value=${quote(v)}>`), "</form>", "<script>document.forms[0].submit()</script>"].join("\n");
    }
    case "link":
      return `<a href="${r.url}">…</a>`;
    case "img":
    case "script":
    case "iframe":
      return `<${r.api} src="${r.url}"${extras}>${r.api === "img" ? "" : `</${r.api}>`}`;
    case "module":
      return `<script type="module" src="${r.url}"${extras}></script>`;
    case "stylesheet":
      return `<link rel="stylesheet" href="${r.url}"${extras}>`;
    case "font":
      return `@font-face { font-family: f; src: url("${r.url}") }`;
    case "eventsource":
      return `new EventSource(${q(r.url)}${r.with_credentials ? ", {withCredentials: true}" : ""})`;
    case "beacon":
      return `navigator.sendBeacon(${q(r.url)}${r.body ? ", " + bodyCode(r) : ""})`;
    case "ping":
      return `<a href="#" ping="${r.url}">…</a>`;
    case "websocket":
      return `const s = new WebSocket(${q(r.url)})` + (r.body?.text ? `\ns.onopen = () => s.send(${q(r.body.text)})` : "");
  }
  return `${r.api} ${r.url}`;
}

const sh = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The request as a line for a terminal. */
export function curl(r: PageRequest): string {
  const parts = ["curl", "-i"];
  if (r.method && r.method !== "GET") parts.push("-X", r.method);
  for (const [name, value] of r.headers ?? []) parts.push("-H", sh(`${name}: ${value}`));
  if (r.body) parts.push("--data-raw", sh(r.body.text ?? ""));
  return [...parts, sh(r.url)].join(" ");
}
