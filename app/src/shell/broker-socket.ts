/** The WebSocket to a broker, or to one of several: does what `link` decides. The shell of `tunnel/src/broker_socket`. */

import * as broker from '../core/broker';
import type { Bytes } from '../core/bytes';
import { decode, encode } from '../core/codec';
import type { Epoch } from '../core/epoch';
import type { DeviceKey } from '../core/keys';
import { type Event, Link, type Snapshot, type SocketEvent, type SocketId, type State } from '../core/link';
import { ms, seconds } from '../core/time';
import type { BrokerAddress } from './broker-address';
import { Alarm, now } from './clock';
import { report } from './log';

/** Most bytes that may wait in the browser for a choked socket; what is sent beyond is dropped. */
const MAX_WAITING = 256 * 1024;

/** Who is talking. */
export interface Identity {
  key: DeviceKey;
  slot: number;
  boot: Bytes;
}

/** What the owner hears. */
export interface Listener {
  state(state: State): void;
  online(welcome: broker.Welcome): void;
  /** New credentials for the relay. */
  relay(relay: broker.Relay): void;
  staleEpoch(newest: Epoch): void;
  /** Another program with this key has our place: fighting for it would go on for ever. */
  superseded(): void;
  message(message: broker.FromBroker): void;
}

interface Current {
  id: SocketId;
  socket: WebSocket;
  welcomed: boolean;
}

export class BrokerSocket {
  private readonly link: Link;
  private readonly alarm = new Alarm(() => {
    this.link.handleTimeout(now());
    this.act();
  });
  private current: Current | null = null;

  constructor(
    private readonly addresses: readonly [BrokerAddress, ...BrokerAddress[]],
    private readonly identity: Identity,
    private epoch: Epoch,
    seed: bigint,
    private readonly listener: Listener,
  ) {
    this.link = new Link(seed, now(), addresses.length);
  }

  /** The broker in use, or tried. */
  get address(): BrokerAddress {
    return this.addresses[this.link.broker] ?? this.addresses[0];
  }

  /** Tells the link what happened around it. */
  event(event: Event): void {
    this.link.handle(event, now());
    this.act();
  }

  /** Sends a message if the link is online and not choked; says whether it was taken. */
  send(message: broker.ToBroker): boolean {
    return this.link.isOnline && this.put(message);
  }

  /** The device's newest epoch, told to the broker at once. */
  setEpoch(epoch: Epoch): void {
    this.epoch = epoch;
    this.event({ kind: 'address_changed' });
  }

  /** How the link stands. */
  snapshot(): Snapshot {
    return this.link.snapshot();
  }

  private put(message: broker.ToBroker): boolean {
    const socket = this.current?.socket;
    if (socket?.readyState !== WebSocket.OPEN || socket.bufferedAmount > MAX_WAITING) return false;
    socket.send(encode(message));
    return true;
  }

  private act(): void {
    for (let action = this.link.pollAction(); action; action = this.link.pollAction()) {
      switch (action.kind) {
        case 'connect':
          this.connect(action.socket);
          break;
        case 'close':
          this.drop();
          break;
        case 'send_heartbeat':
          this.put({ heartbeat: { n: action.sequence, e: this.epoch } });
          break;
        case 'goodbye':
          this.put('goodbye');
          break;
        case 'changed':
          report('broker', action.state.kind);
          this.listener.state(action.state);
          break;
      }
    }
    this.alarm.set(this.link.pollTimeout()?.[0] ?? null);
  }

  private drop(): void {
    const socket = this.current?.socket;
    this.current = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close();
  }

  private connect(id: SocketId): void {
    this.drop();
    let socket: WebSocket;
    try {
      socket = new WebSocket(`${this.address.url}${broker.CONNECT_PATH}`, broker.SUBPROTOCOL);
    } catch (error) {
      queueMicrotask(() => this.socket(id, { kind: 'failed', why: String(error) }));
      this.current = null;
      return;
    }
    socket.binaryType = 'arraybuffer';
    const current: Current = { id, socket, welcomed: false };
    let opened = false;
    this.current = current;
    socket.onopen = () => {
      opened = true;
      this.socket(id, { kind: 'opened' });
    };
    socket.onclose = event => {
      if (this.current === current) this.current = null;
      const why = event.reason || (event.code === 1006 ? '' : `code ${event.code}`);
      this.socket(id, opened ? { kind: 'closed', why } : { kind: 'failed', why: 'no answer' });
    };
    socket.onmessage = event => {
      try {
        if (!(event.data instanceof ArrayBuffer)) throw new Error('text');
        this.received(current, decode(broker.fromBroker, new Uint8Array(event.data)));
      } catch (error) {
        report('broker', `nonsense: ${error}`);
        this.fail(current, 'the broker sent nonsense');
      }
    };
  }

  private fail(current: Current, why: string): void {
    if (this.current !== current) return;
    this.drop();
    this.socket(current.id, { kind: 'closed', why });
  }

  private socket(socket: SocketId, event: SocketEvent): void {
    this.event({ kind: 'socket', socket, event });
  }

  private received(current: Current, message: broker.FromBroker): void {
    const { id } = current;
    if (message.challenge && !current.welcomed) {
      void this.authenticate(current, message.challenge.nonce);
    } else if (message.welcome && !current.welcomed) {
      current.welcomed = true;
      this.socket(id, { kind: 'welcomed', heartbeatInterval: seconds(message.welcome.heartbeat_seconds) });
      this.listener.online(message.welcome);
    } else if (message.refused) {
      const { reason, newest } = message.refused;
      if (reason === 'stale_epoch' && newest !== undefined) this.listener.staleEpoch(newest);
      this.socket(id, { kind: 'refused', permanent: !broker.isTemporary(reason), explanation: reason });
      if (reason === 'superseded') this.listener.superseded();
    } else if (message.retry_after) {
      this.socket(id, { kind: 'retry_after', told: ms(message.retry_after.milliseconds) });
    } else if (!current.welcomed) {
      this.fail(current, 'the broker sent a message out of turn');
    } else if (message.heartbeat_answer) {
      const { n, relay } = message.heartbeat_answer;
      if (relay) this.listener.relay(relay);
      this.socket(id, { kind: 'heartbeat_answered', sequence: n, addressChanged: false });
    } else {
      this.socket(id, { kind: 'received' });
      this.listener.message(message);
    }
  }

  private async authenticate(current: Current, challenge: Bytes): Promise<void> {
    const { key, slot, boot } = this.identity;
    const claim = { role: 'phone' as const, slot, boot, epoch: this.epoch, broker: this.address.authority };
    const authenticate = await broker.signClaim(key, challenge, claim);
    if (this.current === current) this.put({ authenticate });
  }
}
