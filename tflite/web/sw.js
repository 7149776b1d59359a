// From the network when there is one, so that nothing is ever stale; from
// what was kept when there is none.

const CACHE = "keras-mobilevit";
// What the page has loaded before this script could see it.
const PAGE = [
  "./",
  "style.css",
  "js/app.js",
  "js/classifier.js",
  "js/flatbuffer.js",
  "js/offline.js",
  "js/picture.js",
  "js/problem.js",
  "js/resize.js",
  "js/runtime.js",
  "js/tensors.js",
  "js/zip.js",
];

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(PAGE)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(self.clients.claim());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const isOurs = new URL(request.url).origin === self.location.origin;
  if (isOurs && request.method === "GET") event.respondWith(answer(request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  let response;
  try {
    response = await fetch(request, { cache: "no-cache" });
    if (response.status === 200) await cache.put(request, response.clone());
  } catch (error) {
    response = await cache.match(request);
    if (!response) throw error;
  }
  return isolated(response);
}

/** The headers that threads need, which plain servers do not send. */
function isolated(response) {
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}
