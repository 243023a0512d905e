/**
 * Which tab of this browser owns the connections. One leads; the others follow
 * it. The browser's lock passes on by itself when the leading tab is closed or
 * crashes; what is decided here is when a follower takes it from a tab that is
 * still there but does not run: frozen in the background, or hung.
 *
 * Only a tab that is looked at takes over, and it asks before: a tab that
 * answers keeps the lead, visible or not, so nothing flaps.
 */

import { Jitter } from './backoff';
import { type Due, type Duration, type Instant, ms, seconds, since } from './time';

/** How often a follower that is looked at asks the leading tab: also what its timers go by while it is hidden. */
export const ASK_INTERVAL = ms(250);

/**
 * A hidden tab that does not answer for this long is frozen: a hidden tab is
 * never busy with drawing, and with what it takes to connect anew a person sees
 * the truth after about a second.
 */
export const HIDDEN_LIMIT = ms(700);

/** A visible tab is at worst busy; closed or crashed, its lock says so. */
export const VISIBLE_LIMIT = seconds(2);

/** Followers that notice together do not act together. */
export const SPREAD = ms(150);

/** From taking the lock by force to having it: the browser does that at once. */
export const STEAL_WITHIN = ms(1_000);

/** Later than due by more than this, this tab did not run itself: no silence of the other's. */
export const FROZEN = ms(200);

/** What happened. */
export type Event =
  /** This tab is looked at, or not. */
  | { kind: 'visible'; visible: boolean }
  /** The leading tab answered, and said whether it is looked at. */
  | { kind: 'answered'; visible: boolean }
  /** The lock is ours. */
  | { kind: 'granted' }
  /** Another tab took it. */
  | { kind: 'taken' };

/** What is to be done. */
export type Action = 'ask' | 'steal' | 'lead' | 'follow';

/** Why something is due. */
export type TimeoutReason = 'ask' | 'silence' | 'steal';

export class Leadership {
  private role: 'following' | 'stealing' | 'leading' = 'following';
  private leadVisible = false;
  /** The first question since the last answer. */
  private unanswered: Instant | null = null;
  private askAt: Instant;
  private stealBy: Instant = 0;
  private readonly spread: Duration;
  private readonly actions: Action[] = [];

  /** A tab that waits for the lock. */
  constructor(
    private visible: boolean,
    seed: bigint,
    now: Instant,
  ) {
    this.spread = new Jitter(seed).upTo(SPREAD);
    this.askAt = now;
    this.advance(now);
  }

  get leads(): boolean {
    return this.role === 'leading';
  }

  /** Takes what happened; ask {@link pollAction} afterwards until it is empty. */
  handle(event: Event, now: Instant): void {
    this.thaw(now);
    switch (event.kind) {
      case 'visible':
        if (event.visible && !this.visible) this.askAnew(now);
        this.visible = event.visible;
        break;
      case 'answered':
        this.leadVisible = event.visible;
        this.unanswered = null;
        break;
      case 'granted':
        if (this.role !== 'leading') this.actions.push('lead');
        this.role = 'leading';
        break;
      case 'taken':
        if (this.role !== 'leading') break;
        this.role = 'following';
        this.actions.push('follow');
        // Whoever took it is looked at.
        this.leadVisible = true;
        this.askAnew(now);
        break;
    }
    this.advance(now);
  }

  handleTimeout(now: Instant): void {
    this.thaw(now);
    this.advance(now);
  }

  pollAction(): Action | undefined {
    return this.actions.shift();
  }

  /** When {@link handleTimeout} is due; `null` while leading, and while nobody looks: the lock tells then. */
  pollTimeout(): Due<TimeoutReason> | null {
    if (this.role === 'stealing') return [this.stealBy, 'steal'];
    if (this.role === 'leading' || !this.visible) return null;
    const silence = this.silentAt();
    return silence !== null && silence <= this.askAt ? [silence, 'silence'] : [this.askAt, 'ask'];
  }

  private askAnew(now: Instant): void {
    this.unanswered = null;
    this.askAt = now;
  }

  private silentAt(): Instant | null {
    if (this.unanswered === null) return null;
    return this.unanswered + (this.leadVisible ? VISIBLE_LIMIT : HIDDEN_LIMIT) + this.spread;
  }

  /** A tab that did not run could not hear answers either. */
  private thaw(now: Instant): void {
    const due = this.pollTimeout();
    if (due && since(now, due[0]) > FROZEN && this.role === 'following') this.askAnew(now);
  }

  private advance(now: Instant): void {
    if (this.role === 'stealing' && this.stealBy <= now) {
      this.role = 'following';
      this.askAnew(now);
    }
    if (this.role !== 'following' || !this.visible) return;
    const silence = this.silentAt();
    if (silence !== null && silence <= now) {
      this.role = 'stealing';
      this.stealBy = now + STEAL_WITHIN;
      this.actions.push('steal');
    } else if (this.askAt <= now) {
      this.unanswered ??= now;
      this.askAt = now + ASK_INTERVAL;
      this.actions.push('ask');
    }
  }
}
