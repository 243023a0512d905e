/**
 * The service worker of one service's origin: every request of the farm's
 * pages goes to the app, over the bridge's channel, and so through the tunnel.
 * Requests to other hosts are the page's own business and are left alone.
 */

import { fresh } from '../worker/fresh';
import { injector } from './injector';
import type { FromWorker, ToWorker } from './protocol';
import { WINDOW } from './protocol';

declare const self: ServiceWorkerGlobalScope;
/** The shim's text. */
declare const __SHIM__: string;

/** How long the bridge has to give a channel; an app in the background may be slow. */
const PORT_WITHIN_MS = 10_000;

/** A media player's request for "the rest" is answered in pieces of this size, whole: streamed ones are fragile. */
const MEDIA_PIECE = 2 * 1024 * 1024;

/** Paths of a view's own files. */
const PREFIX = '/__view/';

/** The bridge, kept for when the broker is away: the tunnel does not need it, nor should an open farm. */
const KEPT = [`${PREFIX}bridge`, `${PREFIX}bridge.js`];
const CACHE = 'farm-view';

let port: MessagePort | null = null;
let bridge: string | null = null;
const waiting: ((port: MessagePort) => void)[] = [];

self.addEventListener('install', event => {
  const kept = caches
    .open(CACHE)
    .then(cache => cache.addAll(KEPT.map(url => new Request(url, { cache: 'no-cache' }))));
  event.waitUntil(kept.then(() => self.skipWaiting()));
});
self.addEventListener('activate', event => event.waitUntil(self.clients.claim()));

self.addEventListener('message', event => {
  const { source, data, ports } = event;
  if (!(source instanceof WindowClient) && !(source instanceof Client)) return;
  if (data?.kind === 'port' && new URL(source.url).pathname === `${PREFIX}bridge` && ports[0]) {
    const [given] = ports;
    port = given;
    bridge = source.id;
    // Its tab was closed.
    given.addEventListener('close', () => {
      if (port === given) port = null;
    });
    given.start();
    for (const resolve of waiting.splice(0)) resolve(port);
  } else if (data?.kind === 'socket' || data?.kind === 'cookie') {
    event.waitUntil(appPort().then(app => app.postMessage(data, [...ports])));
  }
});

/** The channel to the app. */
async function appPort(): Promise<MessagePort> {
  if (port && bridge !== null && (await self.clients.get(bridge))) return port;
  port = null;
  const given = new Promise<MessagePort>((resolve, reject) => {
    waiting.push(resolve);
    setTimeout(() => reject(new Error('the app did not answer')), PORT_WITHIN_MS);
  });
  const clients = await self.clients.matchAll({ includeUncontrolled: true, type: 'window' });
  for (const client of clients) {
    if (new URL(client.url).pathname === `${PREFIX}bridge`) client.postMessage({ kind: 'need_port' });
  }
  return given;
}

self.addEventListener('fetch', event => {
  const url = new URL(event.request.url);
  if (url.origin !== location.origin) return;
  if (url.pathname === `${PREFIX}shim.js`) event.respondWith(shim(event.request));
  else if (url.pathname === `${PREFIX}download`) event.respondWith(failing(download(url)));
  else if (KEPT.includes(url.pathname))
    event.respondWith(caches.open(CACHE).then(cache => fresh(cache, event.request, url.pathname)));
  else if (!url.pathname.startsWith(PREFIX))
    event.respondWith(failing(through(event.request, event.clientId)));
});

