/** A tunnel to one farm: owns the session, its carriers and streams, and does what the cores decide. */

import type { Address, FromBroker } from '../core/broker';
import { verifyPresence } from '../core/broker';
import type { Bytes } from '../core/bytes';
import { equal, hex } from '../core/bytes';
import { decode, encode } from '../core/codec';
import type { FarmInfo, Hello } from '../core/control';
import type { Epoch } from '../core/epoch';
import { random, type SessionId, sameSession } from '../core/id';
import { type DeviceKey, NONCE_LEN } from '../core/keys';
import type { Ways } from '../core/recovery';
import { type Event, REST_AFTER, Session, type Snapshot } from '../core/session';
import { type Content, open, type PeerSignal, payload, sign } from '../core/signal';
import { Carrier, type Condition } from './carrier';
import { Alarm, now } from './clock';
import { report } from './log';
import { Streams } from './streams';

/** What a tunnel needs of its surroundings. */
export interface Surroundings {
  key: DeviceKey;
  session: SessionId;
  boot: Bytes;
  epoch: Epoch;
  seed: bigint;
  /** Hands a signal to the broker. */
  send(peer: Address, payload: Bytes): void;
  /** What tells our public address, and what relays. */
  iceServers(): { stun: RTCIceServer[]; relay: RTCIceServer[] };
  /** Something that is shown changed. */
  changed(): void;
  /** The farm told its name and services. */
  farm(info: FarmInfo): void;
  /** A carrier was lost: perhaps our own path, or our address is another one by now. */
  carrierLost(): void;
  /** Our place was taken: answered by {@link Tunnel.moveTo} or the event `no_slot`. */
  takeAnotherSlot(): void;
}

interface Slot {
  carrier: Carrier;
  nonce: Bytes;
}

export class Tunnel {
  readonly streams = new Streams();
  /** When a ping was last answered, on the wall clock. */
  answeredAt: number | null = null;
  /** Carriers attached so far. */
  carriersAttached = 0;
  /** Presence was verified or the farm told us: the farm's side of the story, for display. */
  present: { online: boolean; at: number } | null = null;
  private readonly session: Session;
  private readonly carriers = new Map<Epoch, Slot>();
  private watched = true;
  private readonly alarm = new Alarm(() => {
    this.session.handleTimeout(now());
    this.act();
  });
  /** Signals are verified in the order in which they came. */
  private signals: Promise<void> = Promise.resolve();

  constructor(
    readonly farm: { id: Bytes; key: Bytes },
    private readonly around: Surroundings,
  ) {
    this.session = new Session(around.epoch, around.seed, now(), REST_AFTER);
  }

  /** Tells the session what happened. */
  event(event: Event): void {
    this.session.handle(event, now());
    this.act();
  }

  /** Ends the session: the farm is told, also through the broker, should the carrier be dead. */
  stop(): void {
    if (this.session.live !== null) void this.say(this.session.live, { goodbye: {} });
    this.streams.end('session_ended');
    this.event({ kind: 'stop' });
  }

  /** Starts, again. */
  start(): void {
    this.streams.revive();
    this.event({ kind: 'start' });
  }

  /** Our place at the broker and the farm. */
  get slot(): number {
    return this.around.session.slot;
  }

  /** The newest epoch that was used. */
  get epoch(): Epoch {
    return this.session.epoch;
  }

  /** Goes on in another place, with epochs of its own. */
  moveTo(slot: number, epoch: Epoch): void {
    this.around.session = { phone: this.around.session.phone, slot };
    this.event({ kind: 'new_slot', epoch });
  }

  /** Whether somebody looks. */
  attend(watched: boolean): void {
    if (watched === this.watched) return;
    this.watched = watched;
    this.event({ kind: 'attention', watched });
    for (const { carrier } of this.carriers.values()) carrier.setWatched(watched);
  }

  /** Pings must show now whether the live carrier works. */
  probe(): void {
    if (this.session.live !== null) this.carriers.get(this.session.live)?.carrier.suspect();
  }

  snapshot(): Snapshot {
    return this.session.snapshot();
  }

  /** How the live carrier is. */
  condition(): Condition | null {
    const { live } = this.session;
    return live === null ? null : (this.carriers.get(live)?.carrier.condition() ?? null);
  }

  /** A message of the broker's about this farm. */
  brokerMessage(message: FromBroker): void {
    this.signals = this.signals
      .then(() => this.take(message))
      .catch(error => report('signal', `not believed: ${error instanceof Error ? error.message : error}`));
  }

  private async take(message: FromBroker): Promise<void> {
    if (message.presence) {
      const { state } = message.presence;
      if (!state) return this.event({ kind: 'presence_unknown' });
      if (!(await verifyPresence(state, this.farm.id, this.farm.key)))
        throw new Error('a presence not signed by the farm');
      this.present = { online: state.online, at: Date.now() - state.since_seconds * 1000 };
      this.event({ kind: 'presence', boot: state.boot, epoch: state.epoch, online: state.online });
    } else if (message.undelivered) this.event({ kind: 'undelivered' });
    else if (message.signal) {
      const { signed } = decode(payload, message.signal.payload);
      if (!signed) return;
      const { session } = this.around;
      const signal = await open(signed, { key: this.farm.key, from: 'farm', farm: this.farm.id, session });
      await this.peerSignal(signal);
    }
  }

