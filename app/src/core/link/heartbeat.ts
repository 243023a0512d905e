/** The smart heartbeat: regularly, at once on a change; an answer is the only proof. The same as `tunnel/src/link/heartbeat.rs`. */

import { type Jitter, RateLimit } from '../backoff';
import { Rtt } from '../health/rtt';
import { type Due, type Duration, type Instant, ms, seconds, since } from '../time';

/** Time between heartbeats unless the broker asks for another. */
export const HEARTBEAT_INTERVAL = seconds(60);
export const MIN_HEARTBEAT_INTERVAL = seconds(10);
export const MAX_HEARTBEAT_INTERVAL = seconds(300);
/** Time between heartbeats while somebody is looking. */
export const WATCHED_HEARTBEAT_INTERVAL = seconds(10);
/** When a regular heartbeat without answer means that the link is dead. */
export const ANSWER_DEADLINE = seconds(7);
/** The same for one that asks whether the link survived a change: 3 × the round trip within these. */
export const LONGEST_PROBE = seconds(2);
export const SHORTEST_PROBE = ms(500);
/** Changes come in bursts: one heartbeat for all of them within this time. */
export const CHANGE_DEBOUNCE = ms(250);
/** Heartbeats that may follow each other, then one every {@link HEARTBEAT_EVERY}. */
export const HEARTBEAT_BURST = 10;
export const HEARTBEAT_EVERY = seconds(2);

/** Something came this recently: a lost STUN probe says nothing about the broker then. */
const JUST_HEARD = seconds(1);

/** Unanswered heartbeats remembered. */
const MAX_UNANSWERED = 16;

/** Why a heartbeat is sent. */
export type Cause =
  | 'connected'
  | 'regular'
  | 'network_changed'
  | 'address_changed'
  | 'attention'
  | 'probe_lost';

/** What is to be done now. */
export type Outcome = { kind: 'send'; sequence: number; cause: Cause } | { kind: 'dead'; waited: Duration };

interface Unanswered {
  sequence: number;
  sentAt: Instant;
  deadline: Instant;
}

/** The heartbeats of one connection. */
export class Heartbeat {
  rtt = new Rtt();
  lastAnswered: Instant | null = null;
  lastReceived: Instant | null = null;
  private interval = HEARTBEAT_INTERVAL;
  private watched = false;
  private sequence = 0;
  private wanted: Cause | null = null;
  private due: Instant;
  private lastSent: Instant | null = null;
  private unanswered: Unanswered[] = [];
  private readonly rate = new RateLimit(HEARTBEAT_BURST, HEARTBEAT_EVERY);

  constructor(now: Instant) {
    this.due = now;
  }

  /** A new connection. The rate limit stays, or flapping would evade it. */
  begin(interval: Duration, now: Instant): void {
    this.interval = Math.min(Math.max(interval, MIN_HEARTBEAT_INTERVAL), MAX_HEARTBEAT_INTERVAL);
    this.sequence = 0;
    this.wanted = 'connected';
    this.due = now;
    this.lastSent = null;
    this.unanswered = [];
    this.rtt = new Rtt();
    this.lastAnswered = null;
    this.lastReceived = now;
  }

  /** The connection ended: nothing of it is shown as if it still held. */
  end(now: Instant): void {
    this.begin(HEARTBEAT_INTERVAL, now);
    this.wanted = null;
    this.lastReceived = null;
  }

  /** Counts from the next heartbeat on, which attention itself causes. */
  setWatched(watched: boolean): void {
    this.watched = watched;
  }

  /** A heartbeat is to go out at once, or as soon as the debounce allows. */
  want(cause: Cause, now: Instant): void {
    const justHeard = this.lastReceived !== null && since(now, this.lastReceived) < JUST_HEARD;
    if (!(cause === 'probe_lost' && justHeard)) this.wanted = cause;
  }

  received(now: Instant): void {
    this.lastReceived = now;
  }

  /** An answer proves that the link carried all earlier heartbeats too. */
  answered(sequence: number, now: Instant): void {
    this.received(now);
    const at = this.unanswered.findIndex(sent => sent.sequence === sequence);
    const sent = this.unanswered.splice(0, at + 1).at(-1);
    if (!sent) return;
    this.rtt.sample(since(now, sent.sentAt));
    this.lastAnswered = now;
  }

  /** Whether a heartbeat waits for an answer longer than a working path needs. */
  isWaitingForLong(now: Instant): boolean {
    const first = this.unanswered[0];
    return first !== undefined && now >= first.sentAt + SHORTEST_PROBE;
  }

  poll(now: Instant, jitter: Jitter): Outcome | null {
    const dead = this.firstToFail();
    if (dead && dead.deadline <= now) return { kind: 'dead', waited: since(now, dead.sentAt) };
    if (this.sendAt() > now) return null;
    const cause = this.wanted ?? 'regular';
    return { kind: 'send', sequence: this.send(cause, now, jitter), cause };
  }

  timeout(): Due<'heartbeat_due' | 'heartbeat_unanswered'> {
    const [due, failing] = [this.sendAt(), this.firstToFail()];
    return failing && failing.deadline <= due
      ? [failing.deadline, 'heartbeat_unanswered']
      : [due, 'heartbeat_due'];
  }

  private firstToFail(): Unanswered | null {
    let first: Unanswered | null = null;
    for (const sent of this.unanswered) if (!first || sent.deadline < first.deadline) first = sent;
    return first;
  }

  private sendAt(): Instant {
    if (this.wanted === null || this.lastSent === null) return this.rate.readyAt(this.due);
    return this.rate.readyAt(this.lastSent + CHANGE_DEBOUNCE);
  }

  private send(cause: Cause, now: Instant, jitter: Jitter): number {
    let answerWithin = ANSWER_DEADLINE;
    if (cause === 'probe_lost') answerWithin = LONGEST_PROBE;
    else if (cause !== 'regular' && cause !== 'connected') {
      const rtt = this.rtt.smoothed;
      answerWithin =
        rtt === null ? LONGEST_PROBE : Math.min(Math.max(rtt * 3, SHORTEST_PROBE), LONGEST_PROBE);
    }
    this.sequence = (this.sequence + 1) % 2 ** 32;
    this.wanted = null;
    this.lastSent = now;
    this.rate.take(now);
    if (this.unanswered.length < MAX_UNANSWERED) {
      this.unanswered.push({ sequence: this.sequence, sentAt: now, deadline: now + answerWithin });
    }
    // Up to a tenth early, never late.
    const interval = this.watched ? Math.min(this.interval, WATCHED_HEARTBEAT_INTERVAL) : this.interval;
    this.due = now + interval - jitter.upTo(Math.floor(interval / 10));
    return this.sequence;
  }
}
