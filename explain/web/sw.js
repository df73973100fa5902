// Keeps the page for offline use. build.sh writes the list of files and, as the version,
// a hash of them: a new version is a new cache, and takes over when the old one's last
// tab is closed, so that no tab mixes files of two versions.

const version = "VERSION";
const files = ["FILES"];
const mine = "moat-explain-";
const cacheName = mine + version;

self.addEventListener("install", (event) => {
  event.waitUntil((async () => {
    const cache = await caches.open(cacheName);
    await cache.addAll(files.map((f) => new Request(new URL(f, self.registration.scope), { cache: "no-cache" })));
  })());
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(mine) && name !== cacheName) await caches.delete(name);
    }
    await self.clients.claim();
  })());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin || !url.href.startsWith(self.registration.scope)) return;
  event.respondWith((async () => {
    const cache = await caches.open(cacheName);
    const kept = await cache.match(request.mode === "navigate" ? self.registration.scope : request, { ignoreSearch: true });
    return kept ?? fetch(request);
  })());
});
