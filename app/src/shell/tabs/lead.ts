/** The leading tab's side: tells every tab that follows how the farms stand, and carries its streams. */

import { ringDue } from '../clock';
import { report } from '../log';
import { StreamReset, type TunnelStream } from '../streams';
import {
  type Answer,
  type Attention,
  type Call,
  type FromFollower,
  type FromLead,
  ofTab,
  type ToldFarm,
} from './messages';

/** Tabs that are followed at most: more windows than anyone keeps open. The rest wait for one to close. */
const MAX_TABS = 32;

/** Between two reports to a tab that did not ask, in milliseconds. */
const TELL_EVERY_MS = 50;

/** What the owner does for the tabs. */
export interface Owner {
  farms(): ToldFarm[];
  open(farm: string, service: string): TunnelStream;
  call(what: Call): Promise<Answer>;
  probe(why: string): void;
  /** A tab came or went, or is looked at more or less. */
  attention(): void;
}

export class Lead {
  private readonly tabs = new Map<string, Tab>();
  private readonly over = new AbortController();

  constructor(private readonly owner: Owner) {}

  /** A tab follows; it may say so again. */
  join(name: string, attention: Attention): void {
    const known = this.tabs.get(name);
    if (known) return known.welcome();
    if (this.tabs.size >= MAX_TABS || this.over.signal.aborted) return;
    const tab = new Tab(name, attention, this.owner);
    this.tabs.set(name, tab);
    report('tabs', `${this.tabs.size} follow`);
    tab.welcome();
    this.owner.attention();
    // It holds its lock as long as it lives.
    navigator.locks
      .request(ofTab(name), { signal: this.over.signal }, () => this.leave(name))
      .catch(() => undefined);
  }

  /** Something that is shown may have changed. */
  tell(): void {
    if (this.tabs.size === 0) return;
    const farms = this.owner.farms();
    for (const tab of this.tabs.values()) tab.tell(farms, false);
  }

  /** How much the others are looked at. */
  get attention(): Attention[] {
    return [...this.tabs.values()].map(tab => tab.attention);
  }

  /** Another tab leads now. */
  close(): void {
    this.over.abort();
    for (const name of [...this.tabs.keys()]) this.leave(name);
  }

  private leave(name: string): void {
    this.tabs.get(name)?.close();
    this.tabs.delete(name);
    if (!this.over.signal.aborted) this.owner.attention();
  }
}

class Tab {
  private readonly channel: BroadcastChannel;
  private readonly streams = new Map<number, Carried>();
  private told = '';
  private toldAt = 0;

  constructor(
    name: string,
    public attention: Attention,
    private readonly owner: Owner,
  ) {
    this.channel = new BroadcastChannel(ofTab(name));
    this.channel.onmessage = event => this.heard(event.data as FromFollower);
  }

  welcome(): void {
    this.say({ kind: 'here', visible: document.visibilityState === 'visible' });
    this.told = '';
    this.tell(this.owner.farms(), true);
  }

  /** Says how the farms stand, where that is news; a burst is told once. */
  tell(farms: ToldFarm[], asked: boolean): void {
    const at = performance.now();
    if (!asked && at - this.toldAt < TELL_EVERY_MS) return;
    const text = JSON.stringify(farms);
    if (text === this.told) return;
    this.told = text;
    this.toldAt = at;
    this.say({ kind: 'farms', farms });
  }

  close(): void {
    for (const stream of this.streams.values()) stream.abort();
    this.streams.clear();
    this.channel.close();
  }

  private say(message: FromLead): void {
    this.channel.postMessage(message);
  }

  private heard(message: FromFollower): void {
    switch (message.kind) {
      case 'ask':
        // Whoever asks looks: what is due here is done, though our own timers may be held back.
        ringDue();
        this.say({ kind: 'here', visible: document.visibilityState === 'visible' });
        return this.tell(this.owner.farms(), true);
      case 'attention':
        this.attention = message.attention;
        return this.owner.attention();
      case 'probe':
        return this.owner.probe(message.why);
      case 'call':
        return void this.owner.call(message.what).then(answer => {
          // What it brought is known before it is said to be done.
          this.tell(this.owner.farms(), true);
          this.say({ kind: 'done', call: message.call, answer });
        });
      case 'open':
        return this.open(message.stream, message.farm, message.service);
      default:
        this.streams.get(message.stream)?.heard(message);
    }
  }

  private open(number: number, farm: string, service: string): void {
    try {
      const stream = new Carried(this.owner.open(farm, service), {
        say: message => this.say({ ...message, stream: number }),
        gone: () => this.streams.delete(number),
      });
      this.streams.set(number, stream);
      void stream.run();
    } catch (error) {
      report('tabs', `no stream: ${error}`);
      const reason = error instanceof StreamReset ? error.reason : 'aborted';
      this.say({ kind: 'reset', stream: number, reason });
    }
  }
}

type OfStream<T> = T extends { stream: number } ? Omit<T, 'stream'> : never;

/** One stream that a tab uses: bytes go to it as far as it has room. */
class Carried {
  private credit = 0;
  private waits: (() => void) | null = null;
  private over = false;

  constructor(
    private readonly stream: TunnelStream,
    private readonly tab: { say(message: OfStream<FromLead>): void; gone(): void },
  ) {}

  async run(): Promise<void> {
    try {
      while (!this.over) {
        while (this.credit <= 0 && !this.over) {
          await new Promise<void>(resolve => {
            this.waits = resolve;
          });
        }
        const bytes = await this.stream.read();
        if (this.over) return;
        if (bytes === null) return this.tab.say({ kind: 'end' });
        this.credit -= bytes.length;
        this.tab.say({ kind: 'data', bytes });
      }
    } catch (error) {
      this.fail(error);
    }
  }

  heard(message: Extract<FromFollower, { stream: number }>): void {
    if (message.kind === 'credit') {
      this.credit += message.bytes;
      this.waits?.();
    } else if (message.kind === 'write') {
      this.stream.write(message.bytes as Uint8Array<ArrayBuffer>).then(
        () => this.over || this.tab.say({ kind: 'wrote' }),
        error => this.fail(error),
      );
    } else if (message.kind === 'finish') this.stream.finish();
    else this.abort();
  }

  abort(): void {
    this.over = true;
    this.stream.abort();
    this.waits?.();
    this.tab.gone();
  }

  private fail(error: unknown): void {
    if (this.over) return;
    const reason = error instanceof StreamReset ? error.reason : 'aborted';
    this.tab.say({ kind: 'reset', reason });
    this.abort();
  }
}
