/** Which stream sends next: short queues first, then the bulk in turns that are fair by bytes. The same as `tunnel/src/mux/schedule.rs`. */

import type { StreamId } from '../frame';

/** Where a stream waits: it has at most one frame to send, or more. */
export type Lane = 'quick' | 'bulk';

/** The two lanes. A stream waits at most once. */
export class Schedule {
  private quick: StreamId[] = [];
  /** With the bytes each may send before it is the next one's turn. */
  private bulk: { id: StreamId; deficit: number }[] = [];
  /** Bytes that the quick lane is ahead of the bulk lane that waits. */
  private quickLead = 0;

  /** `quantum`: bytes of one turn, a full frame. */
  constructor(private readonly quantum: number) {}

  add(id: StreamId, lane: Lane): void {
    if (lane === 'quick') this.quick.push(id);
    else this.bulk.push({ id, deficit: 0 });
  }

  /** The stream whose turn it is, among the lanes that are open. */
  front(quickOpen: boolean, bulkOpen: boolean): { id: StreamId; lane: Lane } | null {
    const quick = quickOpen ? this.quick[0] : undefined;
    const bulk = bulkOpen ? this.bulk[0]?.id : undefined;
    if (quick !== undefined && (bulk === undefined || this.quickLead < this.quantum))
      return { id: quick, lane: 'quick' };
    return bulk === undefined ? null : { id: bulk, lane: 'bulk' };
  }

  /** Whether the stream at the front of `lane` may send `bytes` in this turn. If not, the next one is up. */
  maySend(lane: Lane, bytes: number): boolean {
    if (lane === 'quick') return true;
    const first = this.bulk[0];
    if (!first) return false;
    if (first.deficit >= bytes) return true;
    this.bulk.shift();
    this.bulk.push({ id: first.id, deficit: first.deficit + this.quantum });
    return false;
  }

  /** The stream at the front of `lane` sent `bytes`. */
  sent(lane: Lane, bytes: number): void {
    if (lane === 'quick') {
      this.quickLead = this.bulk.length === 0 ? 0 : this.quickLead + bytes;
      return;
    }
    this.quickLead = Math.max(0, this.quickLead - bytes);
    const first = this.bulk[0];
    if (first) first.deficit = Math.max(0, first.deficit - bytes);
  }

  /** Takes the stream at the front of `lane` out. */
  pop(lane: Lane): void {
    if (lane === 'quick') this.quick.shift();
    else this.bulk.shift();
  }

  /** Takes a stream out, wherever it waits. */
  remove(id: StreamId): void {
    this.quick = this.quick.filter(other => other !== id);
    this.bulk = this.bulk.filter(other => other.id !== id);
  }

  clear(): void {
    this.quick = [];
    this.bulk = [];
    this.quickLead = 0;
  }
}
