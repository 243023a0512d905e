/**
 * Streams as the app uses them: the shell around `mux`. They outlive carriers,
 * which attach one after the other by epoch; users never notice a change of
 * carrier, only a pause.
 */

import { type Bytes, concat } from '../core/bytes';
import type { Epoch } from '../core/epoch';
import { type Frame, MAX_PAYLOAD, type ResetReason, type StreamId, type StreamState } from '../core/frame';
import { type Event, Mux } from '../core/mux';
import { IN_FLIGHT_LIMIT } from '../core/mux/limits';
import type { Duration, Instant } from '../core/time';
import { now } from './clock';

/** Most bytes handed to a reader at once. */
const READ_AT_ONCE = 256 * 1024;

/** Why a stream gives no more bytes, or takes none. */
export class StreamReset extends Error {
  constructor(readonly reason: ResetReason) {
    super(reason);
  }
}

interface End {
  reader: (() => void) | null;
  writer: (() => void) | null;
  established: boolean;
  finished: boolean;
  reset: ResetReason | null;
}

/** One connection through the tunnel to a service. */
export interface TunnelStream {
  /** What came next, `null` at the end. Throws {@link StreamReset}. */
  read(): Promise<Bytes | null>;
  /** Takes all of it, waiting for room. Throws {@link StreamReset}. */
  write(bytes: Bytes): Promise<void>;
  /** No bytes will follow. */
  finish(): void;
  /** Ends it at once. */
  abort(): void;
}

export class Streams {
  private readonly mux = new Mux({ maxPayload: MAX_PAYLOAD, inFlightLimit: IN_FLIGHT_LIMIT });
  private readonly ends = new Map<StreamId, End>();
  private current: Epoch | null = null;
  private ended: ResetReason | null = null;
  /** Called when there may be something to send. */
  onWork: () => void = () => undefined;

  /** Opens a stream; it works at once, also while no carrier is there: what is written waits. */
  open(service: string): TunnelStream {
    if (this.ended !== null) throw new StreamReset(this.ended);
    const id = this.mux.open(service);
    const end: End = { reader: null, writer: null, established: false, finished: false, reset: null };
    this.ends.set(id, end);
    this.after();
    return {
      read: () => this.read(id, end),
      write: bytes => this.write(id, end, bytes),
      finish: () => {
        if (end.reset === null && this.ends.has(id)) this.mux.finish(id);
        this.after();
      },
      abort: () => {
        if (!this.ends.delete(id)) return;
        this.mux.reset(id, 'aborted');
        this.wake(end, 'aborted');
        this.after();
      },
    };
  }

  /** Ends the session: every stream is reset with this reason. */
  end(reason: ResetReason): void {
    this.ended = reason;
    this.mux.resetAll(reason);
    this.after();
  }

  /** The session goes on after an end. */
  revive(): void {
    this.ended = null;
  }

  /** Live streams. */
  get count(): number {
    return this.mux.streamCount;
  }

  /** Bytes held. */
  get bufferedBytes(): number {
    return this.mux.bufferedBytes;
  }

  /** Whether bytes that were sent wait for their acknowledgement. */
  get isWaitingForAcks(): boolean {
    return this.mux.inFlight > 0;
  }

  /** A carrier is about to say hello: the former's frames count no more. `null` where a newer one has. */
  greet(epoch: Epoch): StreamState[] | null {
    if (this.current !== null && epoch < this.current) return null;
    this.current = epoch;
    this.mux.carrierLost();
    return this.mux.hello();
  }

  /** The other side's hello on this carrier. Throws `Violation`. */
  resume(epoch: Epoch, peer: readonly StreamState[]): void {
    if (this.current !== epoch) return;
    this.mux.resume(peer, now());
    this.after();
  }

  /** A frame of this carrier. Throws `Violation`. */
  frame(epoch: Epoch, frame: Frame): void {
    if (this.current !== epoch) return;
    this.mux.handleFrame(frame, now());
    this.after();
  }

  /** The next frame for this carrier, if any. */
  nextFrame(epoch: Epoch): Frame | null {
    if (this.current !== epoch) return null;
    const frame = this.mux.pollTransmit(now());
    this.deliver();
    return frame;
  }

  /** When {@link handleTimeout} is due. */
  get timeout(): Instant | null {
    return this.mux.pollTimeout()?.[0] ?? null;
  }

  handleTimeout(): void {
    this.mux.handleTimeout(now());
    this.after();
  }

  setRoundTripTime(roundTrip: Duration): void {
    this.mux.setRoundTripTime(roundTrip);
  }

  private after(): void {
    this.deliver();
    this.onWork();
  }

  private deliver(): void {
    for (let event = this.mux.pollEvent(); event; event = this.mux.pollEvent()) this.tell(event);
  }

  private tell(event: Event): void {
    const end = this.ends.get(event.id);
    if (!end) return;
    switch (event.kind) {
      case 'established':
        end.established = true;
        break;
      case 'readable':
        end.reader?.();
        break;
      case 'writable':
        end.writer?.();
        break;
      case 'finished':
        end.finished = true;
        end.reader?.();
        break;
      case 'reset':
        this.ends.delete(event.id);
        this.wake(end, event.reason);
        break;
      case 'closed':
        this.ends.delete(event.id);
        break;
    }
  }

  private wake(end: End, reason: ResetReason): void {
    end.reset = reason;
    end.reader?.();
    end.writer?.();
  }

  private async read(id: StreamId, end: End): Promise<Bytes | null> {
    for (;;) {
      const parts: Bytes[] = [];
      for (let size = 0; this.ends.has(id) && size < READ_AT_ONCE; ) {
        const bytes = this.mux.read(id, READ_AT_ONCE - size, now());
        if (!bytes) break;
        parts.push(bytes);
        size += bytes.length;
      }
      const [first] = parts;
      if (first) {
        this.after();
        return parts.length === 1 ? first : concat(...parts);
      }
      if (end.reset !== null) throw new StreamReset(end.reset);
      if (end.finished) return null;
      await new Promise<void>(resolve => {
        end.reader = resolve;
      });
      end.reader = null;
    }
  }

  private async write(id: StreamId, end: End, bytes: Bytes): Promise<void> {
    let rest = bytes;
    while (rest.length > 0) {
      if (end.reset !== null) throw new StreamReset(end.reset);
      // Complete and acknowledged: the other end wants no more.
      if (!this.ends.has(id)) throw new StreamReset('aborted');
      const taken = this.mux.write(id, rest);
      rest = rest.subarray(taken);
      // Before anything moves: room may come while it does.
      const room = new Promise<void>(resolve => {
        end.writer = resolve;
      });
      this.after();
      if (rest.length > 0) await room;
      end.writer = null;
    }
  }
}
