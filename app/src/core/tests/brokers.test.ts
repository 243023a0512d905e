import { expect, test } from 'vitest';
import { parseBrokers } from '../../shell/broker-address';

const urls = (text: string, own = '') => parseBrokers(text, own)?.map(({ url }) => url);

test('of several brokers the one that serves the app comes first, the others keep their order', () => {
  const list = 'wss://b1.example, wss://b2.example:8443,wss://b3.example';
  expect(urls(list)).toEqual(['wss://b1.example', 'wss://b2.example:8443', 'wss://b3.example']);
  expect(urls(list, 'wss://b3.example')).toEqual([
    'wss://b3.example',
    'wss://b1.example',
    'wss://b2.example:8443',
  ]);
  expect(urls('ws://127.0.0.1:9000/')).toEqual(['ws://127.0.0.1:9000']);
});

test('a list with anything else in it, or with too many, is none', () => {
  for (const bad of ['', 'wss://b1.example,', 'wss://b1.example,https://b2.example', 'wss://b.example/path'])
    expect(urls(bad), bad).toBeUndefined();
  expect(urls(Array(9).fill('wss://b.example').join())).toBeUndefined();
});
