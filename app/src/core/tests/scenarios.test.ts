/** The scenarios that the Rust cores wrote down (`tunnel/vectors/`): the same events at the same times, the same done. */

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { Jitter } from '../backoff';
import type { Bytes } from '../bytes';
import { fromHex, hex } from '../bytes';
import type { Frame } from '../frame';
import { Health, type Event as HealthEvent } from '../health';
import { Link, type Event as LinkEvent } from '../link';
import { Mux, StreamError } from '../mux';
import { type Context, decide, type Failure } from '../recovery';
import { Session, type Event as SessionEvent } from '../session';
import { seconds } from '../time';

/** A core, as far as the scenarios use it. */
interface Core<E> {
  handle(event: E, now: number): void;
  handleTimeout(now: number): void;
  pollAction(): object | undefined;
  pollTimeout(): readonly [number, string] | null;
}

interface Step {
  at: number;
  event: object | null;
  actions: object[];
  timeout: [number, string] | null;
  state?: object;
}

interface Scenario {
  name: string;
  steps: Step[];
}

function scenarios<S>(file: string): S[] {
  const path = new URL(`../../../../tunnel/vectors/${file}.json`, import.meta.url);
  return JSON.parse(readFileSync(path, 'utf8')) as S[];
}

const named = <S extends { name: string }>(file: string) =>
  scenarios<S>(file).map(one => [one.name, one] as const);

/** As the files have it: bytes in hexadecimal. */
function plain(value: object): unknown {
  return JSON.parse(JSON.stringify(value, (_, inner) => (inner instanceof Uint8Array ? hex(inner) : inner)));
}

function replay<E>(
  core: Core<E>,
  steps: readonly Step[],
  read: (event: object) => E,
  state?: (now: number) => object,
) {
  steps.forEach((step, at) => {
    const where = `step ${at}, ${JSON.stringify(step.event)} at ${step.at}`;
    if (step.event) core.handle(read(step.event), step.at);
    else core.handleTimeout(step.at);
    const actions: unknown[] = [];
    for (let action = core.pollAction(); action; action = core.pollAction()) actions.push(plain(action));
    expect(actions, where).toEqual(step.actions);
    expect(core.pollTimeout(), where).toEqual(step.timeout);
    if (state && step.state) expect(state(step.at), where).toEqual(step.state);
  });
}

test.each(named<Scenario & { seed: number; brokers: number }>('link'))(
  '%s',
  (_, { seed, brokers, steps }) => {
    const link = new Link(BigInt(seed), 0, brokers);
    replay(
      link,
      steps,
      event => event as LinkEvent,
      () => ({ broker: link.broker }),
    );
  },
);

test.each(named<Scenario & { seed: number; epoch: number; rests: boolean }>('session'))(
  '%s',
  (_, { seed, epoch, rests, steps }) => {
    const session = new Session(epoch, BigInt(seed), 0, rests ? seconds(2) : null);
    const read = (event: object) => {
      const given = { ...event } as Record<string, unknown>;
      for (const field of ['boot', 'farmBoot'])
        if (typeof given[field] === 'string') given[field] = fromHex(given[field]);
      return given as unknown as SessionEvent;
    };
    replay(session, steps, read, () => session.snapshot());
  },
);

test.each(named<Scenario & { watched: boolean }>('health'))('%s', (_, { watched, steps }) => {
  const health = new Health(watched, 0);
  const [first, ...rest] = steps;
  const actions: unknown[] = [];
  for (let action = health.pollAction(); action; action = health.pollAction()) actions.push(action);
  expect(actions).toEqual(first?.actions);
  replay(
    health,
    rest,
    event => event as HealthEvent,
    now => {
      const { phase, rtt, jitter, loss } = health.state(now);
      return { phase, rtt, jitter, loss };
    },
  );
});

