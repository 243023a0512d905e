/** An outage by the other end's word: how much of it the farm had no power or no network. */

import type { Absence } from './control';

/** What of an outage is not the tunnel's fault. */
export interface Excused {
  milliseconds: number;
  why: Absence['w'];
}

/**
 * How long within an outage (milliseconds since 1970) the farm could not be
 * there, and why for the last part of that; `null` where it says nothing.
 */
export function excused(from: number, to: number, absences: readonly Absence[]): Excused | null {
  const within = absences
    // Whether a reason of a newer version counts is not for this one to say.
    .filter(({ w }) => w !== 'other')
    .map(({ a, l, w }) => ({ from: Math.max(from, a * 1000), to: Math.min(to, (a + l) * 1000), why: w }))
    .sort((one, other) => one.from - other.from);
  // They may overlap, where a clock was set between two words.
  let [counted, milliseconds] = [from, 0];
  let why: Absence['w'] | null = null;
  for (const part of within) {
    const more = part.to - Math.max(part.from, counted);
    if (more <= 0) continue;
    counted = part.to;
    milliseconds += more;
    why = part.why;
  }
  return why && { milliseconds, why };
}
