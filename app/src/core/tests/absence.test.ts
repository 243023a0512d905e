import { expect, test } from 'vitest';
import { excused } from '../absence';
import type { Absence } from '../control';

const power = (a: number, l: number): Absence => ({ a, l, w: 'no_power' });

test('as much of an outage is excused as the farm had no power', () => {
  // It last wrote long before the cut, and took 20 s to start.
  expect(excused(1_000_000, 1_100_000, [power(400, 680)])).toEqual({ milliseconds: 80_000, why: 'no_power' });
});

test('what the farm says twice counts once', () => {
  const found = excused(1_000_000, 1_100_000, [power(1_011, 20), power(1_010, 20), power(1_000, 5)]);
  expect(found).toEqual({ milliseconds: 26_000, why: 'no_power' });
});

test('other times and other reasons excuse nothing', () => {
  expect(excused(1_000_000, 1_100_000, [power(900, 100), power(1_100, 9)])).toBeNull();
  expect(excused(1_000_000, 1_100_000, [{ a: 1_000, l: 50, w: 'other' }])).toBeNull();
  expect(excused(1_000_000, 1_100_000, [])).toBeNull();
});
