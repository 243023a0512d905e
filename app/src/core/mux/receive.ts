/** The receiving half of a stream: what waits for its reader, and how far the other end may send. The same as `tunnel/src/mux/receive.rs`. */

import type { Bytes } from '../bytes';
import { type Duration, type Instant, since } from '../time';
import * as limits from './limits';
import { ByteQueue } from './queue';

/** Why bytes or an end were not taken: something before them is missing, or they contradict what was said before. */
export type Refusal = { kind: 'gap'; expected: number } | { kind: 'broken' };

/** How soon an ack is worth its frame. */
export type Urgency = 'no' | 'soon' | 'now';

const BROKEN: Refusal = { kind: 'broken' };

export class ReceiveHalf {
  private readonly queue = new ByteQueue();
  /** Offset up to which the reader took everything. */
  private consumed = 0;
  /** Offset of the end, once known. */
  private end: number | null = null;
  /** What the last ack or hello said was received. */
  private announced = 0;
  /** How much may be granted beyond what was consumed. */
  private window = limits.INITIAL_WINDOW;
  /** When tuning began to watch the reader, and where it stood. */
  private mark: { at: Instant; offset: number } | null = null;

  /** `granted` is what the other end may count on before any ack. */
  constructor(private grantedTo: number) {}

  /** Bytes waiting for the reader. */
  get held(): number {
    return this.queue.length;
  }

  /** The reader took everything and the end was reached. */
  get isDone(): boolean {
    return this.end === this.consumed;
  }

  private get received(): number {
    return this.consumed + this.queue.length;
  }

  /** What an ack says: the end counts as received when the reader is there. */
  get acknowledgeable(): number {
    return this.received + (this.isDone ? 1 : 0);
  }

  /** Credit promised to the other end. */
  get granted(): number {
    return this.grantedTo;
  }

  /** An ack is owed for something that came. */
  get owesAck(): boolean {
    return this.announced < this.acknowledgeable;
  }

  /** Bytes that may be held or still come on what was granted. */
  get exposure(): number {
    return (this.end ?? this.grantedTo) - this.consumed;
  }

  /** Takes bytes; says how many of them were new. */
  accept(offset: number, bytes: Bytes): number | Refusal {
    const received = this.received;
    if (offset > received) return { kind: 'gap', expected: received };
    const stop = offset + bytes.length;
    if (stop > (this.end ?? this.grantedTo)) return BROKEN;
    if (stop <= received) return 0;
    const fresh = bytes.subarray(received - offset);
    // A small rest must not keep a large message's memory.
    const keepsMost = fresh.length >= Math.floor(bytes.length / 2);
    this.queue.push(keepsMost ? fresh : fresh.slice());
    return stop - received;
  }

  /** Takes the end; says whether it is news. */
  finish(offset: number): boolean | Refusal {
    const received = this.received;
    if (offset > received) return { kind: 'gap', expected: received };
    if (this.end !== null) return this.end === offset ? false : BROKEN;
    if (offset !== received) return BROKEN;
    this.end = offset;
    return true;
  }

  /** Hands at most `max` bytes to the reader and watches how fast it is. */
  read(max: number, now: Instant, roundTrip: Duration): Bytes | null {
    const from = this.consumed;
    const bytes = this.queue.take(max);
    if (!bytes) return null;
    this.consumed += bytes.length;
    this.tune(from, now, roundTrip);
    return bytes;
  }

  /** The window doubles where its reader takes half of it within two round trips, and halves where it is far slower. */
  private tune(from: number, now: Instant, roundTrip: Duration): void {
    this.mark ??= { at: now, offset: from };
    const elapsed = since(now, this.mark.at);
    const tookHalf = this.consumed - this.mark.offset > Math.floor(this.window / 2);
    if (elapsed > Math.max(limits.SHRINK_AT_LEAST, roundTrip * limits.SHRINK_ROUND_TRIPS)) {
      this.window = Math.max(Math.floor(this.window / 2), limits.INITIAL_WINDOW);
    } else if (tookHalf && elapsed <= 2 * roundTrip) {
      this.window = Math.min(this.window * 2, limits.MAX_WINDOW);
    } else if (!tookHalf) return;
    this.mark = { at: now, offset: this.consumed };
  }

  /** The credit to promise next, with `free` bytes left of the session's window. */
  private nextCredit(free: number): number {
    if (this.end !== null) return this.grantedTo;
    const held = this.exposure;
    const wanted = Math.max(0, this.window - held);
    const least = Math.max(0, limits.MIN_WINDOW - held);
    return this.grantedTo + Math.max(Math.min(wanted, Math.floor(free / 2)), least);
  }

  /** How soon the other end should hear. */
  urgency(free: number): Urgency {
    const unannounced = this.acknowledgeable - this.announced;
    const step = Math.max(limits.ACK_STEP, Math.floor(this.window / 4));
    if (unannounced >= step || (this.isDone && unannounced > 0)) return 'now';
    const more = this.nextCredit(free) - this.grantedTo;
    const left = this.grantedTo - this.received;
    if (more >= limits.GRANT_STEP && more >= Math.min(left, Math.floor(this.window / 2))) return 'now';
    return unannounced > 0 || (more > 0 && left < limits.GRANT_STEP) ? 'soon' : 'no';
  }

  /** What to say now. From here on it is promised. */
  announce(free: number): { received: number; credit: number } {
    this.grantedTo = this.nextCredit(free);
    this.announced = this.acknowledgeable;
    return { received: this.announced, credit: this.grantedTo };
  }
}
