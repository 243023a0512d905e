/** One broker, or one of several of a cluster: the socket that all tunnels to its farms and all pairings share. */

import type { Address, FromBroker, Welcome } from '../core/broker';
import type { Bytes } from '../core/bytes';
import { equal } from '../core/bytes';
import type { FarmInfo } from '../core/control';
import type { Epoch } from '../core/epoch';
import type { Snapshot } from '../core/link';
import type { BrokerAddress } from './broker-address';
import { BrokerSocket, type Identity } from './broker-socket';
import { report } from './log';
import { Portal } from './portal';
import { HeldRelay, stunServers } from './relay';
import type { HeldSlot } from './slot';
import { Tunnel } from './tunnel';

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
  socket: BrokerSocket;
  welcome: Welcome | null = null;
  private readonly relay = new HeldRelay();
  /** Whether the network wants a login first. */
  readonly portal: Portal;
  private readonly tunnels: Tunnel[] = [];
  private readonly visitors = new Set<Visitor>();

  constructor(
    private readonly addresses: readonly [BrokerAddress, ...BrokerAddress[]],
    private readonly identity: Omit<Identity, 'slot'> & { phone: Bytes },
    private slot: HeldSlot,
    private readonly listener: Listener,
  ) {
    this.portal = new Portal(
      addresses.some(({ authority }) => authority === location.host),
      {
        changed: () => listener.changed(),
        back: () => this.socket.event({ kind: 'path_back' }),
      },
    );
    this.socket = this.connect();
  }

  /** A link to the broker in our present place. */
  private connect(): BrokerSocket {
    const { key, boot } = this.identity;
    // What a former link still says is nobody's business any more.
    const ours = () => this.socket === socket;
    const socket = new BrokerSocket(
      this.addresses,
      { key, boot, slot: this.slot.slot },
      this.slot.epoch,
      randomSeed(),
      {
        state: state => {
          if (!ours()) return;
          if (state.kind !== 'connecting' && state.kind !== 'authenticating')
            this.portal.needed(state.kind === 'offline');
          if (state.kind !== 'online')
            for (const one of this.tunnels) one.event({ kind: 'broker_link', online: false });
          this.listener.changed();
        },
        online: welcome => ours() && this.online(welcome),
        relay: relay => ours() && this.relay.hold(relay, socket.address.host, Date.now()),
        staleEpoch: newest => ours() && void this.jump(newest),
        superseded: () => ours() && this.placeLost(),
        message: message => ours() && this.message(message),
      },
    );
    this.socket = socket;
    socket.event({ kind: 'start' });
    return socket;
  }

  /** A tunnel to a farm of this broker's, with epochs after `used`. */
  add(farm: { id: Bytes; key: Bytes }, used: Epoch): Tunnel {
    const { key, boot, phone } = this.identity;
    const tunnel: Tunnel = new Tunnel(farm, {
      key,
      boot,
      session: { phone, slot: this.slot.slot },
      epoch: Math.max(this.slot.epoch, used),
      seed: randomSeed(),
      send: (peer: Address, payload: Bytes) => this.socket.send({ signal: { peer, payload } }),
      iceServers: () => ({
        stun: stunServers(this.socket.address.host, this.welcome),
        relay: this.relay.servers(Date.now()),
      }),
      changed: () => this.listener.changed(),
      farm: info => this.listener.farm(farm.id, info),
      // The link must show that it lives, too: an offer into a dead one waits for seconds.
      carrierLost: () => this.socket.event({ kind: 'address_changed' }),
      takeAnotherSlot: () => void this.move(tunnel),
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

  private closed = false;

  /** Nothing is said or heard here any more. */
  close(): void {
    this.closed = true;
    for (const tunnel of [...this.tunnels]) this.remove(tunnel);
    this.socket.event({ kind: 'stop' });
  }

  /** Lets somebody else speak through this broker; the returned function ends it. */
  visit(visitor: Visitor): () => void {
    this.visitors.add(visitor);
    if (this.isOnline) visitor.online();
    return () => this.visitors.delete(visitor);
  }

  /** The brokers, as they are kept: URLs with commas between them. */
  get brokers(): string {
    return this.addresses.map(({ url }) => url).join(',');
  }

  /** Our place at this broker. */
  get place(): number {
    return this.slot.slot;
  }

  get isOnline(): boolean {
    return this.snapshot().state.kind === 'online';
  }

  snapshot(): Snapshot {
    return this.socket.snapshot();
  }

  private online(welcome: Welcome): void {
    this.welcome = welcome;
    if (welcome.relay) this.relay.hold(welcome.relay, this.socket.address.host, Date.now());
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
    if (this.closed) return;
    if (epoch === null) {
      report('broker', 'says that another start of this phone is newer');
      return this.placeLost();
    }
    this.socket.setEpoch(epoch);
    this.socket.event({ kind: 'start' });
  }

  /** The broker gave our place to another program: the link rests, and the next carriers are made elsewhere. */
  private placeLost(): void {
    if (this.closed) return;
    report('broker', 'another program has this place');
    this.socket.event({ kind: 'stop' });
    for (const tunnel of this.tunnels) tunnel.event({ kind: 'superseded' });
  }

  /** One move at a time: the tunnels of a hub lose their place together. */
  private moving: Promise<boolean> | null = null;

  /** Brings a tunnel to a place that nobody has taken from us yet. */
  private async move(tunnel: Tunnel): Promise<void> {
    if (tunnel.slot === this.slot.slot) {
      this.moving ??= this.takeNext().finally(() => {
        this.moving = null;
      });
    }
    if (this.moving && !(await this.moving)) return tunnel.event({ kind: 'no_slot' });
    tunnel.moveTo(this.slot.slot, this.slot.epoch);
    if (this.isOnline) tunnel.event({ kind: 'broker_link', online: true });
  }

  private async takeNext(): Promise<boolean> {
    const slot = await this.slot.takeNext(Math.max(this.slot.epoch, ...this.tunnels.map(one => one.epoch)));
    if (this.closed) return false;
    if (!slot) {
      // Perhaps the other program leaves.
      this.socket.event({ kind: 'start' });
      return false;
    }
    report('broker', `going on in place ${slot.slot}`);
    this.socket.event({ kind: 'stop' });
    this.slot = slot;
    this.welcome = null;
    this.connect();
    return true;
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
