/**
 * Time in the cores: whole nanoseconds, as numbers. Nanoseconds because the
 * Rust cores count in them, and the shared scenarios compare exactly; whole
 * numbers below 2^53 are exact and last 104 days of one page.
 */

/** A moment, since whatever the shell counts from. */
export type Instant = number;

/** A span. */
export type Duration = number;

/** Milliseconds as a span. */
export function ms(count: number): Duration {
  return count * 1_000_000;
}

/** Seconds as a span. */
export function seconds(count: number): Duration {
  return count * 1_000_000_000;
}

/** A span in milliseconds, for timers and people. */
export function toMs(span: Duration): number {
  return span / 1_000_000;
}

/** From `earlier` to `later`, not below zero. */
export function since(later: Instant, earlier: Instant): Duration {
  return Math.max(0, later - earlier);
}

/** Something due at a moment, and why. */
export type Due<Reason> = readonly [Instant, Reason];

/** The earliest; the first of equals; `null` where nothing is due. */
export function earliest<Reason>(...dues: readonly (Due<Reason> | null)[]): Due<Reason> | null {
  let soonest: Due<Reason> | null = null;
  for (const due of dues) if (due && (!soonest || due[0] < soonest[0])) soonest = due;
  return soonest;
}
