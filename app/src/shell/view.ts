/** One service of a farm, shown: the bridge, the visible frame, and what they ask for. */

import { CookieJar } from '../http/cookies';
import type { Ask, FromView } from '../view/protocol';
import { type Around, exchange } from './exchange';
import type { FarmView } from './farm';
import { report } from './log';
import { socket } from './page-socket';

/** What may be shown while a page is opened. */
export type ViewState = 'waiting' | 'opening' | 'loading' | 'shown' | 'failed' | 'nowhere';

/** How long the bridge has to report. */
const READY_WITHIN_MS = 15_000;

/** Most requests of one service at once: streams of a session are fewer still. */
const MAX_AT_ONCE = 200;

/** What a farm's page may do in its frame: everything but move the app itself. */
const SANDBOX =
  'allow-same-origin allow-scripts allow-forms allow-modals allow-downloads allow-pointer-lock allow-popups';

/** Cookies of services, until the app is closed. */
const jars = new Map<string, CookieJar>();

/** Where farm pages are shown, as the broker that serves the app says; `null` for nowhere. */
async function origin(farm: string, service: string): Promise<string | null> {
  const answer = await fetch('/app.json');
  const { views } = (await answer.json()) as { views?: unknown };
  if (typeof views !== 'string' || !/^https?:\/\/\*\./.test(views)) return null;
  return new URL(views.replace('*', `${service}--${farm}`)).origin;
}

export class View {
  private bridge: HTMLIFrameElement | null = null;
  private frame: HTMLIFrameElement | null = null;
  private origin = '';
  private over = false;
  private readonly open = new Set<() => void>();
  private readonly waiting: (() => void)[] = [];
  private readonly jar: CookieJar;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly farm: FarmView,
    private readonly service: string,
    private readonly place: HTMLElement,
    private readonly tell: (state: ViewState) => void,
  ) {
    const name = `${farm.record.id}/${service}`;
    this.jar = jars.get(name) ?? new CookieJar();
    jars.set(name, this.jar);
    addEventListener('message', this.onMessage);
    document.addEventListener('visibilitychange', this.onVisibility);
    void this.begin();
  }

  /** Loads the page again, bridge and all. */
  reload(): void {
    this.frame?.remove();
    this.frame = null;
    void this.begin();
  }

  /** Ends everything that the page has open. */
  close(): void {
    this.over = true;
    clearTimeout(this.timer);
    removeEventListener('message', this.onMessage);
    document.removeEventListener('visibilitychange', this.onVisibility);
    this.bridge?.remove();
    this.frame?.remove();
    for (const end of this.open) end();
  }

  private async begin(): Promise<void> {
    this.tell('opening');
    try {
      const found = await origin(this.farm.record.id, this.service);
      if (this.over) return;
      if (!found) return this.tell('nowhere');
      this.origin = found;
      this.build();
    } catch (error) {
      report('view', String(error));
      if (!this.over) this.tell('failed');
    }
  }

  private build(): void {
    this.bridge?.remove();
    this.bridge = document.createElement('iframe');
    this.bridge.className = 'bridge';
    this.bridge.src = `${this.origin}/__view/bridge`;
    this.place.append(this.bridge);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tell('failed'), READY_WITHIN_MS);
  }

  private readonly onMessage = (event: MessageEvent<FromView>): void => {
    if (event.origin !== this.origin || this.over) return;
    const kind = event.data?.farmView;
    if (event.source === this.bridge?.contentWindow) {
      if (kind === 'port' && event.ports[0]) this.serve(event.ports[0]);
      else if (kind === 'ready') this.show();
      else if (kind === 'failed') this.tell('failed');
    } else if (event.source === this.frame?.contentWindow && kind === 'boot') {
      // The worker was not in charge: set it up again, then let the page try again.
      report('view', 'worker was gone');
      this.build();
    }
  };

  /** The worker is one for all tabs: whoever is looked at serves it. */
  private readonly onVisibility = (): void => {
    if (document.visibilityState === 'visible')
      this.bridge?.contentWindow?.postMessage({ farmView: 'again' }, this.origin);
  };

  private show(): void {
    clearTimeout(this.timer);
    if (this.frame) {
      this.frame.contentWindow?.postMessage({ farmView: 'go' }, this.origin);
      this.tell('shown');
    } else {
      this.frame = document.createElement('iframe');
      this.frame.title = this.service;
      this.frame.setAttribute('sandbox', SANDBOX);
      this.frame.allow = 'fullscreen; clipboard-write';
      this.frame.src = `${this.origin}/`;
      // Each page of it, with all that it needs.
      this.frame.addEventListener('load', () => this.tell('shown'));
      this.place.append(this.frame);
      this.tell('loading');
    }
  }

  private serve(port: MessagePort): void {
    const around: Around = {
      open: () => this.farm.open(this.service),
      origin: this.origin,
      jar: this.jar,
    };
    port.onmessage = (event: MessageEvent<Ask>) => {
      const ask = event.data;
      const [line] = event.ports;
      if (this.over) return;
      if (ask.kind === 'cookie') this.jar.set(ask.text, ask.path, true, Date.now());
      else if (!line) return;
      else if (ask.kind === 'cookies') line.postMessage(this.jar.header(ask.path, true, Date.now()) ?? '');
      else if (ask.kind === 'request') void this.counted(end => exchange(around, ask, line, end));
      else void this.counted(end => socket(around, ask, line, end));
    };
  }

  /** Runs a conversation, a bounded number at once; the rest waits its turn. */
  private async counted(run: (end: (abort: () => void) => void) => Promise<void>): Promise<void> {
    if (this.open.size >= MAX_AT_ONCE) await new Promise<void>(resolve => this.waiting.push(resolve));
    if (this.over) return;
    let abort: (() => void) | null = null;
    const end = () => abort?.();
    this.open.add(end);
    try {
      await run(given => {
        abort = given;
      });
    } finally {
      this.open.delete(end);
      this.waiting.shift()?.();
    }
  }
}
