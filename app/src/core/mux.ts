/**
 * The multiplexer, the phone's end: the byte streams of one session over one
 * carrier after the other. The same as `tunnel/src/mux.rs`, which explains it.
 *
 * How to drive it: `hello()` to the peer and `resume()` with the peer's, on
 * every carrier, the first included. After every call drain `pollEvent()` and,
 * while the transport takes frames, `pollTransmit()`; call `handleTimeout()`
 * at `pollTimeout()`.
 */

import type { Bytes } from './bytes';
import { type Frame, MAX_TARGET, type ResetReason, type StreamId, type StreamState } from './frame';
import * as limits from './mux/limits';
import { Outbox } from './mux/outbox';
import { ReceiveHalf, type Refusal } from './mux/receive';
import { Schedule } from './mux/schedule';
import { SendHalf } from './mux/send';
import { type Due, type Duration, earliest, type Instant } from './time';

/** The other end broke the protocol in a way that one stream's reset can't repair: close the carrier. */
export class Violation extends Error {}

/** A stream can't be opened, or can't do what was asked. */
export class StreamError extends Error {
  constructor(readonly kind: 'gone' | 'finished' | 'too_many_streams' | 'bad_target' | 'exhausted') {
    super(kind);
  }
}

/** What the owner of a multiplexer should know. */
export type Event =
  | { kind: 'established'; id: StreamId }
  | { kind: 'readable'; id: StreamId }
  | { kind: 'writable'; id: StreamId }
  | { kind: 'finished'; id: StreamId }
  | { kind: 'reset'; id: StreamId; reason: ResetReason }
  | { kind: 'closed'; id: StreamId };

/** How a stream ended here, for a peer that missed it. */
type Outcome =
  | { kind: 'complete'; received: number; credit: number }
  | { kind: 'reset'; reason: ResetReason };

interface Stream {
  send: SendHalf;
  receive: ReceiveHalf;
  /** What to open, until the farm is known to have it; `sent` on some carrier. */
  opening: { target: string; sent: boolean } | null;
  /** This carrier's offsets are agreed: it may send. */
  agreed: boolean;
  /** This carrier's hello listed it. */
  listed: boolean;
  /** It waits in the schedule. */
  scheduled: boolean;
  /** When the peer's answer is overdue. */
  answerBy: Instant | null;
  /** The reader was told and did not empty the queue since. */
  readableTold: boolean;
  /** The writer was refused bytes and waits for room. */
  writerWaits: boolean;
}

/** What streams use of the session's bounds. */
interface Usage {
  busy: number;
  send: number;
  receive: number;
  inFlight: number;
  exposure: number;
}

const isRefusal = (taken: unknown): taken is Refusal => typeof taken === 'object';

export class Mux {
  private readonly config: limits.Config;
  private roundTrip: Duration = limits.ASSUMED_ROUND_TRIP;
  /** In order of their numbers, since those only grow. */
  private readonly streams = new Map<StreamId, Stream>();
  private lastId: StreamId = 0;
  private readonly tombstones = new Map<StreamId, Outcome>();
  private resumed = false;
  private outbox = new Outbox();
  private readonly schedule: Schedule;
  private events: Event[] = [];
  private readonly usage: Usage = { busy: 0, send: 0, receive: 0, inFlight: 0, exposure: 0 };

  /** No streams, and no carrier yet. */
  constructor(
    config: limits.Config = { maxPayload: limits.DEFAULT_PAYLOAD, inFlightLimit: limits.IN_FLIGHT_LIMIT },
  ) {
    this.config = limits.withinBounds(config);
    this.schedule = new Schedule(this.config.maxPayload);
  }

  /** Opens a stream to a service; the carrier may be away. Throws {@link StreamError}. */
  open(target: string): StreamId {
    if (target.length < 1 || target.length > MAX_TARGET) throw new StreamError('bad_target');
    if (this.streams.size >= limits.MAX_STREAMS) throw new StreamError('too_many_streams');
    if (this.lastId >= 0xffff_ffff) throw new StreamError('exhausted');
    this.lastId += 1;
    const receive = new ReceiveHalf(0);
    receive.announce(this.freeWindow);
    this.insert(this.lastId, {
      send: new SendHalf(limits.MIN_WINDOW),
      receive,
      opening: { target, sent: false },
      agreed: true,
      listed: false,
      scheduled: false,
      answerBy: null,
      readableTold: false,
      writerWaits: false,
    });
    if (this.resumed) this.outbox.open(this.lastId);
    return this.lastId;
  }

