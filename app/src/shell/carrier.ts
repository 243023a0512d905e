/** One carrier: greets, moves frames, pings, obeys. The shell of `tunnel/src/carrier.rs`. */

import type { Bytes } from '../core/bytes';
import { decode, encode } from '../core/codec';
import { type Control, control, type FarmInfo, type GoodbyeReason, type Hello } from '../core/control';
import type { Epoch } from '../core/epoch';
import type { StreamState } from '../core/frame';
import * as frames from '../core/frame';
import { Health, type Snapshot } from '../core/health';
import type { SessionId } from '../core/id';
import { ping } from '../core/ping';
import type { Ways } from '../core/recovery';
import { type Instant, ms, seconds } from '../core/time';
import { Alarm, now } from './clock';
import { report } from './log';
import { type Channel, type Path, Peer } from './peer';
import type { Streams } from './streams';

/** For a goodbye to leave before the carrier is closed: a round trip of a slow link. */
const GOODBYE_WITHIN_MS = 500;

/** Between two looks at the path that ICE has chosen. */
const PATH_INTERVAL = seconds(10);

/** How often a carrier with unacknowledged data is looked at. */
const BUSY_INTERVAL = ms(200);

/**
 * Bytes that may reach us at once. Chromium's UDP sockets have a buffer of 64 KiB, which the kernel
 * doubles and then counts 2.3 KiB for each packet: 56 packets. This is 42, which leaves some for
 * pings; what came beyond was lost, and each time the farm's engine waited for a second.
 */
const BURST = 48 * 1024;

/** What the owner hears. */
export interface Listener {
  candidate(line: string): void;
  opened(): void;
  hello(hello: Hello): void;
  farm(farm: FarmInfo): void;
  /** The path is known, or became another kind of path. */
  path(path: Path): void;
  goodbye(reason: GoodbyeReason): void;
  lost(why: string): void;
  /** A ping was answered: the one proof of life. */
  answered(): void;
}

/** What a carrier is about. */
export interface Setup {
  epoch: Epoch;
  session: SessionId;
  boot: Bytes;
  watched: boolean;
  streams: Streams;
  iceServers: RTCIceServer[];
  ways: Ways;
}

/** What is shown of a carrier. */
export interface Condition {
  health: Snapshot;
  path: Path | null;
}

export class Carrier {
  readonly peer: Peer;
  private health: Health | null = null;
  private path: Path | null = null;
  private pathAt: Instant = 0;
  private heard = 0;
  private heardThen = 0;
  private lookAt: Instant | null = null;
  private greeted = false;
  private attached = false;
  private watched: boolean;
  private hello: Bytes | null = null;
  private over = false;
  private pumping = false;
  private readonly alarm = new Alarm(() => this.tick());

  constructor(
    private readonly setup: Setup,
    private readonly listener: Listener,
  ) {
    this.watched = setup.watched;
    this.peer = new Peer(setup.iceServers, setup.ways, {
      candidate: line => listener.candidate(line),
      opened: () => this.open(),
      message: (channel, message) => this.message(channel, message),
      writable: () => this.pump(),
      lost: why => this.lose(why),
    });
  }

  /** Both hellos are there: streams go on over this carrier. */
  attach(streams: readonly StreamState[]): void {
    this.attached = true;
    this.setup.streams.onWork = () => this.pump();
    this.guarded(() => this.setup.streams.resume(this.setup.epoch, streams));
  }

  /** Pings must show now whether this carrier still works. */
  suspect(): void {
    this.health?.handle({ kind: 'network_changed' }, now());
    this.obey();
  }

  /** Whether somebody is looking; the farm is told. */
  setWatched(watched: boolean): void {
    this.watched = watched;
    this.health?.handle({ kind: 'attention', watched }, now());
    this.say({ attention: { watched } });
    this.obey();
  }

  /** How it is, once it is open. */
  condition(): Condition | null {
    return this.health && { health: this.health.state(now()), path: this.path };
  }

  /** Leaves: says goodbye where it can, and closes. */
  close(reason: GoodbyeReason): void {
    if (this.over) return;
    const open = this.health !== null;
    this.over = true;
    this.alarm.set(null);
    if (!open) return this.peer.close();
    this.peer.send('control', encode({ goodbye: { reason } }));
    setTimeout(() => this.peer.close(), GOODBYE_WITHIN_MS);
  }

  private open(): void {
    if (this.over) return;
    const { epoch, session, boot, streams } = this.setup;
    const states = streams.greet(epoch);
    if (!states) return this.lose('superseded');
    this.hello = encode({
      hello: { session, epoch, boot, streams: states, watched: this.watched, burst: BURST },
    });
    this.peer.send('control', this.hello);
    this.health = new Health(this.watched, now());
    this.listener.opened();
    this.obey();
  }

