/**
 * The health monitor of one carrier. Answered pings are the only proof of
 * life. The same as `tunnel/src/health.rs`.
 */

import { type Grade, Quality } from './health/quality';
import * as timing from './health/timing';
import { type Due, type Duration, earliest, type Instant, since } from './time';

/** Something that happened to a carrier or around it. */
export type Event =
  | { kind: 'ping_answered'; number: number }
  | { kind: 'ping_received' }
  | { kind: 'data_received' }
  | { kind: 'data_due' }
  | { kind: 'network_changed' }
  | { kind: 'attention'; watched: boolean };

/** What a dead carrier was like. */
export type DeadReason = 'never_answered' | 'silent' | 'one_way';

/** What the shell is to do. */
export type Action =
  | { kind: 'send_ping'; number: number }
  | { kind: 'alive' }
  | { kind: 'dead'; reason: DeadReason; silentFor: Duration }
  | { kind: 'grade_changed'; grade: Grade };

/** Where the monitor stands. */
export type Phase = 'starting' | 'alive' | 'doubted' | 'dead';

/** Which deadline {@link Health.pollTimeout} is about. */
export type TimeoutReason = 'ping' | 'doubt' | 'death';

/** A carrier's health at one moment, for status displays. */
export interface Snapshot {
  phase: Phase;
  since: Instant;
  grade: Grade | null;
  rtt: Duration | null;
  latestRtt: Duration | null;
  jitter: Duration;
  loss: number;
  lastAnswered: Instant | null;
  lastHeard: Instant | null;
}

const clamp = (span: Duration, least: Duration, most: Duration) => Math.min(Math.max(span, least), most);

export class Health {
  private phase: Phase = 'starting';
  private since: Instant;
  private number = 0;
  private lastPing: Instant | null = null;
  /** A ping is wanted at once. */
  private probe = true;
  private dataDue = false;
  /** When the pings since the last proof were sent, the first few of them. */
  private unanswered: Instant[] = [];
  /** The last proof of life or the start, moved on over the time in which this page could not run. */
  private silentSince: Instant;
  private lastAnswered: Instant | null = null;
  private lastHeard: Instant | null = null;
  /** When our network last changed: only a later ping's answer is a proof. */
  private changedAt: Instant | null = null;
  private readonly quality = new Quality();
  private readonly actions: Action[] = [];

  /** Begins to ping at once. */
  constructor(
    private watched: boolean,
    now: Instant,
  ) {
    this.since = now;
    this.silentSince = now;
    this.advance(now);
  }

  /** Takes in what happened. Actions may follow. */
  handle(event: Event, now: Instant): void {
    this.thaw(now);
    switch (event.kind) {
      case 'ping_answered':
        this.onAnswer(event.number, now);
        break;
      case 'ping_received':
        this.lastHeard = now;
        break;
      case 'data_received':
        this.lastHeard = now;
        this.dataDue = false;
        break;
      case 'data_due': {
        this.dataDue = true;
        // A ping on its way already asks the same.
        const asked = this.lastPing !== null && now < this.lastPing + timing.DATA_DUE_DEBOUNCE;
        this.probe ||= !asked;
        break;
      }
      case 'network_changed':
        if (this.changedAt === null || now >= this.changedAt + timing.CHANGE_DEBOUNCE) {
          this.changedAt = now;
          this.doubt(now);
        }
        break;
      case 'attention':
        this.watched = event.watched;
        if (event.watched && now >= this.silentSince + timing.WATCHED_INTERVAL) this.doubt(now);
        break;
    }
    this.advance(now);
  }

  /** Does what is due. */
  handleTimeout(now: Instant): void {
    this.thaw(now);
    this.advance(now);
  }

  /** The next thing to do, if any. */
  pollAction(): Action | undefined {
    return this.actions.shift();
  }

  /** When {@link handleTimeout} is to be called, and why. There is always a next time. */
  pollTimeout(): Due<TimeoutReason> {
    const [doubt, death] = [this.doubtAt(), this.deathAt()];
    const ping: Due<TimeoutReason> = [this.pingAt(), 'ping'];
    return (
      earliest<TimeoutReason>(
        death === null ? null : [death, 'death'],
        doubt === null ? null : [doubt, 'doubt'],
        ping,
      ) ?? ping
    );
  }

  /** The health at this moment, for status displays. */
  state(now: Instant): Snapshot {
    return {
      phase: this.phase,
      since: this.since,
      grade: this.quality.grade,
      rtt: this.quality.rtt.smoothed,
      latestRtt: this.quality.rtt.latest,
      jitter: this.quality.rtt.jitter,
      loss: this.quality.loss(this.answerOverdue(), now),
      lastAnswered: this.lastAnswered,
      lastHeard: this.lastHeard,
    };
  }

