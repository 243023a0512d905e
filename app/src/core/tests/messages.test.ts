import { expect, test } from 'vitest';
import { fromBroker, toBroker } from '../broker';
import { decode, encode } from '../codec';
import { control } from '../control';
import * as frame from '../frame';
import { ping } from '../ping';
import * as readings from '../readings';
import type { Reader } from '../schema';
import { payload, peerSignal } from '../signal';
import { notation, raw, str, vectors } from './vectors';

const readers: Record<string, Reader<unknown>> = {
  'to-broker': toBroker,
  'from-broker': fromBroker,
  payload,
  'peer-signal': peerSignal,
  control,
  // Through the typed form, so that its own checks are held to the vectors too.
  frame: value => {
    frame.fromWire(value);
    return frame.wire(value);
  },
  ping,
  'readings-request': readings.request,
  'readings-answer': readings.answer,
};

function reader(type: string): Reader<unknown> {
  const known = readers[type];
  if (!known) throw new Error(`no reader for ${type}`);
  return known;
}

test.each(vectors('messages').map(one => [one.name, one] as const))('%s is read and written', (_, one) => {
  const value = decode(reader(one.type), raw(one, 'hex'));
  expect([1, notation(value)]).toEqual(one.value);
  const again = decode(reader(one.type), encode(value));
  expect(again).toEqual(value);
});

test('typed frames are written as they were read', () => {
  for (const one of vectors('messages').filter(one => one.type === 'frame')) {
    expect(frame.encode(frame.decode(raw(one, 'hex'))), one.name).toEqual(raw(one, 'hex'));
  }
});

test.each(vectors('tolerated').map(one => [one.name, one] as const))('%s is tolerated', (_, one) => {
  expect([1, notation(decode(reader(one.type), raw(one, 'hex')))]).toEqual(one.value);
});

test.each(vectors('refused').map(one => [one.name, one] as const))('%s is refused', (_, one) => {
  expect(() => decode(reader(str(one, 'type')), raw(one, 'hex'))).toThrow(Error);
});