test('every failure in every context gets the same decision', () => {
  type Row = [Failure, number, boolean, boolean, boolean, boolean, number, string, boolean, number];
  for (const row of scenarios<Row>('recovery')) {
    const [
      failure,
      attempt,
      farmPresent,
      brokerLink,
      networkUp,
      watched,
      seed,
      strategy,
      relayOnly,
      retryAfter,
    ] = row;
    const context: Context = { attempt, farmPresent, brokerLink, networkUp, watched };
    expect(decide(failure, context, new Jitter(BigInt(seed))), JSON.stringify(row)).toEqual({
      strategy,
      relayOnly,
      retryAfter,
    });
  }
});

interface Call {
  call: string;
  at: number;
  id: number;
  offset: number;
  length: number | null;
  taken: number | null;
  max: number;
  done: boolean;
  span: number;
  target: string;
  frame: (Frame & { length?: number }) | null;
  streams: { s: number; r: number; c: number }[];
  events?: object[];
  timeout: number | null;
  held: number[];
}

/** What is at the offsets of a stream; the same as in `tunnel/tests/scenarios/mux.rs`. */
function content(stream: number, fromFarm: boolean, offset: number, length: number): Bytes {
  return Uint8Array.from(
    { length },
    (_, at) => ((offset + at) * 31 + stream * 17 + (fromFarm ? 1 : 0)) & 255,
  );
}

function perform(mux: Mux, call: Call, read: Map<number, number>, where: string): void {
  const { at, id } = call;
  switch (call.call) {
    case 'open':
      return expect(mux.open(call.target), where).toBe(id);
    case 'write': {
      const taken = orNull(() => mux.write(id, content(id, false, call.offset, call.length ?? 0)));
      return expect(taken, where).toBe(call.taken);
    }
    case 'finish':
      return expect(orNull(() => mux.finish(id)) !== null, where).toBe(call.done);
    case 'reset':
      return mux.reset(id, 'aborted');
    case 'read': {
      const bytes = mux.read(id, call.max, at);
      expect(bytes?.length ?? null, where).toBe(call.length);
      const offset = read.get(id) ?? 0;
      if (bytes)
        expect(
          bytes.every((byte, i) => byte === content(id, true, offset + i, 1)[0]),
          where,
        ).toBe(true);
      read.set(id, offset + (bytes?.length ?? 0));
      return;
    }
    case 'frame': {
      const { frame } = call;
      if (!frame) throw new Error(where);
      const bytes =
        frame.kind === 'data' ? content(frame.stream, true, frame.offset, frame.length ?? 0) : null;
      return mux.handleFrame(bytes ? ({ ...frame, bytes } as Frame) : frame, at);
    }
    case 'transmit': {
      const frame = mux.pollTransmit(at);
      if (frame?.kind !== 'data') return expect(frame, where).toEqual(call.frame);
      const { bytes, ...head } = frame;
      expect({ ...head, length: bytes.length }, where).toEqual(call.frame);
      return expect(hex(bytes), where).toBe(hex(content(frame.stream, false, frame.offset, bytes.length)));
    }
    case 'timeout':
      return mux.handleTimeout(at);
    case 'round_trip':
      return mux.setRoundTripTime(call.span);
    case 'carrier_lost':
      return mux.carrierLost();
    case 'hello':
      return expect(mux.hello(), where).toEqual(call.streams);
    case 'resume':
      return mux.resume(call.streams, at);
    default:
      throw new Error(`unknown call ${call.call}`);
  }
}

function orNull<T>(work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    if (error instanceof StreamError) return null;
    throw error;
  }
}

test.each(named<{ name: string; steps: Call[] }>('mux'))('%s', (_, { steps }) => {
  const mux = new Mux();
  const read = new Map<number, number>();
  steps.forEach((call, number) => {
    const where = `step ${number}, ${call.call}`;
    perform(mux, call, read, where);
    const events: object[] = [];
    for (let event = mux.pollEvent(); event; event = mux.pollEvent()) events.push(event);
    expect(events, where).toEqual(call.events ?? []);
    expect(mux.pollTimeout()?.[0] ?? null, where).toBe(call.timeout);
    expect([mux.bufferedBytes, mux.inFlight, mux.streamCount], where).toEqual(call.held);
  });
});
