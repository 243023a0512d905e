/** One broker: the socket that all tunnels to its farms and all pairings share. */

import type { Address, FromBroker, Welcome } from '../core/broker';
import type { Bytes } from '../core/bytes';
import { equal } from '../core/bytes';
import type { FarmInfo } from '../core/control';
import type { Epoch } from '../core/epoch';
import type { Snapshot } from '../core/link';
import type { BrokerAddress } from './broker-address';
import { BrokerSocket, type Identity } from './broker-socket';
import { report } from './log';
import type { HeldSlot } from './slot';
import { iceServers, Tunnel } from './tunnel';

/** What a hub's owner hears. */
export interface Listener {
  changed(): void;
  farm(id: Bytes, info: FarmInfo): void;
}

/** What is said through this broker besides: pairings. */
export interface Visitor {
  online(): void;
  message(message: FromBroker): void;
}

export class Hub {
  readonly socket: BrokerSocket;
  welcome: Welcome | null = null;
  private readonly tunnels: Tunnel[] = [];
  private readonly visitors = new Set<Visitor>();

  constructor(
    readonly address: BrokerAddress,
    private readonly identity: Identity & { phone: Bytes },
    private readonly slot: HeldSlot,
    private readonly listener: Listener,
  ) {
    this.socket = new BrokerSocket(address, identity, slot.epoch, randomSeed(), {
      state: state => {
        if (state.kind !== 'online')
          for (const one of this.tunnels) one.event({ kind: 'broker_link', online: false });
        listener.changed();
      },
      online: welcome => this.online(welcome),
      staleEpoch: newest => void this.jump(newest),
      message: message => this.message(message),
    });
    this.socket.event({ kind: 'start' });
  }

  /** A tunnel to a farm of this broker's. */
  add(farm: { id: Bytes; key: Bytes }): Tunnel {
    const { key, slot, boot, phone } = this.identity;
    const tunnel = new Tunnel(farm, {
      key,
      boot,
      session: { phone, slot },
      epoch: this.slot.epoch,
      seed: randomSeed(),
      send: (peer: Address, payload: Bytes) => this.socket.send({ signal: { peer, payload } }),
      iceServers: () => iceServers(this.address.host, this.welcome),
      changed: () => this.listener.changed(),
      farm: info => this.listener.farm(farm.id, info),
    });
    this.tunnels.push(tunnel);
    tunnel.start();
    if (this.isOnline) {
      this.watch();
      tunnel.event({ kind: 'broker_link', online: true });
    }
    return tunnel;
  }

  /** The farm was removed here. */
  remove(tunnel: Tunnel): void {
    const at = this.tunnels.indexOf(tunnel);
    if (at < 0) return;
    tunnel.stop();
    this.tunnels.splice(at, 1);
    this.watch();
  }

  /** Lets somebody else speak through this broker; the returned function ends it. */
  visit(visitor: Visitor): () => void {
    this.visitors.add(visitor);
    if (this.isOnline) visitor.online();
    return () => this.visitors.delete(visitor);
  }

  get isOnline(): boolean {
    return this.snapshot().state.kind === 'online';
  }

  snapshot(): Snapshot {
    return this.socket.snapshot();
  }

  private online(welcome: Welcome): void {
    this.welcome = welcome;
    this.watch();
    for (const tunnel of this.tunnels) tunnel.event({ kind: 'broker_link', online: true });
    for (const visitor of this.visitors) visitor.online();
    this.listener.changed();
  }

  private watch(): void {
    this.socket.send({ watch: { farms: this.tunnels.map(tunnel => tunnel.farm.id) } });
  }

  private async jump(newest: Epoch): Promise<void> {
    const epoch = await this.slot.jumpPast(newest);
    if (epoch === null)
      return report('broker', 'claims a newer start of this phone that is not to be believed');
    this.socket.setEpoch(epoch);
    this.socket.event({ kind: 'start' });
  }

  private message(message: FromBroker): void {
    const farm = message.presence?.farm ?? (message.signal ?? message.undelivered)?.peer.farm;
    const tunnel = farm && this.tunnels.find(one => equal(one.farm.id, farm));
    if (tunnel) tunnel.brokerMessage(message);
    for (const visitor of this.visitors) visitor.message(message);
  }
}

function randomSeed(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n;
}
