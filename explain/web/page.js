// The page around the component: the button for the link, and being there offline.

const shared = document.getElementById("shared");
document.getElementById("share").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    shared.textContent = "Copied. The link holds it all; no server keeps it.";
  } catch {
    shared.textContent = "The link is in the address bar.";
  }
});

const offline = document.getElementById("offline");

async function install() {
  if (!("serviceWorker" in navigator)) {
    offline.textContent = "This browser, or a page over plain http, cannot keep it for offline use.";
    return;
  }
  try {
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
    offline.textContent = "Ready offline: the page works from now on without a network.";
    document.documentElement.dataset.offline = "ready";
  } catch {
    offline.textContent = "It could not be kept for offline use.";
  }
}

// After the page is there, and what it shows first.
const later = () => (globalThis.requestIdleCallback ? requestIdleCallback(install, { timeout: 5000 }) : setTimeout(install, 2000));
if (document.readyState === "complete") later();
else addEventListener("load", later);
