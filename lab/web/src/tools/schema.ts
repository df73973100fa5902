// What the JSON Schema of moat.yaml has to offer at a place in the file.
import { namesUnder, placeAt } from "./yamlpath";

/** The part of JSON Schema that moat's uses. */
export interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  description?: string;
  properties?: Record<string, Schema>;
  additionalProperties?: boolean | Schema;
  required?: string[];
  items?: Schema;
}

export interface Offer {
  label: string;
  /** What is put in. */
  apply: string;
  detail?: string;
  info?: string;
  required?: boolean;
}

export interface Offers {
  from: number;
  offers: Offer[];
}

// alternatives are all that a schema may be, without references.
function alternatives(schema: Schema | undefined, root: Schema, depth = 0): Schema[] {
  if (!schema || depth > 10) return [];
  if (schema.$ref) {
    const name = schema.$ref.replace(/^#\/\$defs\//, "");
    const more = alternatives(root.$defs?.[name], root, depth + 1);
    return schema.description ? more.map((m) => ({ ...m, description: schema.description })) : more;
  }
  const parts = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])];
  return [schema, ...parts.flatMap((p) => alternatives(p, root, depth + 1))];
}

/** The schemas that may hold at a path. */
export function schemasAt(root: Schema, path: (string | number)[]): Schema[] {
  let found = alternatives(root, root);
  for (const step of path) {
    found = found.flatMap((s) => {
      if (typeof step === "number") return alternatives(s.items, root);
      const own = s.properties && Object.hasOwn(s.properties, step) ? s.properties[step] : undefined;
      const more = typeof s.additionalProperties === "object" ? s.additionalProperties : undefined;
      return alternatives(own ?? more, root);
    });
  }
  return found;
}

/** Fields whose values are names that the file itself gives, and where. */
const named: Record<string, string> = { policy: "policies", upstream: "upstreams", rate_limits: "rate_limits", auth: "auth" };

/** What fits at an offset of the text. */
export function offersAt(text: string, offset: number, root: Schema): Offers | null {
  const place = placeAt(text, offset);
  if (!place) return null;
  const schemas = schemasAt(root, place.path);
  const offers = new Map<string, Offer>();
  const offer = (o: Offer): void => {
    if (!offers.has(o.label)) offers.set(o.label, o);
  };
  if (place.kind !== "value") {
    for (const s of schemas) {
      for (const [name, field] of Object.entries(s.properties ?? {})) {
        if (place.siblings.includes(name)) continue;
        const kinds = alternatives(field, root);
        const required = !!s.required?.includes(name);
        offer({ label: name, apply: `${name}: `, detail: [typeOf(kinds), required ? "required" : ""].filter(Boolean).join(", "), info: infoOf(field, kinds), required });
      }
    }
  }
  if (place.kind !== "key") {
    const field = place.path.findLast((step) => typeof step === "string");
    const map = typeof field === "string" && place.path.length > 1 ? named[field] : undefined;
    for (const name of map ? namesUnder(text, map) : []) offer({ label: name, apply: name, detail: `of ${map}` });
    for (const s of schemas) {
      const values = s.enum ?? (s.const !== undefined ? [s.const] : s.type === "boolean" ? [true, false] : []);
      for (const v of values) offer({ label: String(v), apply: String(v), detail: v === s.default ? "default" : undefined, info: s.description });
      if (s.default !== undefined && typeof s.default !== "object") offer({ label: String(s.default), apply: String(s.default), detail: "default", info: s.description });
    }
  }
  return offers.size ? { from: place.from, offers: [...offers.values()] } : null;
}

function typeOf(kinds: Schema[]): string {
  if (kinds.some((k) => k.enum)) return "one of a few";
  const types = new Set(kinds.flatMap((k) => k.type ?? []));
  if (types.has("array")) return "list";
  if (types.has("object")) return "fields";
  return [...types].join(" or ");
}

function infoOf(field: Schema, kinds: Schema[]): string {
  const text = field.description ?? kinds.find((k) => k.description)?.description ?? "";
  const usual = kinds.find((k) => k.default !== undefined && typeof k.default !== "object")?.default;
  return usual === undefined ? text : `${text}\nDefault: ${usual}`;
}
