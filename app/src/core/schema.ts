/**
 * Readers of decoded CBOR: each takes what the decoder made and gives the
 * typed value, or throws. What a reader gives can be encoded as it is.
 */

import type { Bytes } from './bytes';
import { utf8 } from './bytes';

/** Not of the expected shape. */
export class Malformed extends Error {}

/** A float on the wire: only {@link number} takes one, elsewhere 1.0 is not 1. */
export class Float {
  constructor(readonly value: number) {}
}

/** Takes what the decoder made of a value and checks it. */
export type Reader<T> = (value: unknown) => T;

/** What a reader reads. */
export type Read<R> = R extends Reader<infer T> ? T : never;

function fail(expected: string): never {
  throw new Malformed(`${expected} is expected`);
}

/** A byte string of a length within bounds. */
export function bytes(least: number, most = least): Reader<Bytes> {
  return value => {
    if (!(value instanceof Uint8Array)) fail('a byte string');
    if (value.length < least || value.length > most) fail(`a byte string of ${least} to ${most} bytes`);
    return value as Bytes;
  };
}

/** Text of a length within bounds, in bytes of UTF-8. */
export function text(least: number, most: number): Reader<string> {
  return value => {
    if (typeof value !== 'string') fail('text');
    const length = value.length * 3 <= most && value.length >= least ? value.length : utf8(value).length;
    if (length < least || length > most) fail(`text of ${least} to ${most} bytes`);
    return value;
  };
}

/** A whole number within bounds. */
export function integer(most: number): Reader<number> {
  return value => {
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0 || value > most) {
      fail(`a number from 0 to ${most}`);
    }
    return value;
  };
}

/** Numbers that have a name on the wire. */
export const u16 = integer(0xffff);
/** See {@link u16}. */
export const u32 = integer(0xffff_ffff);
/** Below 2^53: exact here. */
export const safe = integer(Number.MAX_SAFE_INTEGER);

/** A finite number, whole or not. */
export const number: Reader<number> = value => {
  const found = value instanceof Float ? value.value : value;
  return typeof found === 'number' && Number.isFinite(found) ? found : fail('a finite number');
};

/** True or false. */
export const bool: Reader<boolean> = value => (typeof value === 'boolean' ? value : fail('true or false'));

/** One of a few words. */
export function word<W extends string>(...words: readonly W[]): Reader<W> {
  return value => words.find(known => known === value) ?? fail(words.join(', '));
}

/** One of a few words; a later version's word is read as `other`. */
export function reason<W extends string>(...words: readonly W[]): Reader<W | 'other'> {
  return value =>
    typeof value === 'string' ? (words.find(known => known === value) ?? 'other') : fail('a word');
}

/** A list of a bounded length. */
export function list<T>(item: Reader<T>, most = Number.POSITIVE_INFINITY): Reader<T[]> {
  return value => {
    if (!Array.isArray(value) || value.length > most) fail(`a list of at most ${most}`);
    return value.map(item);
  };
}

/** A list of exactly these. */
export function tuple<T extends readonly unknown[]>(...items: { [I in keyof T]: Reader<T[I]> }): Reader<T> {
  return value => {
    if (!Array.isArray(value) || value.length !== items.length) fail(`a list of ${items.length}`);
    return items.map((item, at) => item(value[at])) as unknown as T;
  };
}

type Fields = Record<string, Reader<unknown>>;
type Required<F extends Fields> = { [K in keyof F]: Read<F[K]> };
type Optional<F extends Fields> = { [K in keyof F]?: Read<F[K]> };
type Flat<T> = { [K in keyof T]: T[K] };

function entries(value: unknown): Map<string, unknown> {
  if (!(value instanceof Map)) fail('a map');
  for (const key of value.keys()) if (typeof key !== 'string') fail('a map with text for keys');
  return value;
}

function fields(
  value: unknown,
  required: Fields,
  optional: Fields,
  unknownToo: boolean,
): Record<string, unknown> {
  const map = entries(value);
  const out: Record<string, unknown> = {};
  for (const [name, reader] of Object.entries(required)) {
    if (!map.has(name)) throw new Malformed(`${name} is missing`);
    out[name] = reader(map.get(name));
  }
  for (const [name, reader] of Object.entries(optional)) if (map.has(name)) out[name] = reader(map.get(name));
  if (!unknownToo && map.size !== Object.keys(out).length) fail('a map without further fields');
  return out;
}

/** A map with these fields and no others: signed, or naming what is. */
export function exact<R extends Fields, O extends Fields = Record<never, never>>(
  required: R,
  optional: O = {} as O,
): Reader<Flat<Required<R> & Optional<O>>> {
  return value => fields(value, required, optional, false) as Flat<Required<R> & Optional<O>>;
}

/** A map whose unknown fields are read past. */
export function extensible<R extends Fields, O extends Fields = Record<never, never>>(
  required: R,
  optional: O = {} as O,
): Reader<Flat<Required<R> & Optional<O>>> {
  return value => fields(value, required, optional, true) as Flat<Required<R> & Optional<O>>;
}

/** Every key of a union's members, absent where it is another member. */
type OneOf<F extends Fields> = {
  [K in keyof F]: Flat<{ [P in K]: Read<F[P]> } & { [P in Exclude<keyof F, K>]?: undefined }>;
}[keyof F];

/** A map with exactly one of these fields: a message and its kind. */
export function oneOf<F extends Fields>(kinds: F): Reader<OneOf<F>> {
  return value => {
    const map = entries(value);
    const [kind] = map.keys();
    const reader =
      map.size === 1 && kind !== undefined && Object.hasOwn(kinds, kind) ? kinds[kind] : undefined;
    if (kind === undefined || !reader) fail(`one of ${Object.keys(kinds).join(', ')}`);
    return { [kind]: reader(map.get(kind)) } as OneOf<F>;
  };
}
