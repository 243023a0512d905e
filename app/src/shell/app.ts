/** The app without its screens: the device, its farms, their tunnels. */

import type { Bytes } from '../core/bytes';
import { phoneIdOf } from '../core/id';
import { parse } from '../core/invitation';
import { type DeviceKey, deviceKey } from '../core/keys';
import { Engine } from './engine';
import { FarmView } from './farm';
import { report } from './log';
import { Monitor } from './monitor';
import { troubleOf } from './pair';
import { type FarmRecord, type Settings, Store } from './store';
import { StreamReset, type TunnelStream } from './streams';
import { Tabs } from './tabs';
import { LeadLost } from './tabs/follower';
import type { Answer, Call, ToldFarm } from './tabs/messages';

/** Most changes of the leading tab that one wish follows: tabs that go one after the other. */
const LEAD_CHANGES = 4;

/** Why the app can't work at all here. */
export type Obstacle = 'insecure' | 'no_webrtc' | 'no_ed25519';

/** This phone's key and id, `null` where the browser makes no such keys. */
async function identity(store: Store): Promise<{ key: DeviceKey; phone: Bytes } | null> {
  try {
    const key = await deviceKey(await store.keyPair());
    return { key, phone: await phoneIdOf(key.public) };
  } catch (error) {
    report('app', `no key: ${error}`);
    return null;
  }
}

/** The running app, in one of this browser's tabs. */
export class App {
  readonly farms: FarmView[] = [];
  private readonly listeners = new Set<() => void>();
  private readonly tabs: Tabs;
  /** This tab leads or follows. */
  private begun: Promise<void> = Promise.resolve();
  /** The connections, while this tab leads. */
  private engine: Engine | null = null;
  private scheduled = false;
  private watched = true;
  private suspended = false;

  private constructor(
    readonly store: Store,
    readonly key: DeviceKey,
    readonly phone: Bytes,
    public settings: Settings,
  ) {
    this.tabs = new Tabs(
      {
        lead: () => this.lead(),
        follow: () => this.follow(),
        told: farms => this.told(farms),
        settings: settings => {
          this.settings = settings;
          this.changed();
        },
        farms: () => this.farms.map(farm => farm.told()),
        open: (id, service) => this.open(id, service),
        call: what => this.called(what),
        probe: why => this.probe(why),
        attention: () => this.attend(),
      },
      store.isDurable,
    );
  }

  /** Starts with what is stored; an {@link Obstacle} where this browser can't. */
  static async start(): Promise<App | Obstacle> {
    if (!globalThis.isSecureContext) return 'insecure';
    if (!('RTCPeerConnection' in globalThis)) return 'no_webrtc';
    const store = await Store.open();
    // All at once: on a slow phone each answer is waited for longer than it takes.
    const [own, settings, records] = await Promise.all([identity(store), store.settings(), store.farms()]);
    if (!own) return 'no_ed25519';
    const app = new App(store, own.key, own.phone, settings);
    for (const record of records) app.add(record);
    // What is known is drawn before anything is connected.
    app.begun = app.tabs.begin().then(() => app.monitor());
    return app;
  }

  /** Calls back after every change; the returned function ends it. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Something changed: screens are drawn once for a burst. */
  changed(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(() => {
      this.scheduled = false;
      const { watched } = this.tabs.attention;
      for (const farm of this.farms) farm.update(watched);
      for (const listener of this.listeners) listener();
      this.tabs.lead?.tell();
    });
  }

  /** Accepts an invitation: link, code or what a camera read. Throws what {@link troubleOf} explains. */
  async accept(text: string, phoneName: string): Promise<FarmView> {
    // What is none need not be asked about.
    parse(text);
    const id = await this.led({ kind: 'accept', text, phoneName }, () => this.pair(text, phoneName));
    const farm = this.farms.find(one => one.record.id === id);
    if (!farm) throw new Error('the farm is gone again');
    return farm;
  }

  /** Removes a farm from this phone. */
  async forget(farm: FarmView): Promise<void> {
    const { id } = farm.record;
    await this.led({ kind: 'forget', farm: id }, async () => {
      await this.store.removeFarm(id);
      this.drop(farm);
      return null;
    });
  }

  /** What was looked at is in the store, whichever tab keeps it. */
  async keep(farm: FarmView): Promise<void> {
    const keep = async () => {
      await farm.keep();
      return null;
    };
    await this.led({ kind: 'keep', farm: farm.record.id }, keep).catch(error =>
      report('app', `not kept: ${error}`),
    );
  }

  /** Has the leading tab do this, or does it here where this is that tab; again where the lead changes meanwhile. */
  private async led(what: Call, here: () => Promise<string | null>): Promise<string | null> {
    await this.begun;
    for (let change = 0; ; change++) {
      await this.tabs.settled();
      const { follower } = this.tabs;
      try {
        return await (follower ? follower.call(what) : here());
      } catch (error) {
        if (!(error instanceof LeadLost) || change >= LEAD_CHANGES) throw error;
      }
    }
  }