  /** Takes the beginning of `bytes` and says how much. If some are left, `writable` says when to go on. */
  write(id: StreamId, bytes: Bytes): number {
    const stream = this.streams.get(id);
    if (!stream) throw new StreamError('gone');
    if (stream.send.isFinishing) throw new StreamError('finished');
    const count = Math.min(this.room(stream), bytes.length);
    this.with(id, one => {
      one.send.push(bytes.subarray(0, count));
      one.writerWaits ||= count < bytes.length;
    });
    this.scheduleStream(id);
    return count;
  }

  /** Declares the end of what is written; the other direction goes on. */
  finish(id: StreamId): void {
    const stream = this.streams.get(id);
    if (!stream) throw new StreamError('gone');
    stream.send.finish();
    stream.writerWaits = false;
    this.scheduleStream(id);
  }

  /** Ends a stream at once, in both directions. No event about it follows. */
  reset(id: StreamId, reason: ResetReason): void {
    if (this.dropStream(id, reason)) this.events = this.events.filter(event => event.id !== id);
  }

  /** Ends all streams, each with a `reset` event. */
  resetAll(reason: ResetReason): void {
    for (const id of [...this.streams.keys()]) this.fail(id, reason);
  }

  /** At most `max` bytes of what came, `null` when there are none now. */
  read(id: StreamId, max: number, now: Instant): Bytes | null {
    const bytes = this.with(id, stream => {
      const taken = stream.receive.read(max, now, this.roundTrip);
      if (taken) stream.readableTold &&= stream.receive.held > 0;
      else stream.readableTold = false;
      return taken;
    });
    if (!bytes) return null;
    this.weighAck(id, now);
    this.afterReading(id);
    return bytes;
  }

  /** What happened since, in order. */
  pollEvent(): Event | undefined {
    return this.events.shift();
  }

  /** When to call {@link handleTimeout}, and why. */
  pollTimeout(): Due<'acks' | 'answer'> | null {
    const acks = this.resumed ? this.outbox.acksDue : null;
    const answer = this.firstDeadline();
    return earliest<'acks' | 'answer'>(
      acks === null ? null : [acks, 'acks'],
      answer ? [answer.at, 'answer'] : null,
    );
  }

  /** Does what is due. */
  handleTimeout(now: Instant): void {
    const acks = this.outbox.acksDue;
    if (acks !== null && acks <= now) this.outbox.releaseAcks();
    for (;;) {
      const due = this.firstDeadline();
      if (!due || due.at > now) return;
      const opening = this.streams.get(due.id)?.opening;
      this.fail(due.id, opening ? 'service_unavailable' : 'restarted');
    }
  }

  /** The carrier's round trip, for the windows. */
  setRoundTripTime(roundTrip: Duration): void {
    this.roundTrip = Math.min(Math.max(roundTrip, limits.MIN_ROUND_TRIP), limits.MAX_ROUND_TRIP);
  }

  /** Whether the peer's hello came on this carrier. */
  get isResumed(): boolean {
    return this.resumed;
  }

  /** Bytes held for sending, for replay and for readers. */
  get bufferedBytes(): number {
    return this.usage.send + this.usage.receive;
  }

  /** Bytes sent on this carrier and not acknowledged, with the frames' charge. */
  get inFlight(): number {
    return this.usage.inFlight;
  }

  /** Live streams. */
  get streamCount(): number {
    return this.streams.size;
  }

  /** The carrier is gone, or is about to be replaced: nothing is sent until {@link resume}. */
  carrierLost(): void {
    this.resumed = false;
    this.schedule.clear();
    this.outbox = new Outbox();
    for (const id of this.streams.keys()) {
      this.with(id, stream => {
        stream.send.rewind();
        stream.agreed = false;
        stream.scheduled = false;
        stream.answerBy = null;
      });
    }
  }

  /** Where every stream stands; taken once for each carrier, after {@link carrierLost}. */
  hello(): StreamState[] {
    const states: StreamState[] = [];
    for (const id of this.streams.keys()) {
      const free = this.freeWindow;
      this.with(id, stream => {
        stream.listed = stream.opening === null;
        if (!stream.listed) return;
        const { received, credit } = stream.receive.announce(free);
        states.push({ s: id, r: received, c: credit });
      });
    }
    return states;
  }

