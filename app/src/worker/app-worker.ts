/**
 * The app's own service worker: keeps the whole app, so that it opens without
 * a network. All files of a version come from one cache; a new version waits
 * until the person takes it or the last tab is closed.
 */

import { fresh } from './fresh';

declare const self: ServiceWorkerGlobalScope;
/** Every file of this version, and a name that changes with any of them. */
declare const __FILES__: readonly string[];
declare const __BUILD__: string;

const CACHE = `farm-tunnel-${__BUILD__}`;

/** Where farm pages are shown: from the network where there is one, since the operator may change it. */
const SETTINGS = '/app.json';

/** The broker's health page; and where a network that wants a login shows its own. */
const HEALTH = '/healthz';

self.addEventListener('install', event => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then(cache =>
        cache.addAll([SETTINGS, ...__FILES__].map(url => new Request(url, { cache: 'no-cache' }))),
      ),
  );
});

self.addEventListener('activate', event => {
  const old = caches
    .keys()
    .then(names => names.filter(name => name.startsWith('farm-tunnel-') && name !== CACHE));
  event.waitUntil(
    old.then(names => Promise.all(names.map(name => caches.delete(name)))).then(() => self.clients.claim()),
  );
});

self.addEventListener('message', event => {
  if (event.data === 'use') void self.skipWaiting();
});

self.addEventListener('fetch', event => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== location.origin) return;
  // Who answers there now is the question.
  if (url.pathname === HEALTH) return;
  if (url.pathname === SETTINGS)
    event.respondWith(caches.open(CACHE).then(cache => fresh(cache, request, SETTINGS)));
  else event.respondWith(kept(request, url));
});

async function kept(request: Request, url: URL): Promise<Response> {
  const cache = await caches.open(CACHE);
  const path = request.mode === 'navigate' ? '/' : url.pathname;
  return (await cache.match(path)) ?? fetch(request);
}
