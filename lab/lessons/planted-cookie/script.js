// site is the name that the blog and the API have in common.
function site(lab) {
  const api = new URL(lab.origins.api).hostname;
  const labels = location.hostname.split(".");
  while (labels.length > 1 && !("." + api).endsWith("." + labels.join("."))) labels.shift();
  return labels.join(".");
}

// plant sets a session for the whole site, asks what the API sees of it, and takes it away.
export async function plant(lab) {
  const attributes = `Domain=${site(lab)}; Path=/cookies`;
  document.cookie = `session=mallory; ${attributes}`;
  lab.say(`document.cookie = "session=mallory; ${attributes}"`);
  try {
    const answer = await fetch(lab.origins[lab.target] + "/cookies", { credentials: "include" });
    const { cookies } = await answer.json();
    const saw = cookies ? cookies.map((c) => `${c.name}=${c.value.slice(0, 7)}`).join("; ") : `status ${answer.status}`;
    lab.say(`what came at the API, in order: ${saw || "no cookie"}`);
    return { readable: true, saw };
  } catch (e) {
    lab.say(`the answer could not be read: ${e.message}`);
    return { readable: false, saw: e.message };
  } finally {
    document.cookie = `session=; ${attributes}; Max-Age=0`;
  }
}

// plantPrefixed tries the same with a name that only the host itself may set.
export async function plantPrefixed(lab) {
  document.cookie = `__Host-session=mallory; Domain=${site(lab)}; Path=/; Secure`;
  const kept = document.cookie.includes("__Host-session=");
  lab.say(kept ? "the browser has kept it" : "the browser has not kept it");
  return { readable: kept, saw: document.cookie || "an empty text" };
}
