/** The app without its screens: the device, its farms, their tunnels. */

import * as base32 from '../core/base32';
import type { Bytes } from '../core/bytes';
import { equal } from '../core/bytes';
import { farmIdOf, phoneIdOf, random } from '../core/id';
import { type Invitation, InvitationError, parse } from '../core/invitation';
import { type DeviceKey, deviceKey } from '../core/keys';
import { ownBroker, parseBroker } from './broker-address';
import { FarmView } from './farm';
import { Hub } from './hub';
import { report } from './log';
import { Monitor } from './monitor';
import { NoAnswer, pair } from './pair';
import { HeldSlot } from './slot';
import { type FarmRecord, type Settings, Store } from './store';
import type { Tunnel } from './tunnel';

/** Why the app can't work at all here. */
export type Obstacle = 'insecure' | 'no_webrtc' | 'no_ed25519' | 'too_many_tabs';

/** The running app. */
export class App {
  readonly farms: FarmView[] = [];
  private readonly hubs = new Map<string, Hub>();
  private readonly listeners = new Set<() => void>();
  private readonly boot = random(16);
  private scheduled = false;
  private watched = true;

  private constructor(
    readonly store: Store,
    readonly key: DeviceKey,
    readonly phone: Bytes,
    private readonly slot: HeldSlot,
    public settings: Settings,
  ) {}

  /** Starts with what is stored; an {@link Obstacle} where this browser can't. */
  static async start(): Promise<App | Obstacle> {
    if (!globalThis.isSecureContext) return 'insecure';
    if (!('RTCPeerConnection' in globalThis)) return 'no_webrtc';
    const store = await Store.open();
    let key: DeviceKey;
    try {
      key = await deviceKey(await store.keyPair());
    } catch (error) {
      report('app', `no key: ${error}`);
      return 'no_ed25519';
    }
    const slot = await HeldSlot.take(store);
    if (!slot) return 'too_many_tabs';
    const app = new App(store, key, await phoneIdOf(key.public), slot, await store.settings());
    for (const farm of await store.farms()) await app.connect(farm);
    app.monitor();
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
      for (const farm of this.farms) farm.update(this.watched);
      for (const listener of this.listeners) listener();
    });
  }

  /** Accepts an invitation: link, code or what a camera read. Throws what `parse` and `pair` throw. */
  async accept(text: string, phoneName: string): Promise<FarmView> {
    const invitation = parse(text);
    const hub = this.hub(brokerOf(invitation));
    const paired = await pair(hub, invitation, this.key, phoneName);
    const id = base32.encode(await farmIdOf(paired.farm));
    const record: FarmRecord = {
      id,
      key: paired.farm,
      name: paired.name,
      broker: hub.address.url,
      pairedAt: Date.now(),
      services: [],
      lastLive: null,
    };
    // Without room for it the farm is there until the app closes; the screens say so.
    await this.store.putFarm(record).catch(error => report('store', `the farm is not kept: ${error}`));
    const known = this.farms.find(farm => farm.record.id === id);
    if (known) await this.forget(known, false);
    const farm = await this.connect(record);
    this.changed();
    return farm;
  }

  /** Removes a farm from this phone. */
  async forget(farm: FarmView, alsoStored = true): Promise<void> {
    if (alsoStored) await this.store.removeFarm(farm.record.id);
    const at = this.farms.indexOf(farm);
    if (at >= 0) this.farms.splice(at, 1);
    farm.readings.follow(false);
    this.hubs.get(farm.record.broker)?.remove(farm.tunnel);
    this.changed();
  }

  async saveSettings(settings: Settings): Promise<void> {
    this.settings = settings;
    await this.store.setSettings(settings).catch(error => report('store', `settings are not kept: ${error}`));
    this.changed();
  }

  private async connect(record: FarmRecord): Promise<FarmView> {
    const hub = this.hub(record.broker);
    const tunnel = hub.add({ id: await farmIdOf(record.key), key: record.key });
    const farm = new FarmView(record, hub, tunnel, this.store, () => this.changed());
    this.farms.push(farm);
    return farm;
  }

  private hub(url: string): Hub {
    const known = this.hubs.get(url);
    if (known) return known;
    const address = parseBroker(url);
    if (!address) throw new InvitationError('part', 'b');
    const again = this.hubs.get(address.url);
    if (again) return again;
    const identity = { key: this.key, boot: this.boot, phone: this.phone };
    const hub = new Hub(address, identity, this.slot, {
      changed: () => this.changed(),
      farm: (id, info) => {
        this.farms.find(farm => equal(farm.tunnel.farm.id, id))?.told(info);
        this.changed();
      },
    });
    this.hubs.set(address.url, hub);
    return hub;
  }

  private tunnels(): Tunnel[] {
    return this.farms.map(farm => farm.tunnel);
  }

  /** What is open counts as being looked at. */
  private attend(): void {
    for (const tunnel of this.tunnels()) tunnel.attend(this.watched || tunnel.streams.count > 0);
  }

  private monitor(): void {
    const each = (work: (tunnel: Tunnel) => void) => this.tunnels().forEach(work);
    new Monitor({
      probe: why => {
        report('monitor', why);
        for (const { socket } of this.hubs.values()) socket.event({ kind: 'attention', watched: true });
        each(tunnel => tunnel.probe());
      },
      network: change => {
        report('monitor', `network ${change}`);
        const told = change === 'changed' ? 'address_changed' : change;
        for (const { socket } of this.hubs.values()) socket.event({ kind: 'network_changed', change: told });
        each(tunnel => tunnel.event({ kind: 'network', change }));
      },
      attention: watched => {
        this.watched = watched;
        for (const farm of this.farms) farm.update(watched);
        for (const { socket } of this.hubs.values()) socket.event({ kind: 'attention', watched });
        this.attend();
      },
      suspend: suspended => {
        report('monitor', suspended ? 'hidden for long: resting' : 'shown again');
        each(tunnel => (suspended ? tunnel.stop() : tunnel.start()));
        for (const { socket } of this.hubs.values()) socket.event({ kind: suspended ? 'stop' : 'start' });
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

function brokerOf(invitation: Invitation): string {
  const url = invitation.kind === 'link' ? invitation.broker : ownBroker(location);
  const address = parseBroker(url);
  if (!address) throw new InvitationError('part', 'b');
  return address.url;
}

export { NoAnswer };
