/**
 * The auto-reconnect manager: keeps a device's one WebSocket to the broker,
 * for ever, and sends the smart heartbeat over it. The same as
 * `tunnel/src/link.rs`.
 */

import { Backoff, FIRST_RETRY_WITHIN, Jitter, RateLimit } from './backoff';
import { type Cause, Heartbeat } from './link/heartbeat';
import { Rotation } from './link/rotation';
import { type Due, type Duration, type Instant, ms, seconds, since } from './time';

/** An attempt whose socket does not open within this time is given up. */
export const CONNECT_DEADLINE = seconds(8);
/** A broker that accepted but does not let us in within this time is given up. */
export const AUTHENTICATE_DEADLINE = seconds(5);
/** The cap of the backoff. */
export const LONGEST_WAIT = seconds(8);
/** The second retry waits up to this, the third up to twice as long, … */
export const BACKOFF_BASE = ms(250);
/** Attempts begin at least this far apart. */
export const CONNECT_DEBOUNCE = ms(250);
/** An attempt that began this shortly before the path was seen to be back was made on it. */
export const ON_NEW_PATH = ms(50);
/** Attempts that may follow each other in a burst, then one every {@link CONNECT_EVERY}. */
export const CONNECT_BURST = 10;
export const CONNECT_EVERY = seconds(2);
/** Of the burst, what attempts without a network leave for when it is back. */
export const CONNECT_KEPT = 4;
/** Time between attempts while the broker refuses us until somebody does something about it. */
export const REFUSED_RETRY = seconds(60);
export const REFUSED_SPREAD = seconds(6);
/** Longest explanation kept of why the link is offline, in characters. */
export const MAX_EXPLANATION = 200;

/** One WebSocket of many over time: what an old one still reports is a no-op. */
export type SocketId = number;

/** What one socket reports. */
export type SocketEvent =
  | { kind: 'opened' }
  | { kind: 'failed'; why: string }
  | { kind: 'closed'; why: string }
  | { kind: 'welcomed'; heartbeatInterval: Duration }
  | { kind: 'refused'; permanent: boolean; explanation: string }
  | { kind: 'retry_after'; told: Duration }
  | { kind: 'received' }
  | { kind: 'heartbeat_answered'; sequence: number; addressChanged: boolean };

/** Something that happened to the link or around it. */
export type Event =
  | { kind: 'start' }
  | { kind: 'stop' }
  | { kind: 'socket'; socket: SocketId; event: SocketEvent }
  | { kind: 'network_changed'; change: 'up' | 'down' | 'address_changed' }
  | { kind: 'address_changed' }
  | { kind: 'attention'; watched: boolean }
  | { kind: 'path_back' }
  | { kind: 'probe_answered' }
  | { kind: 'probe_lost' };

/** Why the link is offline. */
export type Reason =
  | { kind: 'started' | 'stopped' | 'connect_timed_out' | 'authentication_timed_out' | 'network_changed' }
  | { kind: 'connect_failed' | 'closed' | 'refused_for_now' | 'refused'; why: string }
  | { kind: 'heartbeat_unanswered' | 'asked_to_wait'; span: Duration };

/** Where the link to the broker stands. Only `stopped` has no deadline. */
export type State =
  | { kind: 'stopped' }
  | { kind: 'offline'; until: Instant; attempt: number; reason: Reason }
  | { kind: 'connecting'; deadline: Instant; attempt: number }
  | { kind: 'authenticating'; deadline: Instant; attempt: number }
  | { kind: 'online' };

/** What the shell is to do. */
export type Action =
  | { kind: 'connect'; socket: SocketId }
  | { kind: 'close'; socket: SocketId; reason: Reason }
  | { kind: 'send_heartbeat'; socket: SocketId; sequence: number; cause: Cause }
  | { kind: 'goodbye'; socket: SocketId }
  | { kind: 'changed'; state: State };

/** Which deadline {@link Link.pollTimeout} is about. */
export type TimeoutReason = 'retry' | 'connect' | 'authenticate' | 'heartbeat_due' | 'heartbeat_unanswered';