  private onAnswer(number: number, now: Instant): void {
    this.lastHeard = now;
    const sentAt = this.quality.answered(number, now);
    if (sentAt === null || (this.changedAt !== null && sentAt < this.changedAt)) return;
    this.unanswered = [];
    this.silentSince = now;
    this.lastAnswered = now;
    if (this.phase === 'starting' || this.phase === 'dead') this.actions.push({ kind: 'alive' });
    this.enter('alive', now);
    this.graded(this.quality.gradeAnswer(this.answerOverdue(), now));
  }

  private graded(grade: Grade | null): void {
    if (grade !== null) this.actions.push({ kind: 'grade_changed', grade });
  }

  /** Asks at once and quickly. */
  private doubt(now: Instant): void {
    this.probe = true;
    if (this.phase === 'alive') this.enter('doubted', now);
  }

  private enter(phase: Phase, now: Instant): void {
    if (this.phase === phase) return;
    this.phase = phase;
    this.since = now;
  }

  private advance(now: Instant): void {
    for (;;) {
      const [death, doubt] = [this.deathAt(), this.doubtAt()];
      if (death !== null && death <= now) this.die(now);
      else if (doubt !== null && doubt <= now) this.enter('doubted', now);
      else if (this.pingAt() <= now) this.ping(now);
      else return;
    }
  }

  /** A page that did not run (a sleeping phone, a throttled tab) could not hear answers: that time is no silence. */
  private thaw(now: Instant): void {
    const late = since(now, this.pollTimeout()[0]);
    if (late <= timing.FROZEN) return;
    this.silentSince += late;
    this.unanswered = this.unanswered.map(sent => sent + late);
  }

  private ping(now: Instant): void {
    const number = this.number;
    this.number = (number + 1) % 2 ** 32;
    this.probe = false;
    this.lastPing = now;
    if (this.unanswered.length < timing.UNANSWERED_TO_DIE) this.unanswered.push(now);
    this.quality.sent(number, now);
    this.actions.push({ kind: 'send_ping', number });
  }

  private die(now: Instant): void {
    let reason: DeadReason = 'silent';
    if (this.lastAnswered === null) reason = 'never_answered';
    else if (this.lastHeard !== null && now < this.lastHeard + timing.ONE_WAY_HEARD) reason = 'one_way';
    const silentFor = since(now, this.silentSince);
    this.enter('dead', now);
    this.actions.push({ kind: 'dead', reason, silentFor });
    this.graded(this.quality.lost());
  }

  private pingAt(): Instant {
    if (this.lastPing === null) return this.since;
    return this.lastPing + (this.probe ? timing.QUICK_INTERVAL : this.interval(this.lastPing));
  }

  private interval(last: Instant): Duration {
    if (this.phase === 'starting' || this.phase === 'doubted') {
      const decisive = this.decisivePing();
      const quick = this.watched && (decisive === null || last < decisive + timing.QUICK_AFTER_DECISIVE);
      return quick ? timing.QUICK_INTERVAL : timing.SLOW_QUICK_INTERVAL;
    }
    if (!this.watched) return timing.UNWATCHED_INTERVAL;
    const busy = this.phase === 'alive' && (this.dataDue || this.unanswered.length > 0);
    return busy ? timing.BUSY_INTERVAL : timing.WATCHED_INTERVAL;
  }

  /** When the oldest unanswered ping raises doubt. */
  private doubtAt(): Instant | null {
    const oldest = this.unanswered[0];
    if (this.phase !== 'alive' || oldest === undefined) return null;
    const usual = this.quality.rtt.answerWithin ?? timing.LONGEST_TRUST;
    return oldest + clamp(usual, timing.SHORTEST_TRUST, timing.LONGEST_TRUST);
  }

  /** How long a ping may stay unanswered before it counts as lost. */
  private answerOverdue(): Duration {
    const usual = this.quality.rtt.answerWithin ?? timing.LONGEST_TRUST;
    return clamp(usual, timing.SHORTEST_OVERDUE, timing.LONGEST_OVERDUE);
  }

  /** When the last of the pings was sent that make the carrier dead. */
  private decisivePing(): Instant | null {
    return this.unanswered[timing.UNANSWERED_TO_DIE - 1] ?? null;
  }

  /** When the carrier is dead, if nothing answers until then. */
  private deathAt(): Instant | null {
    const sent = this.decisivePing();
    if (this.phase === 'dead' || sent === null) return null;
    const decisive = sent + this.answerOverdue();
    const starting = this.phase === 'starting';
    const shortest = starting ? timing.START_GRACE : timing.SHORTEST_SILENCE;
    const watchedLimit = this.watched ? timing.WATCHED_LIMIT : timing.UNWATCHED_LIMIT;
    const longest = starting ? timing.START_GRACE : watchedLimit;
    const quiet = this.lastHeard === null ? decisive : this.lastHeard + timing.QUIET;
    const [soonest, latest] = [this.silentSince + shortest, this.silentSince + longest];
    return Math.max(decisive, soonest, Math.min(quiet, latest));
  }
}
