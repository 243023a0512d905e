/** A queue of bytes made of the pieces they came in. The same as `tunnel/src/mux/queue.rs`. */

import type { Bytes } from '../bytes';
import { concat } from '../bytes';

/** Pieces below this size are merged once there are too many. */
const SMALL = 1024;
/** Pieces held whatever their size before merging is considered. */
const SLACK = 64;
/** Small pieces are copied together up to this size. */
const GATHER = 16 * 1024;

/** Bytes in order. Large pieces are passed through without a copy; many small ones are merged. */
export class ByteQueue {
  private pieces: Bytes[] = [];
  /** Pieces before this one were taken; they are dropped in bulk. */
  private head = 0;
  private total = 0;

  get length(): number {
    return this.total;
  }

  /** Adds bytes at the end. */
  push(bytes: Bytes): void {
    if (bytes.length === 0) return;
    this.total += bytes.length;
    this.pieces.push(bytes);
    this.mergeIfMany();
  }

  /** Puts `earlier`, which is given up, in front of these. */
  prepend(earlier: ByteQueue): void {
    this.pieces = [...earlier.pieces.slice(earlier.head), ...this.pieces.slice(this.head)];
    this.head = 0;
    this.total += earlier.total;
    this.mergeIfMany();
  }

  /** Takes up to `max` bytes from the front in one piece; fewer where that saves a copy. `null` if there are none. */
  take(max: number): Bytes | null {
    const first = this.pieces[this.head];
    if (!first || max === 0) return null;
    const alone =
      first.length >= Math.floor(Math.min(max, GATHER) / 2) || this.pieces.length - this.head === 1;
    const bytes = alone ? this.takeFromFirst(max) : this.gather(Math.min(max, GATHER, this.total));
    this.total -= bytes.length;
    return bytes;
  }

  /** Takes `max` bytes from the front in one piece, or all where there are fewer: for a frame, whose message costs more than a copy of its bytes. */
  fill(max: number): Bytes | null {
    const full = Math.min(max, this.total);
    const first = this.pieces[this.head];
    if (!first || full === 0) return null;
    const bytes = first.length >= full ? this.takeFromFirst(full) : this.gather(full);
    this.total -= bytes.length;
    return bytes;
  }

  /** Drops `count` bytes from the front. */
  discard(count: number): void {
    let left = Math.min(count, this.total);
    this.total -= left;
    while (left > 0) left -= this.takeFromFirst(left).length;
  }

  private takeFromFirst(max: number): Bytes {
    const first = this.pieces[this.head];
    if (!first) return new Uint8Array();
    if (first.length > max) {
      this.pieces[this.head] = first.subarray(max);
      return first.subarray(0, max);
    }
    this.head += 1;
    if (this.head > SLACK && this.head * 2 > this.pieces.length) {
      this.pieces = this.pieces.slice(this.head);
      this.head = 0;
    }
    return first;
  }

  private gather(size: number): Bytes {
    const parts: Bytes[] = [];
    let left = size;
    while (left > 0) {
      const part = this.takeFromFirst(left);
      parts.push(part);
      left -= part.length;
    }
    return concat(...parts);
  }

  private mergeIfMany(): void {
    if (this.pieces.length - this.head <= SLACK + 4 * Math.floor(this.total / SMALL)) return;
    const merged: Bytes[] = [];
    let small: Bytes[] = [];
    let size = 0;
    const flush = () => {
      if (size > 0) merged.push(concat(...small));
      small = [];
      size = 0;
    };
    for (const piece of this.pieces.slice(this.head)) {
      const isSmall = piece.length < SMALL;
      if (!isSmall || size + piece.length > GATHER) flush();
      if (isSmall) {
        small.push(piece);
        size += piece.length;
      } else merged.push(piece);
    }
    flush();
    this.pieces = merged;
    this.head = 0;
  }
}
