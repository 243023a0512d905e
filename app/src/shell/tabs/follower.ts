/** A tab that follows: shows what the leading tab tells, and opens streams through it. */

import type { Bytes } from '../../core/bytes';
import type { ResetReason } from '../../core/frame';
import { type Facts, type Line, unknown } from '../line';
import { PairingFailed } from '../pair';
import { StreamReset, type TunnelStream } from '../streams';
import {
  type Answer,
  type Attention,
  type Call,
  type FromFollower,
  type FromLead,
  ofTab,
  type ToldFarm,
  WINDOW,
} from './messages';

/** A call's answer comes within this: pairing takes up to 30 s of it. */
const CALL_WITHIN_MS = 40_000;

/** The tab that was asked leads no more; perhaps it had not even heard. */
export class LeadLost extends Error {}

/** What the owner hears. */
export interface Listener {
  /** The leading tab answered; it is looked at, or not. */
  answered(visible: boolean): void;
  farms(farms: ToldFarm[]): void;
}

interface Waiting {
  resolve(answer: Answer): void;
  reject(error: Error): void;
  timer: ReturnType<typeof setTimeout>;
}

export class Follower {
  private readonly channel: BroadcastChannel;
  private joined = false;
  /** Said while nobody leads: streams that are opened meanwhile. */
  private unsaid: FromFollower[] = [];
  private readonly lines = new Map<string, FollowedLine>();
  private readonly streams = new Map<number, FollowedStream>();
  private readonly calls = new Map<number, Waiting>();
  private last = 0;

  constructor(
    tab: string,
    private readonly listener: Listener,
  ) {
    this.channel = new BroadcastChannel(ofTab(tab));
    this.channel.onmessage = event => this.heard(event.data as FromLead);
  }

  /** Whether a leading tab has answered. */
  get isJoined(): boolean {
    return this.joined;
  }

  line(farm: string): FollowedLine {
    const known = this.lines.get(farm);
    if (known) return known;
    const line = new FollowedLine(service => this.open(farm, service));
    this.lines.set(farm, line);
    return line;
  }

  ask(): void {
    this.post({ kind: 'ask' });
  }

  attend(attention: Attention): void {
    this.post({ kind: 'attention', attention });
  }

  probe(why: string): void {
    this.post({ kind: 'probe', why });
  }

  /** Lets the leading tab do something. Throws {@link PairingFailed} with what came in the way, and {@link LeadLost}. */
  async call(what: Call): Promise<string | null> {
    this.last += 1;
    const call = this.last;
    const answer = await new Promise<Answer>((resolve, reject) => {
      const timer = setTimeout(() => this.fail(call, new PairingFailed('no_answer')), CALL_WITHIN_MS);
      this.calls.set(call, { resolve, reject, timer });
      this.say({ kind: 'call', call, what });
    });
    if ('trouble' in answer) throw new PairingFailed(answer.trouble);
    return answer.farm;
  }

  /** Another tab leads from now on, or this one: what the former carried is over. */
  leadLost(): void {
    this.joined = false;
    for (const stream of [...this.streams.values()]) if (stream.said) stream.reset('session_ended');
    for (const call of [...this.calls.keys()]) this.fail(call, new LeadLost());
  }

  /** This tab leads now. */
  close(): void {
    this.leadLost();
    for (const stream of [...this.streams.values()]) stream.reset('session_ended');
    this.channel.close();
  }

  private fail(call: number, error: Error): void {
    const waiting = this.calls.get(call);
    this.calls.delete(call);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    waiting.reject(error);
  }

  private open(farm: string, service: string): TunnelStream {
    this.last += 1;
    const number = this.last;
    const stream = new FollowedStream(
      message => this.say({ ...message, stream: number }),
      () => this.streams.delete(number),
    );
    this.streams.set(number, stream);
    stream.said = this.joined;
    this.say({ kind: 'open', stream: number, farm, service });
    this.say({ kind: 'credit', stream: number, bytes: WINDOW });
    return stream;
  }

  private post(message: FromFollower): void {
    this.channel.postMessage(message);
  }

  private say(message: FromFollower): void {
    if (this.joined) this.post(message);
    else this.unsaid.push(message);
  }

  private heard(message: FromLead): void {
    switch (message.kind) {
      case 'here':
        if (!this.joined) {
          this.joined = true;
          for (const stream of this.streams.values()) stream.said = true;
          for (const unsaid of this.unsaid.splice(0)) this.post(unsaid);
        }
        return this.listener.answered(message.visible);
      case 'farms':
        for (const { record, facts } of message.farms) this.line(record.id).tell(facts);
        return this.listener.farms(message.farms);
      case 'done': {
        const waiting = this.calls.get(message.call);
        this.calls.delete(message.call);
        if (!waiting) return;
        clearTimeout(waiting.timer);
        return waiting.resolve(message.answer);
      }
      default:
        this.streams.get(message.stream)?.heard(message);
    }
  }
}

/** A connection that another tab owns. */
class FollowedLine implements Line {
  private told: Facts = unknown();

  constructor(readonly open: (service: string) => TunnelStream) {}

  tell(facts: Facts): void {
    this.told = facts;
  }

  facts(): Facts {
    return this.told;
  }
}

type OfStream<T> = T extends { stream: number } ? Omit<T, 'stream'> : never;

/** A stream that the leading tab carries. */
class FollowedStream implements TunnelStream {
  /** The leading tab knows of it. */
  said = false;
  private readonly parts: Bytes[] = [];
  private unreported = 0;
  private ended = false;
  private over: ResetReason | null = null;
  private reader: (() => void) | null = null;
  private writer: (() => void) | null = null;

  constructor(
    private readonly say: (message: OfStream<FromFollower>) => void,
    private readonly gone: () => void,
  ) {}

  heard(message: Extract<FromLead, { stream: number }>): void {
    if (message.kind === 'data') this.parts.push(message.bytes as Bytes);
    else if (message.kind === 'end') this.ended = true;
    else if (message.kind === 'reset') return this.reset(message.reason);
    if (message.kind === 'wrote') this.writer?.();
    else this.reader?.();
  }

  reset(reason: ResetReason): void {
    this.over ??= reason;
    this.gone();
    this.reader?.();
    this.writer?.();
  }

  async read(): Promise<Bytes | null> {
    for (;;) {
      const bytes = this.parts.shift();
      if (bytes) {
        this.unreported += bytes.length;
        if (this.unreported >= WINDOW / 4 && this.over === null) {
          this.say({ kind: 'credit', bytes: this.unreported });
          this.unreported = 0;
        }
        return bytes;
      }
      if (this.over !== null) throw new StreamReset(this.over);
      if (this.ended) return null;
      await new Promise<void>(resolve => {
        this.reader = resolve;
      });
      this.reader = null;
    }
  }

  async write(bytes: Bytes): Promise<void> {
    if (this.over !== null) throw new StreamReset(this.over);
    if (bytes.length === 0) return;
    await new Promise<void>(resolve => {
      this.writer = resolve;
      this.say({ kind: 'write', bytes });
    });
    this.writer = null;
    if (this.over !== null) throw new StreamReset(this.over);
  }

  finish(): void {
    if (this.over === null) this.say({ kind: 'finish' });
  }

  abort(): void {
    if (this.over !== null) return;
    this.say({ kind: 'abort' });
    this.reset('aborted');
  }
}
