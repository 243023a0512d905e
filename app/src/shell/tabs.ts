/**
 * The tabs of this browser: one leads and owns the connections, the others
 * follow it. Does what `leadership` decides, with a lock that the browser hands
 * on when a tab goes.
 */

import { Leadership } from '../core/leadership';
import { Alarm, now } from './clock';
import { report } from './log';
import { Follower, type Listener as FollowerListener } from './tabs/follower';
import { Lead, type Owner } from './tabs/lead';
import { type Attention, COMMON, LEAD_LOCK, ofTab, type ToAll } from './tabs/messages';

/** What the owner does and hears. */
export interface Listener extends Owner {
  /** This tab leads from now on. */
  lead(): Promise<void>;
  /** This tab follows from now on. */
  follow(): void;
  told: FollowerListener['farms'];
  /** Another tab changed the settings. */
  settings(settings: Extract<ToAll, { kind: 'settings' }>['settings']): void;
}

export class Tabs {
  private readonly name = crypto.randomUUID();
  private readonly common: BroadcastChannel | null;
  private readonly leadership: Leadership;
  private readonly alarm = new Alarm(() => {
    this.leadership.handleTimeout(now());
    this.act();
  });
  private current: { follower: Follower } | { lead: Lead | null } | null = null;
  /** How much this tab is looked at. */
  private own: Attention = { watched: true, suspended: false };
  /** What is under way: leading and following begin and end in turn. */
  private turn: Promise<void> = Promise.resolve();

  /** `shares` is whether there is anything to share: a key and farms that outlive a tab. */
  constructor(
    private readonly listener: Listener,
    shares: boolean,
  ) {
    const able = shares && navigator.locks !== undefined && 'BroadcastChannel' in globalThis;
    this.common = able ? new BroadcastChannel(COMMON) : null;
    const seed = crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n;
    this.leadership = new Leadership(document.visibilityState === 'visible', seed, now());
  }

  /** Returns when this tab leads or follows. */
  async begin(): Promise<void> {
    if (!this.common) {
      await this.listener.lead();
      this.current = { lead: null };
      return;
    }
    this.common.onmessage = event => this.heard(event.data as ToAll);
    document.addEventListener('visibilitychange', () => {
      this.handle({ kind: 'visible', visible: document.visibilityState === 'visible' });
    });
    // Held as long as this tab lives: whoever leads notices when it is gone.
    void navigator.locks.request(ofTab(this.name), () => new Promise(() => undefined));
    const free = await this.take({ ifAvailable: true });
    if (!free) {
      this.follow();
      void this.take({});
    }
    await this.turn;
    this.act();
  }

  /** Returns when no change between leading and following is under way. */
  settled(): Promise<void> {
    return this.turn;
  }

  /** The leading tab, seen from a tab that follows; `null` where this one leads. */
  get follower(): Follower | null {
    return this.current && 'follower' in this.current ? this.current.follower : null;
  }

  /** The tabs that follow this one. */
  get lead(): Lead | null {
    return this.current && 'lead' in this.current ? this.current.lead : null;
  }

  /** How much this tab is looked at. */
  attend(attention: Attention): void {
    this.own = attention;
    this.follower?.attend(attention);
  }

  /** How much any tab is looked at, as the leading one knows. */
  get attention(): Attention {
    const all = [this.own, ...(this.lead?.attention ?? [])];
    return { watched: all.some(one => one.watched), suspended: all.every(one => one.suspended) };
  }

  /** Tells the other tabs. */
  say(message: ToAll): void {
    this.common?.postMessage(message);
  }

  private handle(event: Parameters<Leadership['handle']>[0]): void {
    this.leadership.handle(event, now());
    this.act();
  }

  private act(): void {
    for (let action = this.leadership.pollAction(); action; action = this.leadership.pollAction()) {
      if (action === 'lead') this.inTurn(() => this.leads());
      else if (action === 'follow') this.inTurn(() => this.follow());
      else if (action === 'ask') this.ask();
      else {
        report('tabs', 'the leading tab does not answer: taking over');
        void this.take({ steal: true });
      }
    }
    this.alarm.set(this.leadership.pollTimeout()?.[0] ?? null);
  }

  private inTurn(work: () => Promise<void> | void): void {
    this.turn = this.turn.then(work).catch(error => report('tabs', String(error)));
  }

  private ask(): void {
    if (!this.follower) return;
    if (this.follower.isJoined) this.follower.ask();
    else this.say({ kind: 'join', tab: this.name, attention: this.own });
  }

  /** Whether the lock was to be had. Without options it waits, as long as it takes. */
  private take(options: LockOptions): Promise<boolean> {
    return new Promise(resolve => {
      navigator.locks
        .request(LEAD_LOCK, options, held => {
          resolve(held !== null);
          if (!held) return undefined;
          this.handle({ kind: 'granted' });
          // Held until this tab is gone, or another one takes it.
          return new Promise(() => undefined);
        })
        .catch(() => {
          resolve(false);
          this.handle({ kind: 'taken' });
          // In the queue again, for when that one is gone.
          void this.take({});
        });
    });
  }

  private async leads(): Promise<void> {
    if (!this.leadership.leads) return;
    report('tabs', 'this tab leads');
    const { follower } = this;
    this.current = { lead: null };
    follower?.close();
    await this.listener.lead();
    this.current = { lead: new Lead(this.listener) };
    this.say({ kind: 'leads' });
    this.listener.attention();
  }

  private follow(): void {
    if (this.leadership.leads) return;
    report('tabs', 'this tab follows');
    this.lead?.close();
    const follower = new Follower(this.name, {
      answered: visible => this.handle({ kind: 'answered', visible }),
      farms: farms => this.listener.told(farms),
    });
    this.current = { follower };
    this.listener.follow();
    this.say({ kind: 'join', tab: this.name, attention: this.own });
  }

  private heard(message: ToAll): void {
    if (message.kind === 'settings') this.listener.settings(message.settings);
    else if (message.kind === 'join') this.lead?.join(message.tab, message.attention);
    else if (this.follower) {
      this.follower.leadLost();
      this.say({ kind: 'join', tab: this.name, attention: this.own });
    }
  }
}
