// describeCookie sets a cookie from script, and tells what the browser keeps of it.
export async function describeCookie(lab) {
  document.cookie = "lab-port=1; Path=/; SameSite=Lax";
  const kept = await globalThis.cookieStore?.get("lab-port");
  const fields = kept ? Object.entries(Object.getPrototypeOf(kept) === Object.prototype ? kept : kept.toJSON?.() ?? kept) : [];
  document.cookie = "lab-port=; Path=/; Max-Age=0";
  for (const [name, value] of fields) lab.say(`${name}: ${value}`);
  if (!kept) lab.say("This browser has no Cookie Store API; document.cookie only tells names and values.");
  return { readable: true, saw: kept ? fields.map(([name]) => name).join(", ") + ": no port" : "names and values: no port" };
}