  async saveSettings(settings: Settings): Promise<void> {
    this.settings = settings;
    await this.store.setSettings(settings).catch(error => report('store', `settings are not kept: ${error}`));
    this.tabs.say({ kind: 'settings', settings });
    this.changed();
  }

  /** This tab owns the connections from now on. */
  private async lead(): Promise<void> {
    const engine = await Engine.start(this.store, this.key, this.phone, {
      changed: () => this.changed(),
      farm: (id, info) => {
        this.farms.find(farm => farm.record.id === id)?.heard(info);
        this.changed();
      },
    });
    this.engine = engine;
    // What the former leading tab kept last.
    for (const record of await this.store.farms()) this.add(record);
    for (const farm of this.farms) {
      const line = await engine.connect(farm.record).catch(error => report('app', `no connection: ${error}`));
      if (line) farm.lead(line);
    }
    this.attend();
    this.changed();
  }

  /** Another tab owns them from now on. */
  private follow(): void {
    this.engine?.stop();
    this.engine = null;
    const { follower } = this.tabs;
    if (follower) for (const farm of this.farms) farm.follow(follower.line(farm.record.id));
    this.changed();
  }

  /** The leading tab said how the farms stand. */
  private told(farms: ToldFarm[]): void {
    const { follower } = this.tabs;
    if (!follower) return;
    for (const farm of [...this.farms])
      if (!farms.some(one => one.record.id === farm.record.id)) this.drop(farm);
    for (const { record, readings } of farms) {
      const farm = this.add(record);
      farm.record = record;
      farm.readings.mirror(readings);
      farm.follow(follower.line(record.id));
    }
    this.changed();
  }

  /** The farm of this record, perhaps new. */
  private add(record: FarmRecord): FarmView {
    const known = this.farms.find(farm => farm.record.id === record.id);
    if (known) return known;
    const farm = new FarmView(record, this.store, () => this.changed());
    this.farms.push(farm);
    return farm;
  }

  private drop(farm: FarmView): void {
    const at = this.farms.indexOf(farm);
    if (at >= 0) this.farms.splice(at, 1);
    farm.readings.follow(false);
    this.engine?.disconnect(farm.record.id);
    this.changed();
  }

  private async pair(text: string, phoneName: string): Promise<string> {
    const { engine } = this;
    if (!engine) throw new LeadLost();
    const record = await engine.pair(text, phoneName);
    // Without room for it the farm is there until the app closes; the screens say so.
    await this.store.putFarm(record).catch(error => report('store', `the farm is not kept: ${error}`));
    const known = this.farms.find(farm => farm.record.id === record.id);
    if (known) this.drop(known);
    this.add(record).lead(await engine.connect(record));
    this.changed();
    return record.id;
  }

  /** A tab that follows asked. */
  private async called(what: Call): Promise<Answer> {
    try {
      if (what.kind === 'accept') return { farm: await this.pair(what.text, what.phoneName) };
      const farm = this.farms.find(one => one.record.id === what.farm);
      if (farm) await (what.kind === 'forget' ? this.forget(farm) : farm.keep());
      return { farm: null };
    } catch (error) {
      report('tabs', `${what.kind}: ${error}`);
      return { trouble: troubleOf(error) };
    }
  }

  private open(id: string, service: string): TunnelStream {
    const farm = this.farms.find(one => one.record.id === id);
    if (!farm) throw new StreamReset('unknown_service');
    return farm.open(service);
  }

  private probe(why: string): void {
    report('monitor', why);
    this.engine?.probe();
  }

  /** Whoever owns the connections goes by how much any tab is looked at. */
  private attend(): void {
    const { watched, suspended } = this.tabs.attention;
    this.engine?.suspend(suspended);
    this.engine?.attend(watched);
  }

  private tell(): void {
    const { watched, suspended } = this;
    this.tabs.attend({ watched, suspended });
    this.attend();
    this.changed();
  }

  private monitor(): void {
    new Monitor({
      probe: why => {
        const { follower } = this.tabs;
        if (follower) follower.probe(why);
        else this.probe(why);
      },
      network: change => {
        report('monitor', `network ${change}`);
        this.engine?.network(change);
      },
      attention: watched => {
        this.watched = watched;
        this.tell();
      },
      suspend: suspended => {
        report('monitor', suspended ? 'hidden for long: resting' : 'shown again');
        this.suspended = suspended;
        this.tell();
      },
      hidden: () => {
        for (const farm of this.farms) void farm.keep();
      },
      look: () => {
        // Streams begin and end without a word.
        this.attend();
        this.changed();
      },
    });
  }
}
