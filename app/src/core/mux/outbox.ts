/** Frames without bytes of a stream, each kind at most once per stream. The same as in `tunnel/src/mux/outgoing.rs`. */

import type { Frame, StreamId } from '../frame';
import type { Instant } from '../time';
import { ACK_DELAY, ACK_SESSION_STEP, MAX_ANSWERS } from './limits';

function popLowest(set: { keys(): Iterable<StreamId>; delete(id: StreamId): boolean }): StreamId | null {
  let lowest: StreamId | null = null;
  for (const id of set.keys()) if (lowest === null || id < lowest) lowest = id;
  if (lowest !== null) set.delete(lowest);
  return lowest;
}

export class Outbox {
  /** Last words about streams that are gone. */
  private readonly answers = new Map<StreamId, Frame>();
  private readonly acks = new Set<StreamId>();
  private readonly laterAcks = new Set<StreamId>();
  private readonly opens = new Set<StreamId>();
  private due: Instant | null = null;
  /** Bytes received since the later acks last were due. */
  private received = 0;

  /** Whether a peer that provokes answers has to read some first. */
  get isFull(): boolean {
    return this.answers.size >= MAX_ANSWERS;
  }

  answer(frame: Frame): void {
    this.answers.set(frame.stream, frame);
  }

  ack(id: StreamId): void {
    this.dropLaterAck(id);
    this.acks.add(id);
  }

  ackLater(id: StreamId, now: Instant): void {
    if (this.acks.has(id) || this.laterAcks.has(id)) return;
    this.laterAcks.add(id);
    this.due ??= now + ACK_DELAY;
  }

  open(id: StreamId): void {
    this.opens.add(id);
  }

  /** When the delayed acks are due. */
  get acksDue(): Instant | null {
    return this.due;
  }

  /** Counts what was received, since the other end waits for its acks. */
  countReceived(bytes: number): void {
    this.received += bytes;
    if (this.received >= ACK_SESSION_STEP) this.releaseAcks();
  }

  /** Makes every ack due. */
  releaseAcks(): void {
    this.received = 0;
    for (const id of this.laterAcks) this.acks.add(id);
    this.laterAcks.clear();
    this.due = null;
  }

  /** Forgets what was owed to a stream but its answer. */
  forget(id: StreamId): void {
    this.dropLaterAck(id);
    this.acks.delete(id);
    this.opens.delete(id);
  }

  popAnswer(): Frame | null {
    let lowest: StreamId | null = null;
    for (const id of this.answers.keys()) if (lowest === null || id < lowest) lowest = id;
    const frame = lowest === null ? undefined : this.answers.get(lowest);
    if (lowest !== null) this.answers.delete(lowest);
    return frame ?? null;
  }

  popAck(): StreamId | null {
    return popLowest(this.acks);
  }

  popOpen(): StreamId | null {
    return popLowest(this.opens);
  }

  private dropLaterAck(id: StreamId): void {
    if (this.laterAcks.delete(id) && this.laterAcks.size === 0) this.due = null;
  }
}
