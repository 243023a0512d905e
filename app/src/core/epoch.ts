/**
 * Epochs: what makes the newest win. The count of starts in the upper bits, a
 * counter within this start in the lower ones; below 2^53.
 */

import { safe } from './schema';

export type Epoch = number;

/** Reads an epoch. */
export const epoch = safe;

/** Bits for the counter within one start. */
export const TURN_BITS = 22;

const TURN = 2 ** TURN_BITS;

/** Starts that fit below 2^53. */
export const MAX_STARTS = 2 ** (53 - TURN_BITS) - 1;

/** How far ahead of the newest known epoch a claim may be before it is refused as absurd. */
export const MAX_LEAP = 1_000_000 * TURN;

/** The last epoch there is. */
export const MAX: Epoch = 2 ** 53 - 1;

/** The first epoch of a device's `starts`-th start. */
export function ofStart(count: number): Epoch {
  return Math.min(count, MAX_STARTS) * TURN;
}

/** The epoch after this one. */
export function next(known: Epoch): Epoch {
  return known >= MAX ? MAX : known + 1;
}

/** The count of starts in this epoch. */
export function starts(known: Epoch): number {
  return Math.floor(known / TURN);
}

/** Whether `claimed` may follow `known`: newer, and not absurdly far ahead. */
export function follows(claimed: Epoch, known: Epoch): boolean {
  return claimed > known && !isAbsurdAfter(claimed, known);
}

/** Whether `claimed` is further ahead of `known` than any honest device gets. */
export function isAbsurdAfter(claimed: Epoch, known: Epoch): boolean {
  return claimed - known > MAX_LEAP;
}

/** As people read it: start and counter. */
export function display(known: Epoch): string {
  return `${starts(known)}.${known % TURN}`;
}
