/** The connections of this browser: in the leading tab only. */

import * as base32 from '../core/base32';
import type { Bytes } from '../core/bytes';
import type { FarmInfo } from '../core/control';
import type { Epoch } from '../core/epoch';
import { farmIdOf, random } from '../core/id';
import { InvitationError, parse } from '../core/invitation';
import type { DeviceKey } from '../core/keys';
import { ownBroker, parseBrokers } from './broker-address';
import { Hub } from './hub';
import { OwnLine } from './line';
import { pair } from './pair';
import { HeldSlot } from './slot';
import type { FarmRecord, Store } from './store';

/** What the owner hears. */
export interface Listener {
  changed(): void;
  /** A farm told its name and services. */
  farm(id: string, info: FarmInfo): void;
}

export class Engine {
  private readonly hubs = new Map<string, Hub>();
  private readonly lines = new Map<string, OwnLine>();
  private readonly boot = random(16);
  /** The newest epoch of connections that ended: to a farm that is paired again, an offer with one that it knows is an old one. */
  private used: Epoch = 0;
  private watched = true;
  private suspended = false;

  private constructor(
    private readonly key: DeviceKey,
    private readonly phone: Bytes,
    private readonly slot: HeldSlot,
    private readonly listener: Listener,
  ) {}

  /** Takes this browser's place, with a start of its own: connections of a former one are superseded. */
  static async start(store: Store, key: DeviceKey, phone: Bytes, listener: Listener): Promise<Engine> {
    return new Engine(key, phone, await HeldSlot.take(store), listener);
  }

  /** A connection to this farm. Throws `InvitationError` where its broker's address is none. */
  async connect(record: FarmRecord): Promise<OwnLine> {
    const hub = this.hub(record.broker);
    const line = new OwnLine(hub, hub.add({ id: await farmIdOf(record.key), key: record.key }, this.used));
    this.lines.set(record.id, line);
    return line;
  }

  /** Ends the connection to a farm. */
  disconnect(farm: string): void {
    const line = this.lines.get(farm);
    if (!line) return;
    this.lines.delete(farm);
    this.used = Math.max(this.used, line.tunnel.epoch);
    line.hub.remove(line.tunnel);
  }

  /** Asks the farm of an invitation to let this phone in. Throws what `parse` and `pair` throw. */
  async pair(text: string, phoneName: string): Promise<FarmRecord> {
    const invitation = parse(text);
    // A typed code names none.
    const hub = this.hub(invitation.kind === 'link' ? invitation.broker : ownBroker(location));
    const paired = await pair(hub, invitation, this.key, phoneName);
    return {
      id: base32.encode(await farmIdOf(paired.farm)),
      key: paired.farm,
      name: paired.name,
      broker: hub.brokers,
      pairedAt: Date.now(),
      services: [],
      lastLive: null,
    };
  }

  /** Pings must show now whether anything works. */
  probe(): void {
    this.tellHubs({ kind: 'attention', watched: true });
    for (const { tunnel } of this.lines.values()) tunnel.probe();
  }

  /** The browser says that the phone's network went, came, or is another one. */
  network(change: 'up' | 'down' | 'changed'): void {
    this.tellHubs({ kind: 'network_changed', change: change === 'changed' ? 'address_changed' : change });
    for (const { tunnel } of this.lines.values()) tunnel.event({ kind: 'network', change });
  }

  /** Whether somebody looks, in any tab; what is open counts as being looked at. */
  attend(watched: boolean): void {
    if (watched !== this.watched) this.tellHubs({ kind: 'attention', watched });
    this.watched = watched;
    for (const { tunnel } of this.lines.values()) tunnel.attend(watched || tunnel.streams.count > 0);
  }

  /** Nobody has looked for long: nothing is sent; or goes on. */
  suspend(suspended: boolean): void {
    if (suspended === this.suspended) return;
    this.suspended = suspended;
    for (const { tunnel } of this.lines.values()) {
      if (suspended) tunnel.stop();
      else tunnel.start();
    }
    this.tellHubs({ kind: suspended ? 'stop' : 'start' });
  }

  /** Another tab leads: everything ends here. */
  stop(): void {
    for (const farm of [...this.lines.keys()]) this.disconnect(farm);
    for (const hub of this.hubs.values()) hub.close();
  }

  private tellHubs(event: Parameters<Hub['socket']['event']>[0]): void {
    for (const { socket } of this.hubs.values()) socket.event(event);
  }

  /** The link to a farm's brokers. Two farms that name the same ones, in any order, share it. */
  private hub(urls: string): Hub {
    const [first, ...others] = parseBrokers(urls, ownBroker(location)) ?? [];
    if (!first) throw new InvitationError('part', 'b');
    const name = [first, ...others]
      .map(({ url }) => url)
      .sort()
      .join();
    const known = this.hubs.get(name);
    if (known) return known;
    const hub = new Hub(
      [first, ...others],
      { key: this.key, boot: this.boot, phone: this.phone },
      this.slot,
      {
        changed: () => this.listener.changed(),
        farm: (id, info) => this.listener.farm(base32.encode(id), info),
      },
    );
    this.hubs.set(name, hub);
    return hub;
  }
}