  /** Takes the other end's hello: sending begins. Throws {@link Violation}. */
  resume(peer: readonly StreamState[], now: Instant): void {
    if (this.resumed) throw new Violation('a second hello on the same carrier');
    if (peer.length > limits.MAX_STREAMS) throw new Violation(`a hello with ${peer.length} streams`);
    const listed = new Set<StreamId>();
    for (const state of peer) {
      if (listed.has(state.s)) throw new Violation(`a hello that lists stream ${state.s} twice`);
      listed.add(state.s);
    }
    for (const state of peer) this.resumeListed(state);
    this.resumed = true;
    for (const id of [...this.streams.keys()]) if (!listed.has(id)) this.resumeUnlisted(id, now);
  }

  private resumeListed(state: StreamState): void {
    const id = state.s;
    const stream = this.streams.get(id);
    if (!stream) {
      const outcome = this.tombstones.get(id);
      this.answer(
        outcome ? this.outcomeFrame(id, outcome) : { kind: 'reset', stream: id, reason: 'restarted' },
      );
      return;
    }
    if (!this.with(id, one => one.send.agree(state.r, state.c))) return this.fail(id, 'protocol_error');
    // The other end waits to hear where this side stands.
    if (!stream.listed) this.outbox.ack(id);
    this.agree(id);
  }

  private resumeUnlisted(id: StreamId, now: Instant): void {
    const stream = this.streams.get(id);
    if (!stream) return;
    if (stream.opening) {
      stream.agreed = true;
      this.outbox.open(id);
      this.scheduleStream(id);
    } else if (!stream.agreed) stream.answerBy = now + limits.RESUME_ANSWER_DEADLINE;
  }

  /** Takes a frame of the present carrier; works before {@link resume} too. Throws {@link Violation}. */
  handleFrame(frame: Frame, now: Instant): void {
    const id = frame.stream;
    switch (frame.kind) {
      case 'open':
        throw new Violation(`the farm opened stream ${id}`);
      case 'data': {
        const taken = this.with(id, stream => stream.receive.accept(frame.offset, frame.bytes));
        if (taken === undefined) return this.onStranger(id);
        if (isRefusal(taken)) return this.refused(id, frame.offset, taken);
        this.establish(id);
        if (taken > 0) this.tellReadable(id);
        this.weighAck(id, now);
        return this.outbox.countReceived(taken);
      }
      case 'ack': {
        const known = this.with(id, stream => stream.send.acknowledge(frame.received, frame.credit));
        if (known === undefined) {
          if (!this.isPast(id)) throw new Violation(`stream ${id} was never opened`);
          return;
        }
        return known ? this.agree(id) : this.fail(id, 'protocol_error');
      }
      case 'fin': {
        const taken = this.with(id, stream => stream.receive.finish(frame.offset));
        if (taken === undefined) return this.onStranger(id);
        if (isRefusal(taken)) return this.refused(id, frame.offset, taken);
        this.establish(id);
        if (taken) this.afterReading(id);
        return this.weighAck(id, now);
      }
      case 'reset':
        if (this.remove(id)) this.events.push({ kind: 'reset', id, reason: frame.reason });
        return;
    }
  }

  /** Bytes or an end for a stream that is not live. */
  private onStranger(id: StreamId): void {
    if (!this.isPast(id)) throw new Violation(`stream ${id} was never opened`);
    // On their way when it was closed here; the peer was told.
    if (this.tombstones.has(id)) return;
    this.answer({ kind: 'reset', stream: id, reason: 'restarted' });
  }

  private isPast(id: StreamId): boolean {
    return id >= 1 && id <= this.lastId;
  }

  /** An answer that the peer provoked. */
  private answer(frame: Frame): void {
    if (this.outbox.isFull) throw new Violation('too many answers wait');
    this.outbox.answer(frame);
  }

  private refused(id: StreamId, offset: number, refusal: Refusal): void {
    if (refusal.kind === 'gap')
      throw new Violation(`stream ${id}: bytes ${refusal.expected} to ${offset} are missing`);
    this.fail(id, 'protocol_error');
  }

