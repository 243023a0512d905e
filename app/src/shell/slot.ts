/**
 * Slots: tabs that share this phone's key each take one, with a lock that the
 * browser drops when the tab goes, and count their starts in the store. Each
 * tab has its own session, so they never fight over one.
 */

import { type Epoch, isAbsurdAfter, ofStart, starts } from '../core/epoch';
import { SLOT_COUNT } from '../core/id';
import type { Store } from './store';

/** A slot, held as long as the page lives. */
export class HeldSlot {
  private jumped = false;

  private constructor(
    readonly slot: number,
    private start: number,
    private readonly store: Store,
  ) {}

  /** Takes the lowest free slot and counts this start; `null` where all are taken. */
  static async take(store: Store): Promise<HeldSlot | null> {
    return HeldSlot.takeFrom(store, 0);
  }

  /**
   * Takes one that nobody has taken from us yet: lost ones stay locked, and below. Its epochs follow `used`,
   * the newest of ours, since streams and carriers go by them.
   */
  async takeNext(used: Epoch): Promise<HeldSlot | null> {
    return HeldSlot.takeFrom(this.store, this.slot + 1, starts(used) + 1);
  }

  private static async takeFrom(store: Store, first: number, least = 0): Promise<HeldSlot | null> {
    for (let slot = first; slot < SLOT_COUNT; slot++) {
      if (await lock(`farm-tunnel-slot-${slot}`))
        return new HeldSlot(slot, await store.countStart(slot, least), store);
    }
    return null;
  }

  /** The first epoch of this start. */
  get epoch(): Epoch {
    return ofStart(this.start);
  }

  /** Counts past an epoch that the broker knows of us: once per start and not absurdly far, since nothing proves its word. */
  async jumpPast(newest: Epoch): Promise<Epoch | null> {
    if (this.jumped || isAbsurdAfter(newest, this.epoch)) return null;
    this.jumped = true;
    this.start = await this.store.countStart(this.slot, starts(newest) + 1);
    return this.epoch;
  }
}

function lock(name: string): Promise<boolean> {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise(resolve => {
    void navigator.locks.request(name, { ifAvailable: true }, held => {
      resolve(held !== null);
      // Held until the page is gone.
      return held ? new Promise(() => undefined) : undefined;
    });
  });
}
