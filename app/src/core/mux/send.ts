/**
 * The sending half of a stream: what was not sent, what was sent and not
 * acknowledged, and how far the other end can take more. The same as
 * `tunnel/src/mux/send.rs`.
 */

import type { Bytes } from '../bytes';
import { FRAME_CHARGE } from './limits';
import { ByteQueue } from './queue';

/** Offsets are absolute; the end of the stream takes one. */
export class SendHalf {
  /** Offset of the first byte held. */
  private start = 0;
  private unacknowledged = new ByteQueue();
  private readonly pending = new ByteQueue();
  /** Offsets after each frame in flight. */
  private frameEnds: number[] = [];
  /** Highest offset ever sent, on any carrier. */
  private highest = 0;
  /** What was acknowledged when the last carrier was lost. */
  private settled = 0;
  private finishing = false;
  private finSent = false;
  private finAcknowledged = false;

  constructor(private credit: number) {}

  /** Bytes held for sending and for replay. */
  get held(): number {
    return this.unacknowledged.length + this.pending.length;
  }

  get unsent(): number {
    return this.pending.length;
  }

  /** What this half adds to the carrier's bytes in flight. */
  get inFlight(): number {
    return this.unacknowledged.length + this.frameEnds.length * FRAME_CHARGE;
  }

  get acknowledged(): number {
    return this.start + (this.finAcknowledged ? 1 : 0);
  }

  /** Everything was received by the other end, the end included. */
  get isDone(): boolean {
    return this.finAcknowledged;
  }

  get isFinishing(): boolean {
    return this.finishing;
  }

  push(bytes: Bytes): void {
    this.pending.push(bytes);
  }

  finish(): void {
    this.finishing = true;
  }

  private get sentTo(): number {
    return this.start + this.unacknowledged.length;
  }

  private get end(): number {
    return this.start + this.held;
  }

  /** Bytes that the next frame may have. */
  sendable(max: number): number {
    return Math.min(max, this.pending.length, Math.max(0, this.credit - this.sentTo));
  }

  get finDue(): boolean {
    return this.finishing && !this.finSent && !this.finAcknowledged && this.pending.length === 0;
  }

  get hasWork(): boolean {
    return this.finDue || this.sendable(1) > 0;
  }

  /** The next frame's offset and payload, at most `max` bytes. */
  take(max: number): { offset: number; bytes: Bytes } | null {
    const offset = this.sentTo;
    const bytes = this.pending.fill(this.sendable(max));
    if (!bytes) return null;
    this.unacknowledged.push(bytes);
    this.frameEnds.push(this.sentTo);
    this.highest = Math.max(this.highest, this.sentTo);
    return { offset, bytes };
  }

  /** The offset of the end, from now on sent. */
  takeFin(): number {
    this.finSent = true;
    this.highest = this.end + 1;
    return this.end;
  }

  /**
   * The other end has everything up to `received` and takes up to `credit`.
   * False for an ack of bytes that were never sent: nothing is left to go on from.
   */
  acknowledge(received: number, credit: number): boolean {
    if (received > this.highest) return false;
    this.credit = Math.max(this.credit, credit);
    const end = this.end;
    this.finAcknowledged ||= received > end;
    const known = Math.min(received, end);
    if (known > this.start) {
      const count = known - this.start;
      const replayed = Math.min(count, this.unacknowledged.length);
      this.unacknowledged.discard(replayed);
      // After a rewind the ack may cover what was not sent again yet.
      this.pending.discard(count - replayed);
      this.start = known;
      const kept = this.frameEnds.findIndex(frameEnd => frameEnd > known);
      this.frameEnds = kept < 0 ? [] : this.frameEnds.slice(kept);
    }
    return true;
  }

  /** As {@link acknowledge}, from a hello: one that takes back what was acknowledged asks for bytes that are gone. */
  agree(received: number, credit: number): boolean {
    return received >= this.settled && this.acknowledge(received, credit);
  }

  /** The carrier is gone, and with it whatever was not acknowledged. */
  rewind(): void {
    this.pending.prepend(this.unacknowledged);
    this.unacknowledged = new ByteQueue();
    this.frameEnds = [];
    this.finSent = false;
    this.settled = this.acknowledged;
  }
}
