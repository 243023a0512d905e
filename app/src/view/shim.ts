/**
 * Runs first in every farm page: gives it WebSockets and cookies, which a
 * service worker can't, and keeps it from replacing the worker.
 */

import type { FromSocket, ToSocket } from './protocol';

type Global = typeof globalThis & { __farmCookies?: string; __farmShim?: boolean };
const scope = globalThis as Global;

/** Tells the view's worker, which hands it on to the app. */
async function tellWorker(message: object, transfer: Transferable[] = []): Promise<void> {
  const registration = await navigator.serviceWorker.ready;
  (navigator.serviceWorker.controller ?? registration.active)?.postMessage(message, transfer);
}

const EVENTS = ['open', 'message', 'error', 'close'] as const;

/** A WebSocket whose bytes go through the tunnel. */
class TunnelSocket extends EventTarget {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSING = 2;
  static readonly CLOSED = 3;
  readonly CONNECTING = 0;
  readonly OPEN = 1;
  readonly CLOSING = 2;
  readonly CLOSED = 3;
  readonly url: string;
  readonly extensions = '';
  protocol = '';
  readyState = 0;
  bufferedAmount = 0;
  binaryType: BinaryType = 'blob';
  private readonly line: MessagePort;
  /** Blobs are read in turn, so that messages keep their order. */
  private sending: Promise<void> = Promise.resolve();

  constructor(url: string | URL, protocols: string | string[] = []) {
    super();
    const full = new URL(url, document.baseURI);
    if (full.protocol === 'http:') full.protocol = 'ws:';
    if (full.protocol === 'https:') full.protocol = 'wss:';
    if (full.protocol !== 'ws:' && full.protocol !== 'wss:')
      throw new DOMException('not a WebSocket URL', 'SyntaxError');
    this.url = full.href;
    const { port1, port2 } = new MessageChannel();
    this.line = port1;
    port1.onmessage = event => this.heard(event.data as ToSocket);
    // The tab that carried it is gone, and could not say so.
    port1.addEventListener('close', () =>
      this.heard({ kind: 'closed', code: 1006, reason: '', clean: false }),
    );
    if (full.host !== location.host) {
      // Only this service is behind the tunnel.
      queueMicrotask(() => this.heard({ kind: 'closed', code: 1006, reason: '', clean: false }));
      return;
    }
    const ask = { kind: 'socket', path: full.pathname + full.search, protocols: [protocols].flat() };
    void tellWorker(ask, [port2]);
  }

  send(data: string | ArrayBufferLike | ArrayBufferView | Blob): void {
    if (this.readyState === 0) throw new DOMException('still connecting', 'InvalidStateError');
    if (this.readyState !== 1) return;
    const size = typeof data === 'string' ? data.length : data instanceof Blob ? data.size : data.byteLength;
    this.bufferedAmount += size;
    const ready: Promise<string | ArrayBuffer> | string | ArrayBuffer =
      typeof data === 'string' ? data : data instanceof Blob ? data.arrayBuffer() : copy(data);
    this.sending = this.sending.then(async () => this.say({ kind: 'send', data: await ready }));
  }

  close(code = 1000, reason = ''): void {
    if (code !== 1000 && (code < 3000 || code > 4999))
      throw new DOMException('a bad code', 'InvalidAccessError');
    if (this.readyState > 1) return;
    this.readyState = 2;
    this.sending = this.sending.then(() => this.say({ kind: 'close', code, reason }));
  }

  private say(message: FromSocket): void {
    this.line.postMessage(message);
  }

