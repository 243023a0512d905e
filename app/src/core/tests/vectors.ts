/** The shared vectors, see `protocol/vectors/README.md`. */

import { readFileSync } from 'node:fs';
import { fromHex, hex } from '../bytes';

export type Case = Record<string, unknown> & { name: string; type: string };

/** All cases of one file, long parts written out. */
export function vectors(file: string): Case[] {
  const text = readFileSync(new URL(`../../../../protocol/vectors/${file}.json`, import.meta.url), 'utf8');
  return JSON.parse(text.replace(/\((\d+)\*([^)]*)\)/g, (_, n, unit) => unit.repeat(Number(n)))) as Case[];
}

/** A case's field as text. */
export function str(one: Case, field: string): string {
  const value = one[field];
  if (typeof value !== 'string') throw new Error(`${one.name}: ${field} is not text`);
  return value;
}

/** A case's field as a number. */
export function num(one: Case, field: string): number {
  const value = one[field];
  if (typeof value !== 'number') throw new Error(`${one.name}: ${field} is not a number`);
  return value;
}

/** A case's field as bytes. */
export function raw(one: Case, field: string) {
  return fromHex(str(one, field));
}

/** A decoded value in the vectors' notation. */
export function notation(value: unknown): unknown {
  if (value instanceof Uint8Array) return `h'${hex(value)}'`;
  if (Array.isArray(value)) return value.map(notation);
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, notation(inner)]));
  }
  return value;
}
