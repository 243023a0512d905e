/**
 * The place of this browser at the broker and the farms, and the count of its
 * starts. Tabs share one: only the leading tab takes it. A copy of the
 * browser's profile takes it from us, and we go on in the next.
 */

import { type Epoch, isAbsurdAfter, ofStart, starts } from '../core/epoch';
import { SLOT_COUNT } from '../core/id';
import type { Store } from './store';

/** A slot, as long as this tab leads. */
export class HeldSlot {
  private jumped = false;

  private constructor(
    readonly slot: number,
    private start: number,
    private readonly store: Store,
  ) {}

  /** Takes the first slot and counts this start: what had it before is superseded. */
  static async take(store: Store): Promise<HeldSlot> {
    return new HeldSlot(0, await store.countStart(0), store);
  }

  /**
   * Takes one that nobody has taken from us yet; `null` where none is left. Its epochs follow `used`, the newest
   * of ours, since streams and carriers go by them.
   */
  async takeNext(used: Epoch): Promise<HeldSlot | null> {
    const slot = this.slot + 1;
    if (slot >= SLOT_COUNT) return null;
    return new HeldSlot(slot, await this.store.countStart(slot, starts(used) + 1), this.store);
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