function failing(answer: Promise<Response>): Promise<Response> {
  return answer.catch(error => {
    const fields = { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' };
    return new Response(`Farm Tunnel: ${error instanceof Error ? error.message : error}\n`, {
      status: 502,
      headers: fields,
    });
  });
}

/** A link with `download` bypasses workers; the shim brings it here instead. */
async function download(url: URL): Promise<Response> {
  const wanted = url.searchParams.get('url') ?? '/';
  const name = url.searchParams.get('name') || wanted.split(/[?#]/)[0]?.split('/').pop() || 'download';
  const answer = await through(new Request(new URL(wanted, location.origin)), '');
  const headers = new Headers(answer.headers);
  headers.set('content-disposition', `attachment; filename*=UTF-8''${encodeURIComponent(name)}`);
  return new Response(answer.body, { status: answer.status, headers });
}

/** The shim, with the cookies that the page may see. */
async function shim(request: Request): Promise<Response> {
  const app = await appPort();
  const { port1, port2 } = new MessageChannel();
  const path = request.referrer.startsWith(location.origin)
    ? request.referrer.slice(location.origin.length)
    : '/';
  const cookies = new Promise<string>(resolve => {
    port1.onmessage = event => resolve(String(event.data));
  });
  app.postMessage({ kind: 'cookies', path }, [port2]);
  const text = `self.__farmCookies=${JSON.stringify(await cookies).replaceAll('<', '\\u003c')};\n${__SHIM__}`;
  return new Response(text, {
    headers: { 'content-type': 'text/javascript; charset=utf-8', 'cache-control': 'no-store' },
  });
}

/** A media player asks for all the rest: ask for a piece of it. */
function fieldsOf(request: Request): { fields: [string, string][]; piece: boolean } {
  const fields = [...request.headers] as [string, string][];
  const media = request.destination === 'video' || request.destination === 'audio';
  const range = fields.find(([name]) => name === 'range');
  const rest = range && /^bytes=(\d+)-$/.exec(range[1]);
  if (!media || !range || !rest) return { fields, piece: false };
  range[1] = `bytes=${rest[1]}-${Number(rest[1]) + MEDIA_PIECE - 1}`;
  return { fields, piece: true };
}

/** The tab that carried a conversation is gone, and nothing had come of it yet. */
class TabGone extends Error {}

/** Asks the app. What changes nothing at the service is asked again where a tab went with it. */
async function ask(request: Request, fields: [string, string][]): Promise<Conversation> {
  const hasBody = request.method !== 'GET' && request.method !== 'HEAD';
  const { pathname, search } = new URL(request.url);
  for (;;) {
    const app = await appPort();
    const { port1: line, port2 } = new MessageChannel();
    const answer = conversation(request, line, hasBody);
    app.postMessage(
      {
        kind: 'request',
        method: request.method,
        path: pathname + search,
        fields,
        referrer: request.referrer,
        withOrigin: hasBody || (request.mode === 'cors' && request.destination === ''),
        hasBody,
      },
      [port2],
    );
    try {
      return await answer;
    } catch (error) {
      if (hasBody || !(error instanceof TabGone)) throw error;
      if (port === app) port = null;
    }
  }
}

async function through(request: Request, clientId: string): Promise<Response> {
  const { fields, piece } = fieldsOf(request);
  const { head, body } = await ask(request, fields);
  const headers = new Headers();
  for (const [name, value] of head.fields) headers.append(name, value);
  const empty = [204, 205, 304].includes(head.status) || request.method === 'HEAD';
  const packed = (headers.get('content-encoding') ?? '').toLowerCase();
  let content: ReadableStream<Uint8Array> | null = empty ? null : body;
  if (content && (packed === 'gzip' || packed === 'deflate')) {
    content = content.pipeThrough(
      new DecompressionStream(packed) as unknown as TransformStream<Uint8Array, Uint8Array>,
    );
    headers.delete('content-encoding');
    headers.delete('content-length');
  }
  const type = headers.get('content-type') ?? '';
  const nonce = head.nonce === null ? '' : ` nonce="${head.nonce}"`;
  const isPage = ['document', 'iframe', 'frame', 'embed', 'object'].includes(request.destination);
  if (content && isPage && /^\s*(text\/html|application\/xhtml\+xml)/i.test(type)) {
    content = content.pipeThrough(injector(type, `<script src="${PREFIX}shim.js"${nonce}></script>`));
    headers.delete('content-length');
  } else if (content && (request.destination === 'worker' || request.destination === 'sharedworker')) {
    const text = await (await shim(request)).text();
    content = content.pipeThrough(before(new TextEncoder().encode(`${text}\n;`)));
    headers.delete('content-length');
  }
  void clientId;
  if (piece && content) return new Response(await new Response(content).arrayBuffer(), { ...head, headers });
  return new Response(content, { status: head.status, statusText: head.statusText, headers });
}

function before(bytes: Uint8Array): TransformStream<Uint8Array, Uint8Array> {
  return new TransformStream({ start: controller => controller.enqueue(bytes) });
}

type Head = Extract<ToWorker, { kind: 'head' }>;
type Conversation = { head: Head; body: ReadableStream<Uint8Array> };

/** One request's conversation with the app: its body goes, the head and the body come. */
function conversation(request: Request, line: MessagePort, hasBody: boolean): Promise<Conversation> {
  const say = (message: FromWorker, transfer: Transferable[] = []) => line.postMessage(message, transfer);
  const given = hasBody ? reader(request) : null;
  return new Promise((resolve, reject) => {
    let controller: ReadableStreamDefaultController<Uint8Array>;
    let over = false;
    let isEvents = false;
    let promised = 0;
    const end = () => {
      over = true;
      line.close();
    };
    const credit = () => {
      const room = (controller.desiredSize ?? 0) - promised;
      if (over || room < WINDOW / 4) return;
      promised += room;
      say({ kind: 'credit', bytes: room });
    };
    const body = new ReadableStream<Uint8Array>(
      {
        start: given => {
          controller = given;
        },
        pull: credit,
        cancel: () => {
          say({ kind: 'cancel' });
          end();
        },
      },
      new ByteLengthQueuingStrategy({ highWaterMark: WINDOW }),
    );
    const fail = (why: string, error = new Error(why)) => {
      if (over) return;
      end();
      reject(error);
      // Events that broke off are asked for again by the browser; Chromium gives up on those that failed.
      if (isEvents) controller.close();
      else controller.error(new TypeError(why));
    };
    line.addEventListener('close', () => {
      const why = 'the tab that carried this is gone';
      fail(why, new TabGone(why));
    });
    request.signal.addEventListener('abort', () => {
      if (over) return;
      say({ kind: 'cancel' });
      fail('aborted');
    });
    line.onmessage = async (event: MessageEvent<ToWorker>) => {
      const message = event.data;
      if (over) return;
      switch (message.kind) {
        case 'head':
          isEvents = message.fields.some(
            ([name, value]) => name.toLowerCase() === 'content-type' && /^\s*text\/event-stream/i.test(value),
          );
          resolve({ head: message, body });
          break;
        case 'data':
          promised -= message.bytes.byteLength;
          controller.enqueue(new Uint8Array(message.bytes));
          credit();
          break;
        case 'end':
          end();
          controller.close();
          break;
        case 'more': {
          const bytes = await given?.().catch(() => null);
          say({ kind: 'body', bytes: bytes ?? null }, bytes ? [bytes] : []);
          break;
        }
        case 'failed':
          fail(message.why);
          break;
      }
    };
  });
}

/** Reads a request's body piece by piece, where the browser can; else at once. */
function reader(request: Request): () => Promise<ArrayBuffer | null> {
  const stream = request.body?.getReader();
  if (stream) {
    return async () => {
      const { done, value } = await stream.read();
      return done ? null : value.slice().buffer;
    };
  }
  let whole: Promise<ArrayBuffer> | null = request.arrayBuffer();
  return async () => {
    const bytes = await whole;
    whole = null;
    return bytes && bytes.byteLength > 0 ? bytes : null;
  };
}