/** The link at one moment, for status displays. */
export interface Snapshot {
  state: State;
  since: Instant;
  reason: Reason;
  attempt: number;
  nextAttempt: Instant | null;
  networkUp: boolean;
  rtt: Duration | null;
  lastAnswered: Instant | null;
  lastReceived: Instant | null;
}

function bounded(explanation: string): string {
  return Array.from(explanation).slice(0, MAX_EXPLANATION).join('');
}

/** Whether the broker itself said so: such a wait stands whatever our own network does. */
function isBrokersWord(reason: Reason): boolean {
  return reason.kind === 'refused' || reason.kind === 'asked_to_wait';
}

export class Link {
  private state: State = { kind: 'stopped' };
  private since: Instant;
  private reason: Reason = { kind: 'stopped' };
  private attempt = 0;
  private socket: SocketId | null = null;
  private sockets = 0;
  private lastConnect: Instant | null = null;
  /** The attempt began before the network changed, and is cut short for it. */
  private cutShort = false;
  /** Attempts in a row that were cut short. */
  private cuts = 0;
  private networkUp = true;
  private probeLost = false;
  private readonly backoff: Backoff;
  private readonly rate = new RateLimit(CONNECT_BURST, CONNECT_EVERY);
  private readonly heartbeat: Heartbeat;
  private readonly rotation: Rotation;
  private readonly actions: Action[] = [];

  /**
   * A stopped link. `seed` spreads its retries: devices must differ in it. Where the device may use
   * any of several brokers and one is gone, refuses for now or asks to wait, the next one is tried
   * at once.
   */
  constructor(seed: bigint, now: Instant, brokers = 1) {
    this.since = now;
    this.rotation = new Rotation(brokers);
    this.backoff = new Backoff(BACKOFF_BASE, LONGEST_WAIT, new Jitter(seed));
    this.heartbeat = new Heartbeat(now);
  }

  /** Which broker the action `connect` is about, from 0. */
  get broker(): number {
    return this.rotation.current;
  }

  /** Takes in what happened. Actions may follow. */
  handle(event: Event, now: Instant): void {
    switch (event.kind) {
      case 'start':
        this.start(now);
        break;
      case 'stop':
        this.stop(now);
        break;
      case 'socket':
        if (this.socket === event.socket) this.onSocket(event.event, now);
        break;
      case 'network_changed':
        this.networkUp = event.change !== 'down';
        if (this.networkUp) this.onChange('network_changed', now);
        break;
      case 'address_changed':
        this.onChange('address_changed', now);
        break;
      case 'attention':
        this.heartbeat.setWatched(event.watched);
        if (!event.watched) break;
        if (this.state.kind === 'online') this.heartbeat.want('attention', now);
        else if (this.state.kind === 'offline') this.onChange('attention', now);
        break;
      case 'path_back':
        this.pathBack(now);
        break;
      case 'probe_answered': {
        const back = this.probeLost;
        this.probeLost = false;
        if (back && this.state.kind === 'offline') this.onChange('network_changed', now);
        break;
      }
      case 'probe_lost': {
        // Only the first: where UDP is blocked every probe is lost.
        const first = !this.probeLost;
        this.probeLost = true;
        if (first && this.state.kind === 'online') this.heartbeat.want('probe_lost', now);
        break;
      }
    }
    this.advance(now);
  }

  /** Does what is due. */
  handleTimeout(now: Instant): void {
    this.advance(now);
  }

  /** The next thing to do, if any. */
  pollAction(): Action | undefined {
    return this.actions.shift();
  }

  /** When {@link handleTimeout} is to be called, and why; `null` only while stopped. */
  pollTimeout(): Due<TimeoutReason> | null {
    switch (this.state.kind) {
      case 'stopped':
        return null;
      case 'offline':
        return [this.state.until, 'retry'];
      case 'connecting':
        return [this.state.deadline, 'connect'];
      case 'authenticating':
        return [this.state.deadline, 'authenticate'];
      case 'online':
        return this.heartbeat.timeout();
    }
  }

