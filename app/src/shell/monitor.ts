/**
 * The connection monitor: looks every 2 s at least, and at once when the page
 * is shown, the network changes or time jumped. It believes no state: whatever
 * it notices makes the tunnels ping.
 */

/** Time between looks. */
export const LOOK_EVERY_MS = 2_000;

/** A look that comes this much later than due means that the phone slept. */
const JUMP_MS = 3_000;

/**
 * A network is said to be there once it has an address; the way out may come a moment after it, and
 * what was tried in between failed at once. So it is looked at twice more, this much later.
 */
const AFTER_ONLINE_MS = [150, 500];

/** After the page was hidden it counts as looked at for this long: people switch back and forth. */
const LINGER_MS = 30_000;

/** Hidden for longer, nothing is sent any more: the farm keeps what was open for as long. */
export const SUSPEND_AFTER_MS = 300_000;

/** What the owner is told. */
export interface Listener {
  /** Pings must show now whether anything works. */
  probe(why: string): void;
  /** The browser says that the phone's network went, came, or is another one. */
  network(change: 'up' | 'down' | 'changed'): void;
  /** Whether somebody looks. */
  attention(watched: boolean): void;
  /** Nobody has looked for long: stop, or go on. */
  suspend(suspended: boolean): void;
  /** The page was just hidden, and may never be shown again. */
  hidden(): void;
  /** Each look. */
  look(): void;
}

/** Watches the page until it is gone. */
export class Monitor {
  private lookedAt = Date.now();
  private hiddenAt: number | null = null;
  private watched = true;
  private suspended = false;

  constructor(private readonly listener: Listener) {
    if (document.visibilityState === 'hidden') this.hiddenAt = Date.now();
    setInterval(() => this.look(), LOOK_EVERY_MS);
    document.addEventListener('visibilitychange', () => this.visibility());
    addEventListener('pageshow', event => {
      if (event.persisted) this.shown('pageshow');
    });
    addEventListener('focus', () => this.look());
    addEventListener('online', () => {
      listener.network('up');
      for (const wait of AFTER_ONLINE_MS) setTimeout(() => listener.probe('online'), wait);
    });
    addEventListener('offline', () => listener.network('down'));
    const { connection } = navigator as Navigator & { connection?: EventTarget };
    connection?.addEventListener('change', () => this.connectionChanged());
  }

  private kind = this.connectionKind();

  private connectionKind(): string {
    return (navigator as Navigator & { connection?: { type?: string } }).connection?.type ?? '';
  }

  /** Only another kind of network is another network: estimates of speed change all the time. */
  private connectionChanged(): void {
    const kind = this.connectionKind();
    if (kind === this.kind) return this.listener.probe('connection');
    this.kind = kind;
    this.listener.network('changed');
  }

  private visibility(): void {
    if (document.visibilityState === 'visible') this.shown('visibilitychange');
    else {
      this.hiddenAt = Date.now();
      this.listener.hidden();
    }
  }

  private shown(why: string): void {
    this.hiddenAt = null;
    if (this.suspended) {
      this.suspended = false;
      this.listener.suspend(false);
    }
    this.setWatched(true);
    this.listener.probe(why);
    this.look();
  }

  private setWatched(watched: boolean): void {
    if (this.watched === watched) return;
    this.watched = watched;
    this.listener.attention(watched);
  }

  private look(): void {
    const at = Date.now();
    const late = at - this.lookedAt - LOOK_EVERY_MS;
    this.lookedAt = at;
    // Hidden pages are looked at rarely by the browser's own doing.
    if (late > JUMP_MS && this.hiddenAt === null) this.listener.probe('time jump');
    // The clock went back: as good as a jump.
    if (late < -LOOK_EVERY_MS - JUMP_MS) this.listener.probe('time jump');
    const hiddenFor = this.hiddenAt === null ? 0 : at - this.hiddenAt;
    if (hiddenFor > LINGER_MS) this.setWatched(false);
    if (hiddenFor > SUSPEND_AFTER_MS && !this.suspended) {
      this.suspended = true;
      this.listener.suspend(true);
    }
    this.listener.look();
  }
}
