/** Readings: what the two ends say on a stream to {@link TARGET}. */

import { type Bytes, concat } from './bytes';
import { decode, encode } from './codec';
import {
  bool,
  extensible,
  list,
  Malformed,
  number,
  oneOf,
  type Read,
  type Reader,
  reason,
  safe,
  text,
} from './schema';

/** The target of the stream. No service can have this name. */
export const TARGET = '@readings';

/** Most readings in one message. */
export const MAX_READINGS = 256;

/** Text that keeps to a rule: nothing that a page could take for an order. */
function label(most: number, rule: RegExp): Reader<string> {
  const bounded = text(1, most);
  return value => {
    const found = bounded(value);
    if (!rule.test(found)) throw new Malformed('a name or a unit is expected');
    return found;
  };
}

const word = String.raw`[\p{Alphabetic}\p{N}]`;
const name = label(64, new RegExp(`^${word}(?:${word}|[_.:/-]| (?! ))*(?<! )$`, 'u'));
const unit = label(16, new RegExp(`^(?:${word}|[%°′″/*^.·-])+$`, 'u'));

/** From the phone, once, first. */
export const request = oneOf({ follow: extensible({ after: safe, live: bool }) });
export type Request = Read<typeof request>;

/** One reading. */
export const reading = extensible(
  { n: safe, t: safe, c: reason('set', 'corrected', 'guessed'), name, value: number },
  { unit },
);
export type Reading = Read<typeof reading>;

const readings = list(reading, MAX_READINGS);
const newest = extensible({ newest: safe });

/** From the farm. */
export const answer = oneOf({
  readings: value => {
    const found = readings(value);
    if (found.length === 0) throw new Malformed('a reading is expected');
    return found;
  },
  gap: extensible({ first: safe, last: safe, reason: reason('pruned', 'damaged') }),
  caught_up: newest,
  behind: newest,
});
export type Answer = Read<typeof answer>;

/** A message as it stands on the stream: its length in two bytes before it. */
export function frame(message: Request): Bytes {
  const body = encode(message);
  return concat(Uint8Array.of(body.length >> 8, body.length & 255), body);
}

/** Takes messages from the bytes of a stream, however these are cut. */
export class Unframer {
  private held: Bytes = new Uint8Array();

  /** The next bytes. Ask {@link message} until it is empty before pushing more. */
  push(bytes: Bytes): void {
    this.held = concat(this.held, bytes);
  }

  /** The next whole message. Throws `CodecError`: the stream is then of no more use. */
  message<T>(reader: Reader<T>): T | null {
    const [high, low] = this.held;
    if (high === undefined || low === undefined) return null;
    const end = 2 + ((high << 8) | low);
    if (this.held.length < end) return null;
    const message = decode(reader, this.held.subarray(2, end));
    this.held = this.held.slice(end);
    return message;
  }
}