  /** The link at this moment, for status displays. */
  snapshot(): Snapshot {
    return {
      state: this.state,
      since: this.since,
      reason: this.reason,
      attempt: this.attempt,
      nextAttempt: this.state.kind === 'offline' ? this.state.until : null,
      networkUp: this.networkUp,
      rtt: this.heartbeat.rtt.smoothed,
      lastAnswered: this.heartbeat.lastAnswered,
      lastReceived: this.heartbeat.lastReceived,
    };
  }

  /** Whether the broker let us in and has not failed a heartbeat since. */
  get isOnline(): boolean {
    return this.state.kind === 'online';
  }

  private start(now: Instant): void {
    if (this.state.kind === 'stopped') {
      this.reason = { kind: 'started' };
      this.waitUntil(now, now);
    } else if (this.state.kind === 'offline') {
      this.backoff.reset();
      this.retryAtOnce(now);
    }
  }

  private stop(now: Instant): void {
    if (this.state.kind === 'stopped') return;
    if (this.state.kind === 'online' && this.socket !== null)
      this.actions.push({ kind: 'goodbye', socket: this.socket });
    this.reason = { kind: 'stopped' };
    this.close();
    this.backoff.reset();
    this.attempt = 0;
    this.change({ kind: 'stopped' }, now);
  }

  private onSocket(event: SocketEvent, now: Instant): void {
    const online = this.state.kind === 'online';
    switch (event.kind) {
      case 'opened':
        if (this.state.kind === 'connecting') {
          this.cutShort = false;
          const deadline = now + AUTHENTICATE_DEADLINE;
          this.change({ kind: 'authenticating', deadline, attempt: this.state.attempt }, now);
        }
        break;
      case 'failed':
        this.socket = null;
        this.lose({ kind: 'connect_failed', why: bounded(event.why) }, now);
        break;
      case 'closed':
        this.socket = null;
        this.lose({ kind: 'closed', why: bounded(event.why) }, now);
        break;
      case 'welcomed':
        if (this.state.kind === 'authenticating') {
          this.cuts = 0;
          this.rotation.succeeded();
          this.heartbeat.begin(event.heartbeatInterval, now);
          this.change({ kind: 'online' }, now);
        }
        break;
      case 'refused':
        this.lose(
          { kind: event.permanent ? 'refused' : 'refused_for_now', why: bounded(event.explanation) },
          now,
        );
        break;
      case 'retry_after':
        this.lose({ kind: 'asked_to_wait', span: event.told }, now);
        break;
      case 'received':
        if (online) this.heartbeat.received(now);
        break;
      case 'heartbeat_answered':
        if (!online) break;
        this.heartbeat.answered(event.sequence, now);
        if (event.addressChanged) this.heartbeat.want('address_changed', now);
        break;
    }
  }

  /** Something says that the way to the broker may be another one now: forget how long we meant to wait. */
  private onChange(cause: Cause, now: Instant): void {
    if (this.state.kind === 'offline' && isBrokersWord(this.state.reason)) return;
    this.backoff.reset();
    switch (this.state.kind) {
      case 'stopped':
        break;
      case 'offline':
        this.retryAtOnce(now);
        break;
      case 'connecting':
      case 'authenticating': {
        // The attempt may wait for a resolver or a route of the old network: begin anew, but with a
        // patience that doubles, so that a flood of changes can't starve slow handshakes.
        const patience = CONNECT_DEBOUNCE * 2 ** Math.min(this.cuts, 6);
        const cut = Math.max(this.lastConnect === null ? now : this.lastConnect + patience, now);
        if (cut < this.state.deadline) {
          this.state = { ...this.state, deadline: cut };
          this.cutShort = true;
        }
        break;
      }
      case 'online':
        this.heartbeat.want(cause, now);
        break;
    }
  }