  private heard(message: ToSocket): void {
    if (message.kind === 'open') {
      this.protocol = message.protocol;
      this.readyState = 1;
      this.dispatchEvent(new Event('open'));
    } else if (message.kind === 'sent') this.bufferedAmount -= message.bytes;
    else if (message.kind === 'message') {
      const blob = typeof message.data !== 'string' && this.binaryType === 'blob';
      const data = blob ? new Blob([message.data]) : message.data;
      this.dispatchEvent(new MessageEvent('message', { data, origin: new URL(this.url).origin }));
    } else if (this.readyState !== 3) {
      const failed = !message.clean && this.readyState !== 2;
      this.readyState = 3;
      if (failed) this.dispatchEvent(new Event('error'));
      const { code, reason, clean: wasClean } = message;
      this.dispatchEvent(new CloseEvent('close', { code, reason, wasClean }));
      this.line.close();
    }
  }
}

function copy(data: ArrayBufferLike | ArrayBufferView): ArrayBuffer {
  const bytes = ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
  return bytes.slice().buffer;
}

for (const name of EVENTS) {
  const handlers = new WeakMap<TunnelSocket, { given: unknown; listener: EventListener }>();
  Object.defineProperty(TunnelSocket.prototype, `on${name}`, {
    get(this: TunnelSocket) {
      return handlers.get(this)?.given ?? null;
    },
    set(this: TunnelSocket, given: unknown) {
      const former = handlers.get(this);
      if (former) this.removeEventListener(name, former.listener);
      handlers.delete(this);
      if (typeof given !== 'function') return;
      const listener = (event: Event) => given.call(this, event);
      handlers.set(this, { given, listener });
      this.addEventListener(name, listener);
    },
  });
}

/** `document.cookie` over the app's jar: what the page may see at its start, and what it sets itself. */
function cookies(): void {
  const jar = new Map<string, string>();
  const take = (pair: string) => {
    const equals = pair.indexOf('=');
    jar.set(equals < 0 ? '' : pair.slice(0, equals).trim(), pair.slice(equals + 1).trim());
  };
  for (const pair of (scope.__farmCookies ?? '').split('; ').filter(Boolean)) take(pair);
  Object.defineProperty(Document.prototype, 'cookie', {
    configurable: true,
    get: () => Array.from(jar, ([name, value]) => (name ? `${name}=${value}` : value)).join('; '),
    set(text: string) {
      const [pair = '', ...attributes] = String(text).split(';');
      take(pair);
      const gone = attributes.some(one => {
        const [key = '', value = ''] = one.split('=').map(part => part.trim());
        if (key.toLowerCase() === 'max-age') return Number(value) <= 0;
        return key.toLowerCase() === 'expires' && Date.parse(value) < Date.now();
      });
      if (gone) jar.delete(pair.split('=')[0]?.trim() ?? '');
      void tellWorker({ kind: 'cookie', text: String(text), path: location.pathname });
    },
  });
}

/** Links with `download` bypass service workers: they go through a frame that does not. */
function downloads(): void {
  addEventListener(
    'click',
    event => {
      const link = event.target instanceof Element ? event.target.closest('a[download]') : null;
      if (!(link instanceof HTMLAnchorElement) || event.defaultPrevented) return;
      const url = new URL(link.href);
      if (url.origin !== location.origin) return;
      event.preventDefault();
      const frame = document.createElement('iframe');
      frame.hidden = true;
      const query = new URLSearchParams({ url: url.pathname + url.search, name: link.download });
      frame.src = `/__view/download?${query}`;
      document.documentElement.append(frame);
      setTimeout(() => frame.remove(), 60_000);
    },
    false,
  );
}

function guard(): void {
  const refuse = () => Promise.reject(new DOMException('not available in a farm page', 'SecurityError'));
  ServiceWorkerContainer.prototype.register = refuse;
  ServiceWorkerRegistration.prototype.unregister = () => Promise.resolve(false);
}

if (!scope.__farmShim && typeof document !== 'undefined' && 'serviceWorker' in navigator) {
  scope.__farmShim = true;
  scope.WebSocket = TunnelSocket as unknown as typeof WebSocket;
  Object.defineProperty(TunnelSocket, 'name', { value: 'WebSocket' });
  cookies();
  downloads();
  guard();
}
