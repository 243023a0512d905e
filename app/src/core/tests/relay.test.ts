import { expect, test } from 'vitest';
import { HeldRelay } from '../../shell/relay';

const relay = { username: '1:a', credential: 'secret', seconds: 600 };
const login = { username: '1:a', credential: 'secret' };

test('a relay is asked where the broker says, until shortly before its credentials expire', () => {
  const held = new HeldRelay();
  expect(held.servers(0)).toEqual([]);
  held.hold({ ...relay, udp: 3478, tcp: 80, tls: 443 }, 'b.example', 0);
  const urls = ['turn:b.example:3478?transport=udp', 'turns:b.example:443?transport=tcp'];
  expect(held.servers(589_999)).toEqual([{ urls, ...login }]);
  expect(held.servers(590_000)).toEqual([]);
  held.hold({ ...relay, host: '2001:db8::7', tcp: 80 }, 'b.example', 0);
  expect(held.servers(0)).toEqual([{ urls: ['turn:[2001:db8::7]:80?transport=tcp'], ...login }]);
});

test('one that speaks nothing, or whose host is none is not asked', () => {
  const held = new HeldRelay();
  for (const no of [relay, { ...relay, udp: 1, host: 'a/b' }]) {
    held.hold({ ...relay, udp: 3478 }, 'b.example', 0);
    held.hold(no, 'b.example', 0);
    expect(held.servers(0)).toEqual([]);
  }
});
