/**
 * Frames of the multiplexer: what travels on a carrier's `data` channel.
 * Offsets are absolute within a stream and direction and outlive the carrier.
 */

import type { Bytes } from './bytes';
import { decode as codecDecode, encode as codecEncode } from './codec';
import { bytes, extensible, Malformed, oneOf, type Read, reason, safe, text, tuple, u32 } from './schema';

/** Number of a stream in its session: chosen by the phone, growing by one. */
export type StreamId = number;

/** The longest target of an open, in bytes. */
export const MAX_TARGET = 64;

/** Most bytes of payload in one data frame. */
export const MAX_PAYLOAD = 60 * 1024;

/** The largest offset. */
export const MAX_OFFSET = Number.MAX_SAFE_INTEGER;

/** Why a stream was reset; a reason of a newer version is `other`. */
export const resetReason = reason(
  'aborted',
  'unknown_service',
  'service_unavailable',
  'restarted',
  'expired',
  'limit',
  'session_ended',
  'protocol_error',
);
export type ResetReason = Read<typeof resetReason>;

/** One frame. */
export type Frame =
  | { kind: 'open'; stream: StreamId; target: string; credit: number }
  | { kind: 'data'; stream: StreamId; offset: number; bytes: Bytes }
  | { kind: 'ack'; stream: StreamId; received: number; credit: number }
  | { kind: 'fin'; stream: StreamId; offset: number }
  | { kind: 'reset'; stream: StreamId; reason: ResetReason };

/** Where one stream stands, as a side says in its hello on a new carrier. */
export const streamState = extensible({ s: u32, r: safe, c: safe });
/** Stream, received, credit. */
export type StreamState = Read<typeof streamState>;

/** A frame as it stands on the wire. */
export const wire = oneOf({
  open: tuple<[number, string, number]>(u32, text(1, MAX_TARGET), safe),
  data: tuple<[number, number, Bytes]>(u32, safe, bytes(1, MAX_PAYLOAD)),
  ack: tuple<[number, number, number]>(u32, safe, safe),
  fin: tuple<[number, number]>(u32, safe),
  reset: tuple<[number, ResetReason]>(u32, resetReason),
});

function toWire(frame: Frame): unknown {
  switch (frame.kind) {
    case 'open':
      return { open: [frame.stream, frame.target, frame.credit] };
    case 'data':
      return { data: [frame.stream, frame.offset, frame.bytes] };
    case 'ack':
      return { ack: [frame.stream, frame.received, frame.credit] };
    case 'fin':
      return { fin: [frame.stream, frame.offset] };
    case 'reset':
      return { reset: [frame.stream, frame.reason] };
  }
}

/** Reads a frame's body. */
export function fromWire(value: unknown): Frame {
  const body = wire(value);
  if (body.open) {
    const [stream, target, credit] = body.open;
    return { kind: 'open', stream, target, credit };
  }
  if (body.data) {
    const [stream, offset, payload] = body.data;
    within(offset, payload.length);
    return { kind: 'data', stream, offset, bytes: payload };
  }
  if (body.ack) {
    const [stream, received, credit] = body.ack;
    return { kind: 'ack', stream, received, credit };
  }
  if (body.fin) {
    const [stream, offset] = body.fin;
    // The end counts as one byte.
    within(offset, 1);
    return { kind: 'fin', stream, offset };
  }
  const [stream, why] = body.reset;
  return { kind: 'reset', stream, reason: why };
}

function within(offset: number, length: number): void {
  if (offset > MAX_OFFSET - length)
    throw new Malformed(`offset ${offset} with ${length} bytes is over ${MAX_OFFSET}`);
}

/** The frame as one message of the `data` channel. */
export function encode(frame: Frame): Bytes {
  return codecEncode(toWire(frame));
}

/** Reads a frame; throws `CodecError`. */
export function decode(message: Uint8Array): Frame {
  return codecDecode(fromWire, message);
}