  /** The farm is known to have the stream. */
  private establish(id: StreamId): void {
    const stream = this.streams.get(id);
    if (!stream?.opening) return;
    stream.opening = null;
    this.events.push({ kind: 'established', id });
  }

  /** The other end said on this carrier what it has received of a stream: sending may go on from there. */
  private agree(id: StreamId): void {
    this.establish(id);
    const stream = this.streams.get(id);
    if (!stream) return;
    stream.answerBy = null;
    stream.agreed = true;
    this.scheduleStream(id);
    this.wakeWriter(id);
    this.closeIfDone(id);
  }

  private tellReadable(id: StreamId): void {
    const stream = this.streams.get(id);
    if (!stream || stream.readableTold) return;
    stream.readableTold = true;
    this.events.push({ kind: 'readable', id });
  }

  /** Resets a stream from here, and says so here too. */
  private fail(id: StreamId, reason: ResetReason): void {
    if (this.dropStream(id, reason)) this.events.push({ kind: 'reset', id, reason });
  }

  /** The next frame to send, if any may be sent now. It counts as sent. */
  pollTransmit(now: Instant): Frame | null {
    if (!this.resumed) return null;
    const answer = this.outbox.popAnswer();
    if (answer) return answer;
    for (let id = this.outbox.popAck(); id !== null; id = this.outbox.popAck()) {
      const free = this.freeWindow;
      const said = this.with(id, stream => stream.receive.announce(free));
      if (said) return { kind: 'ack', stream: id, ...said };
    }
    for (let id = this.outbox.popOpen(); id !== null; id = this.outbox.popOpen()) {
      const frame = this.openFrame(id, now);
      if (frame) return frame;
    }
    return this.nextOfStreams();
  }

  private openFrame(id: StreamId, now: Instant): Frame | null {
    const stream = this.streams.get(id);
    if (!stream?.opening) return null;
    stream.opening.sent = true;
    stream.answerBy = now + limits.OPEN_ANSWER_DEADLINE;
    return { kind: 'open', stream: id, target: stream.opening.target, credit: stream.receive.granted };
  }

  private nextOfStreams(): Frame | null {
    const max = this.config.maxPayload;
    const fullFrame = max + limits.FRAME_CHARGE;
    const room = this.config.inFlightLimit - this.usage.inFlight;
    for (;;) {
      // The bulk leaves a full frame's room to the quick.
      const turn = this.schedule.front(room >= fullFrame, room >= 2 * fullFrame);
      const stream = turn && this.streams.get(turn.id);
      if (!turn || !stream) return null;
      const { id, lane } = turn;
      if (stream.send.finDue) {
        stream.scheduled = false;
        this.schedule.pop(lane);
        return { kind: 'fin', stream: id, offset: stream.send.takeFin() };
      }
      const size = stream.send.sendable(max);
      if (size === 0) {
        stream.scheduled = false;
        this.schedule.pop(lane);
      } else if (lane === 'quick' && stream.send.unsent > max) {
        this.schedule.pop(lane);
        this.schedule.add(id, 'bulk');
      } else if (this.schedule.maySend(lane, size)) return this.sendBytes(id, lane, size);
    }
  }

  private sendBytes(id: StreamId, lane: 'quick' | 'bulk', size: number): Frame | null {
    const taken = this.with(id, stream => {
      const part = stream.send.take(size);
      stream.scheduled = stream.send.hasWork;
      return part && { ...part, more: stream.scheduled };
    });
    if (!taken) return null;
    this.schedule.sent(lane, taken.bytes.length);
    if (!taken.more) this.schedule.pop(lane);
    this.wakeWriter(id);
    return { kind: 'data', stream: id, offset: taken.offset, bytes: taken.bytes };
  }

  /** Lets a stream wait for its turn if it has something it may send. */
  private scheduleStream(id: StreamId): void {
    const stream = this.streams.get(id);
    if (!stream?.agreed || stream.scheduled || !stream.send.hasWork) return;
    stream.scheduled = true;
    this.schedule.add(id, stream.send.unsent <= this.config.maxPayload ? 'quick' : 'bulk');
  }

  /** Sees to it that an ack goes out when it is worth it. */
  private weighAck(id: StreamId, now: Instant): void {
    const urgency = this.streams.get(id)?.receive.urgency(this.freeWindow);
    if (urgency === 'now') this.outbox.ack(id);
    else if (urgency === 'soon') this.outbox.ackLater(id, now);
  }

