// Elements from data. Text becomes text and never markup: nothing here parses HTML.

const properties = new Set(["value", "checked", "selected", "open", "disabled", "hidden", "tabIndex"]);

/** Makes an element: h("a", {href, class: "x"}, "text", element, …). */
export function h(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") e.addEventListener(name, value);
    else if (properties.has(name)) e[name] = value;
    else e.setAttribute(name, value === true ? "" : String(value));
  }
  e.append(...children.flat().filter((c) => c !== undefined && c !== null && c !== false));
  return e;
}

/** A link out, if it is one: whoever made the data may not choose a scheme. */
export function out(href, ...children) {
  if (typeof href !== "string" || !href.startsWith("https://")) return h("span", {}, ...children);
  return h("a", { href, target: "_blank", rel: "noreferrer" }, ...children);
}

let ids = 0;
/** An id for a label and what it labels. */
export const newID = () => `m${++ids}`;
