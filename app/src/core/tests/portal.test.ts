import { expect, test } from 'vitest';
import { whoAnswered } from '../portal';

const seen = (status: number, body = '', redirect = false) => whoAnswered({ status, body, redirect });

test('the broker is known by its body, ready or not', () => {
  expect(seen(200, '{"ok":true,"version":"0.1.0"}\n')).toBe('broker');
  expect(seen(503, '{"ok":false,"version":"0.1.0"}\n')).toBe('broker');
});

test('a redirect, a page, a wrong body and 511 are the network’s', () => {
  expect(seen(0, '', true)).toBe('network');
  for (const body of [
    '<html>Log in</html>',
    '',
    '{"ok":"yes"}',
    '[true]',
    'null',
    `{"ok":true}${' '.repeat(2000)}`,
  ])
    expect(seen(200, body)).toBe('network');
  expect(seen(511, '<html>')).toBe('network');
});

test('what a proxy says while the broker restarts is no login', () => {
  for (const status of [404, 429, 500, 502, 503, 504])
    expect(seen(status, '<html>Bad Gateway</html>')).toBe('unknown');
});