  /** Works on a stream and keeps the sums right. */
  private with<T>(id: StreamId, work: (stream: Stream) => T): T | undefined {
    const stream = this.streams.get(id);
    if (!stream) return undefined;
    this.count(stream, -1);
    const result = work(stream);
    this.count(stream, 1);
    return result;
  }

  private count({ send, receive }: Stream, sign: 1 | -1): void {
    this.usage.busy += send.held > 0 ? sign : 0;
    this.usage.send += sign * send.held;
    this.usage.receive += sign * receive.held;
    this.usage.inFlight += sign * send.inFlight;
    this.usage.exposure += sign * receive.exposure;
  }

  private insert(id: StreamId, stream: Stream): void {
    this.count(stream, 1);
    this.streams.set(id, stream);
  }

  /** Forgets a stream, except for its outcome and answer. */
  private remove(id: StreamId): Stream | null {
    const stream = this.streams.get(id);
    if (!stream) return null;
    this.streams.delete(id);
    this.count(stream, -1);
    this.outbox.forget(id);
    if (stream.scheduled) this.schedule.remove(id);
    return stream;
  }

  /** Resets a stream; whether there was one. An open that was never sent needs no word to the other end. */
  private dropStream(id: StreamId, reason: ResetReason): boolean {
    const stream = this.remove(id);
    if (!stream) return false;
    if (stream.opening === null || stream.opening.sent) {
      const outcome: Outcome = { kind: 'reset', reason };
      this.bury(id, outcome);
      this.outbox.answer(this.outcomeFrame(id, outcome));
    }
    return true;
  }

  private bury(id: StreamId, outcome: Outcome): void {
    const [oldest] = this.tombstones.keys();
    if (this.tombstones.size >= limits.TOMBSTONES && oldest !== undefined) this.tombstones.delete(oldest);
    this.tombstones.set(id, outcome);
  }

  private outcomeFrame(stream: StreamId, outcome: Outcome): Frame {
    if (outcome.kind === 'reset') return { kind: 'reset', stream, reason: outcome.reason };
    return { kind: 'ack', stream, received: outcome.received, credit: outcome.credit };
  }

  private afterReading(id: StreamId): void {
    if (!this.streams.get(id)?.receive.isDone) return;
    this.events.push({ kind: 'finished', id });
    this.closeIfDone(id);
  }

  private closeIfDone(id: StreamId): void {
    const stream = this.streams.get(id);
    if (!stream?.send.isDone || !stream.receive.isDone) return;
    const { owesAck, acknowledgeable: received, granted: credit } = stream.receive;
    const outcome: Outcome = { kind: 'complete', received, credit };
    this.remove(id);
    this.bury(id, outcome);
    if (owesAck) this.outbox.answer(this.outcomeFrame(id, outcome));
    this.events.push({ kind: 'closed', id });
  }

  private firstDeadline(): { at: Instant; id: StreamId } | null {
    let first: { at: Instant; id: StreamId } | null = null;
    for (const [id, { answerBy }] of this.streams) {
      if (answerBy !== null && (!first || answerBy < first.at)) first = { at: answerBy, id };
    }
    return first;
  }

  /** What is left of the session's window. */
  private get freeWindow(): number {
    return Math.max(0, limits.SESSION_WINDOW - this.usage.exposure);
  }

  /** Bytes that a stream's writer may add. */
  private room(stream: Stream): number {
    const share = Math.floor(limits.SHARED_SEND_BUFFER / Math.max(this.usage.busy, 1));
    const bounded = Math.min(Math.max(share, limits.MIN_SEND_BUFFER), limits.SEND_BUFFER);
    const own = Math.max(0, bounded - stream.send.unsent);
    const shared = Math.max(0, limits.SESSION_SEND_BUFFER - this.usage.send);
    return Math.min(own, Math.max(shared, limits.MIN_SEND_BUFFER - stream.send.held));
  }

  /** Tells a writer that was refused once it is worth going on. */
  private wakeWriter(id: StreamId): void {
    const stream = this.streams.get(id);
    if (!stream?.writerWaits || this.room(stream) < limits.WRITABLE_ROOM) return;
    stream.writerWaits = false;
    this.events.push({ kind: 'writable', id });
  }
}