  private async peerSignal({ epoch, content }: PeerSignal): Promise<void> {
    const slot = this.carriers.get(epoch);
    if (!slot) return;
    const { answer, refused, candidate, goodbye } = content;
    if (answer && equal(answer.nonce, slot.nonce)) {
      this.event({ kind: 'answered', epoch });
      await slot.carrier.peer
        .accept(answer.sdp)
        .catch(error => this.lost(epoch, `the farm's answer: ${error}`));
    } else if (refused && equal(refused.nonce, slot.nonce)) {
      report('session', `offer refused: ${refused.reason}`);
      const { reason, farm_boot: farmBoot, newest } = refused;
      this.event({ kind: 'refused', epoch, reason, farmBoot, newest });
    } else if (candidate) await slot.carrier.peer.addCandidate(candidate.candidate);
    else if (goodbye) this.event({ kind: 'lost', epoch });
  }

  private act(hello?: Hello): void {
    for (let action = this.session.pollAction(); action; action = this.session.pollAction()) {
      switch (action.kind) {
        case 'offer':
          void this.offer(action.epoch, action.farmBoot, action.ways);
          break;
        case 'attach':
          this.carriersAttached += 1;
          report('session', `carrier ${action.epoch % 2 ** 22} attached`);
          this.carriers.get(action.epoch)?.carrier.attach(hello?.streams ?? []);
          break;
        case 'close': {
          const slot = this.carriers.get(action.epoch);
          this.carriers.delete(action.epoch);
          slot?.carrier.close(action.reason);
          break;
        }
        case 'probe':
          this.carriers.get(action.epoch)?.carrier.suspect();
          break;
        case 'changed': {
          const { state, failure, strategy } = this.session.snapshot();
          report('session', [state, failure, strategy].filter(Boolean).join(' '));
          break;
        }
        case 'take_another_slot':
          queueMicrotask(() => this.around.takeAnotherSlot());
          break;
        case 'ended':
          break;
      }
    }
    this.alarm.set(this.session.pollTimeout()?.[0] ?? null);
    this.around.changed();
  }

  private async offer(epoch: Epoch, farmBoot: Bytes, ways: Ways): Promise<void> {
    const { session, boot } = this.around;
    const { stun, relay } = this.around.iceServers();
    const iceServers = ways === 'direct_only' ? stun : [...stun, ...relay];
    // Without a relay an attempt through relays only would be wasted.
    const usable = ways === 'relay_only' && relay.length === 0 ? 'any' : ways;
    try {
      const setup = { epoch, session, boot, watched: this.watched, streams: this.streams };
      const carrier = new Carrier(
        { ...setup, iceServers, ways: usable },
        {
          candidate: candidate => void this.say(epoch, { candidate: { candidate } }),
          opened: () => this.event({ kind: 'opened', epoch }),
          hello: hello => this.hello(epoch, hello),
          farm: info => this.around.farm(info),
          path: path => this.event({ kind: 'path', epoch, relayed: path === 'relayed' }),
          goodbye: reason => this.event({ kind: 'goodbye', epoch, reason }),
          lost: why => this.lost(epoch, why),
          answered: () => {
            this.answeredAt = Date.now();
          },
        },
      );
      const nonce = random(NONCE_LEN);
      this.carriers.set(epoch, { carrier, nonce });
      const sdp = await carrier.peer.offer();
      // Given up meanwhile: an offer now would only confuse the farm.
      if (this.carriers.get(epoch)?.carrier !== carrier) return;
      await this.say(epoch, { offer: { nonce, phone_boot: boot, farm_boot: farmBoot, sdp } });
    } catch (error) {
      this.lost(epoch, `no offer could be made: ${error}`);
    }
  }

  private hello(epoch: Epoch, hello: Hello): void {
    if (hello.epoch !== epoch || !sameSession(hello.session, this.around.session)) {
      const slot = this.carriers.get(epoch);
      this.carriers.delete(epoch);
      slot?.carrier.close('protocol_error');
      return this.event({ kind: 'lost', epoch });
    }
    this.session.handle({ kind: 'hello', epoch }, now());
    this.act(hello);
  }

  private lost(epoch: Epoch, why: string): void {
    const slot = this.carriers.get(epoch);
    this.carriers.delete(epoch);
    slot?.carrier.close('superseded');
    report('session', `carrier lost: ${why}`);
    this.around.carrierLost();
    this.event({ kind: 'lost', epoch });
  }

  /** What is said about one carrier leaves in the order in which it was said. */
  private said: Promise<void> = Promise.resolve();

  private say(epoch: Epoch, content: Content): Promise<void> {
    const { key, session } = this.around;
    const signed = sign({ from: 'phone', farm: this.farm.id, session, epoch, content }, key);
    this.said = this.said
      .then(async () => this.around.send({ farm: this.farm.id }, encode({ signed: await signed })))
      // One that can't be said must not silence the next; its carrier's deadline sees to it.
      .catch(error => report('signal', `not sent: ${error}`));
    return this.said;
  }
}

/** An id as a map's key. */
export const idKey = (id: Bytes): string => hex(id);
