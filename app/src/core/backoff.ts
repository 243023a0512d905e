/** When to try again, and how often at most. The same as `tunnel/src/backoff.rs`. */

import { type Duration, type Instant, ms, seconds } from './time';

/** The first retry comes within this time. */
export const FIRST_RETRY_WITHIN = ms(50);

/** How long a connection must have been up before its loss counts as a new failure. */
export const STABLE_AFTER = seconds(10);

/** The longest wait a server can ask for. */
export const MAX_RETRY_AFTER = seconds(300);

const MASK = (1n << 64n) - 1n;

/** A seeded source of randomness for delays (splitmix64). It is no secret: never use it for keys or nonces. */
export class Jitter {
  constructor(private state: bigint) {}

  /** The next 64 bits. */
  nextU64(): bigint {
    this.state = (this.state + 0x9e3779b97f4a7c15n) & MASK;
    let mixed = ((this.state ^ (this.state >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
    mixed = ((mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn) & MASK;
    return mixed ^ (mixed >> 31n);
  }

  /** Evenly spread over `0..=most`. */
  upTo(most: Duration): Duration {
    return Number((this.nextU64() * (BigInt(most) + 1n)) >> 64n);
  }

  /** Evenly spread over `least..=most`; `least` when `most` is smaller. */
  between(least: Duration, most: Duration): Duration {
    return least + this.upTo(Math.max(0, most - least));
  }
}

/** Delays between attempts: the first at once, then exponential with full jitter. It has no last attempt. */
export class Backoff {
  private tried = 0;

  constructor(
    private readonly base: Duration,
    private readonly cap: Duration,
    /** The source of randomness, also for delays that are not retries. */
    readonly jitter: Jitter,
  ) {}

  /** How long to wait before the next attempt, which this call counts. */
  nextDelay(): Duration {
    const most = this.tried === 0 ? FIRST_RETRY_WITHIN : this.base * 2 ** Math.min(this.tried - 1, 20);
    this.tried += 1;
    return this.jitter.upTo(Math.min(most, this.cap));
  }

  /** How long to wait when the server named the time: never less, and spread. */
  retryAfter(told: Duration): Duration {
    const bounded = Math.min(told, MAX_RETRY_AFTER);
    const spread = Math.min(Math.max(bounded, seconds(1)), seconds(10));
    return bounded + this.jitter.upTo(spread);
  }

  /** Something positive happened: the next attempt is a first one again. */
  reset(): void {
    this.tried = 0;
  }

  /** A connection ended after it was up for `upFor`; whether that was long enough to start again from the first delay. */
  endedAfter(upFor: Duration): boolean {
    const stable = upFor >= STABLE_AFTER;
    if (stable) this.reset();
    return stable;
  }

  /** Delays handed out since the last reset. */
  get attempts(): number {
    return this.tried;
  }
}

/** At most `burst` events at once and one per `every` in the long run (the generic cell rate algorithm of ITU-T I.371). */
export class RateLimit {
  private wholeAt: Instant | null = null;

  constructor(
    private readonly burst: number,
    private readonly every: Duration,
  ) {}

  /** The earliest moment, not before `now`, at which one more is allowed. */
  readyAt(now: Instant): Instant {
    return this.readyKeeping(0, now);
  }

  /** The same, with `kept` of the burst left for what matters more. */
  readyKeeping(kept: number, now: Instant): Instant {
    const slack = this.every * Math.max(0, this.burst - 1 - kept);
    return this.wholeAt !== null && this.wholeAt > now + slack ? this.wholeAt - slack : now;
  }

  /** Counts one event, which the caller saw to be allowed at `now`. */
  take(now: Instant): void {
    this.wholeAt = Math.max(this.wholeAt ?? now, now) + this.every;
  }
}