  private say(message: Control): void {
    if (this.health && !this.over) this.peer.send('control', encode(message));
  }

  private message(channel: Channel, message: Uint8Array): void {
    if (this.over) return;
    this.guarded(() => {
      if (channel === 'data') this.onData(message);
      else if (channel === 'ping') this.onPing(message);
      else this.onControl(decode(control, message));
    });
  }

  private guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.lose(`the other side broke the protocol: ${error instanceof Error ? error.message : error}`);
    }
  }

  private onData(message: Uint8Array): void {
    this.heard += 1;
    this.setup.streams.frame(this.setup.epoch, frames.decode(message));
  }

  private onPing(message: Uint8Array): void {
    const heard = decode(ping, message);
    if (heard.ping !== undefined) {
      this.peer.send('ping', encode({ pong: heard.ping }));
      this.health?.handle({ kind: 'ping_received' }, now());
    } else if (this.health) {
      this.health.handle({ kind: 'ping_answered', number: heard.pong }, now());
      this.listener.answered();
      const { rtt } = this.health.state(now());
      if (rtt !== null) this.setup.streams.setRoundTripTime(rtt);
    }
    this.obey();
  }

  private onControl(message: Control): void {
    if (message.hello) {
      if (this.greeted) return;
      this.greeted = true;
      // The engine at the other side drops what comes before its channels are open. Its hello proves
      // that they are, so ours is said again; a repeated one changes nothing.
      if (this.hello) this.peer.send('control', this.hello);
      this.listener.hello(message.hello);
    } else if (message.farm) this.listener.farm(message.farm);
    else if (message.goodbye) this.listener.goodbye(message.goodbye.reason);
  }

  /** Moves frames to the channel while it takes them. */
  private pump(): void {
    if (this.over || !this.attached || this.pumping) return;
    this.pumping = true;
    const { streams, epoch } = this.setup;
    while (this.peer.hasRoom) {
      const frame = streams.nextFrame(epoch);
      if (!frame) break;
      this.peer.send('data', frames.encode(frame));
      if (this.lookAt === null && streams.isWaitingForAcks) {
        this.heardThen = this.heard;
        this.lookAt = now() + BUSY_INTERVAL;
      }
    }
    this.pumping = false;
    this.setAlarm();
  }

  private tick(): void {
    if (this.over || !this.health) return;
    const at = now();
    this.health.handleTimeout(at);
    if (this.lookAt !== null && this.lookAt <= at) this.look(at);
    if (this.pathAt <= at) {
      this.pathAt = at + PATH_INTERVAL;
      void this.peer.path().then(path => {
        const former = this.path;
        this.path = path;
        if (path && path !== former && !this.over) this.listener.path(path);
      });
    }
    const { timeout } = this.setup.streams;
    if (timeout !== null && timeout <= at) this.setup.streams.handleTimeout();
    this.obey();
  }

  /** Data was sent a while ago: is anything heard? */
  private look(at: Instant): void {
    const changed = this.heard !== this.heardThen;
    this.heardThen = this.heard;
    this.lookAt = at + BUSY_INTERVAL;
    if (changed) this.health?.handle({ kind: 'data_received' }, at);
    else if (this.setup.streams.isWaitingForAcks) this.health?.handle({ kind: 'data_due' }, at);
    else this.lookAt = null;
  }

  /** Does what the monitor says. */
  private obey(): void {
    if (!this.health || this.over) return;
    for (let action = this.health.pollAction(); action; action = this.health.pollAction()) {
      if (action.kind === 'send_ping') this.peer.send('ping', encode({ ping: action.number }));
      else if (action.kind === 'dead') {
        const spent = Math.round(action.silentFor / 1e6);
        return this.lose(`no answer to pings for ${spent} ms (${action.reason})`);
      }
    }
    this.setAlarm();
  }

  private setAlarm(): void {
    if (!this.health || this.over) return;
    const due = [this.health.pollTimeout()[0], this.pathAt];
    if (this.lookAt !== null) due.push(this.lookAt);
    const { timeout } = this.setup.streams;
    if (this.attached && timeout !== null) due.push(timeout);
    this.alarm.set(Math.min(...due));
  }

  private lose(why: string): void {
    if (this.over) return;
    this.over = true;
    this.alarm.set(null);
    report('carrier', why);
    this.peer.close();
    this.listener.lost(why);
  }
}
