/** How good a carrier is: round trip, jitter, loss, and a grade for people. The same as `tunnel/src/health/quality.rs`. */

import { type Duration, type Instant, ms, seconds, since } from '../time';
import { Rtt } from './rtt';

/** Loss is counted over this many pings. */
export const LOSS_WINDOW = 64;

/** Up to here a path is good, and fair. */
export const GOOD_RTT = ms(150);
export const FAIR_RTT = ms(400);

/** Shares of round trips lost; single precision, as the Rust core compares. */
export const GOOD_LOSS = Math.fround(0.035);
export const FAIR_LOSS = Math.fround(0.1);

export const GOOD_JITTER = ms(30);
export const FAIR_JITTER = ms(100);

/** A better grade must hold this long before it is shown; a worse one shows at once. */
export const BETTER_HOLD = seconds(5);

/** A carrier's quality in one word, best first. */
export type Grade = 'good' | 'fair' | 'poor' | 'lost';

const ORDER: readonly Grade[] = ['good', 'fair', 'poor', 'lost'];

/** The grade of an answering path. */
export function gradeOf(rtt: Duration, jitter: Duration, loss: number): Grade {
  if (rtt <= GOOD_RTT && jitter <= GOOD_JITTER && loss <= GOOD_LOSS) return 'good';
  return rtt <= FAIR_RTT && jitter <= FAIR_JITTER && loss <= FAIR_LOSS ? 'fair' : 'poor';
}

interface Sent {
  number: number;
  at: Instant;
  answered: boolean;
}

/** What is known of a carrier's quality. */
export class Quality {
  readonly rtt = new Rtt();
  grade: Grade | null = null;
  private readonly window: Sent[] = [];
  private betterSince: Instant | null = null;

  sent(number: number, at: Instant): void {
    if (this.window.length === LOSS_WINDOW) this.window.shift();
    this.window.push({ number, at, answered: false });
  }

  /** When the answered ping was sent; `null` for one that is unknown, long ago, or answered before. */
  answered(number: number, now: Instant): Instant | null {
    const sent = this.window.find(one => one.number === number && !one.answered);
    if (!sent) return null;
    sent.answered = true;
    this.rtt.sample(since(now, sent.at));
    return sent.at;
  }

  /** Share of round trips lost, 0 to 1; what may still be answered within `answerWithin` counts neither way. */
  loss(answerWithin: Duration, now: Instant): number {
    const settled = this.window.filter(sent => sent.answered || sent.at + answerWithin <= now);
    const lost = settled.filter(sent => !sent.answered).length;
    return Math.fround(lost / Math.max(settled.length, 1));
  }

  /** Grades the path after an answer; returns the grade if it changed. */
  gradeAnswer(answerWithin: Duration, now: Instant): Grade | null {
    const smoothed = this.rtt.smoothed;
    if (smoothed === null) return null;
    const measured = gradeOf(smoothed, this.rtt.jitter, this.loss(answerWithin, now));
    const shown = this.grade;
    if (shown === measured) {
      this.betterSince = null;
      return null;
    }
    if (shown !== null && shown !== 'lost' && ORDER.indexOf(measured) < ORDER.indexOf(shown)) {
      this.betterSince ??= now;
      return since(now, this.betterSince) >= BETTER_HOLD ? this.show(measured) : null;
    }
    return this.show(measured);
  }

  /** The carrier is dead; returns the grade if it changed. */
  lost(): Grade | null {
    return this.grade === 'lost' ? null : this.show('lost');
  }

  private show(grade: Grade): Grade {
    this.betterSince = null;
    this.grade = grade;
    return grade;
  }
}
