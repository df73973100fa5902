// readCookie looks for the session where a page's script can look.
export async function readCookie(lab) {
  const shown = document.cookie.split("; ").find((c) => c.startsWith("session="));
  lab.say(shown ? "document.cookie has the session" : "document.cookie has no session");
  return { readable: Boolean(shown), saw: shown ? "session=" + shown.slice(8, 12) + "…" : document.cookie || "an empty text" };
}