  /** The way to the broker was gone and is there again. What TCP holds is sent when its timer says so; a new connection carries data at once. */
  private pathBack(now: Instant): void {
    this.probeLost = false;
    if (this.isOnline && this.heartbeat.isWaitingForLong(now)) {
      this.backoff.reset();
      this.lose({ kind: 'network_changed' }, now);
      // It was a connection, no attempt that was cut short.
      this.cuts = 0;
    }

    const fresh = this.socket !== null && this.lastConnect !== null && now < this.lastConnect + ON_NEW_PATH;
    if (this.isOnline || !fresh) this.onChange('network_changed', now);
  }

  private advance(now: Instant): void {
    // Each round leaves a deadline later than `now`, or one thing less to do.
    while (this.step(now));
  }

  private step(now: Instant): boolean {
    switch (this.state.kind) {
      case 'stopped':
        return false;
      case 'offline':
        if (this.state.until > now) return false;
        this.connect(now);
        return true;
      case 'connecting':
      case 'authenticating': {
        if (this.state.deadline > now) return false;
        const timedOut = this.state.kind === 'connecting' ? 'connect_timed_out' : 'authentication_timed_out';
        this.lose({ kind: this.cutShort ? 'network_changed' : timedOut }, now);
        return true;
      }
      case 'online': {
        const outcome = this.heartbeat.poll(now, this.backoff.jitter);
        if (outcome?.kind === 'send' && this.socket !== null) {
          const { sequence, cause } = outcome;
          this.actions.push({ kind: 'send_heartbeat', socket: this.socket, sequence, cause });
          return true;
        }
        if (outcome?.kind === 'dead') {
          this.lose({ kind: 'heartbeat_unanswered', span: outcome.waited }, now);
          return true;
        }
        return false;
      }
    }
  }

  private connect(now: Instant): void {
    const socket = this.sockets;
    this.sockets += 1;
    this.socket = socket;
    this.lastConnect = now;
    this.rate.take(now);
    this.attempt += 1;
    this.cutShort = false;
    this.actions.push({ kind: 'connect', socket });
    this.change({ kind: 'connecting', deadline: now + CONNECT_DEADLINE, attempt: this.attempt }, now);
  }

  /** The connection or attempt is over: wait for the next. */
  private lose(reason: Reason, now: Instant): void {
    const wasOnline = this.state.kind === 'online';
    if (wasOnline && this.backoff.endedAfter(since(now, this.since))) this.attempt = 0;
    this.cuts = reason.kind === 'network_changed' ? this.cuts + 1 : 0;
    this.reason = reason;
    this.close();
    let until: Instant;
    if (this.rotation.movesOn(reason)) until = now + this.backoff.jitter.upTo(FIRST_RETRY_WITHIN);
    else if (reason.kind === 'refused')
      until = now + REFUSED_RETRY + this.backoff.jitter.upTo(REFUSED_SPREAD);
    else if (reason.kind === 'asked_to_wait') until = now + this.backoff.retryAfter(reason.span);
    else {
      // What an attempt took counts as waited. A connection that was up has earned no such credit.
      const from = wasOnline || this.lastConnect === null ? now : this.lastConnect;
      until = from + this.backoff.nextDelay();
    }
    this.waitUntil(until, now);
  }

  private close(): void {
    if (this.socket === null) return;
    this.actions.push({ kind: 'close', socket: this.socket, reason: this.reason });
    this.socket = null;
  }

  private retryAtOnce(now: Instant): void {
    if (this.state.kind !== 'offline') return;
    this.state = { ...this.state, until: Math.min(this.earliestConnect(now), this.state.until) };
  }

  private waitUntil(until: Instant, now: Instant): void {
    const from = Math.max(until, this.earliestConnect(now));
    this.change({ kind: 'offline', until: from, attempt: this.attempt, reason: this.reason }, now);
  }

  private earliestConnect(now: Instant): Instant {
    const debounced = this.lastConnect === null ? now : Math.max(this.lastConnect + CONNECT_DEBOUNCE, now);
    return this.rate.readyKeeping(this.networkUp ? 0 : CONNECT_KEPT, debounced);
  }

  private change(state: State, now: Instant): void {
    if (this.state.kind === 'online') this.heartbeat.end(now);
    this.state = state;
    this.since = now;
    this.actions.push({ kind: 'changed', state });
  }
}
