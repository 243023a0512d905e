import { expect, test } from 'vitest';
import { type Bytes, concat, utf8 } from '../../core/bytes';
import { readBody, readHead, writeHead } from '../message';
import { ByteReader, HttpError } from '../reader';

/** A reader of a text that comes in pieces of `size` bytes. */
function reader(text: string, size: number): ByteReader {
  let rest = utf8(text);
  return new ByteReader(async () => {
    if (rest.length === 0) return null;
    const piece = rest.slice(0, size);
    rest = rest.slice(size);
    return piece;
  });
}

async function answer(text: string, size: number, method = 'GET') {
  const from = reader(text, size);
  const head = await readHead(from);
  const parts: Bytes[] = [];
  for await (const part of readBody(from, method, head)) parts.push(part);
  return { head, body: new TextDecoder().decode(concat(...parts)) };
}

test.each([1, 2, 3, 7, 1000])('answers are read however they are cut: %i bytes at a time', async size => {
  const counted = await answer('HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\nhello, more', size);
  expect(counted).toEqual({
    head: {
      status: 200,
      statusText: 'OK',
      fields: [
        ['Content-Length', '5'],
        ['A', 'b'],
      ],
    },
    body: 'hello',
  });
  const chunks = '4;x=y\r\nwiki\r\n5\r\npedia\r\n0\r\nTrailer: 1\r\n\r\n';
  expect((await answer(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}`, size)).body).toBe(
    'wikipedia',
  );
  expect((await answer('HTTP/1.0 200 OK\n\nuntil the end', size)).body).toBe('until the end');
  expect((await answer('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\nx', size)).body).toBe('');
  expect((await answer('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n', size, 'HEAD')).body).toBe('');
  expect((await answer('HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n', size)).head.fields).toEqual([['A', 'b c']]);
});

test.each([
  ['nonsense\r\n\r\n', 'not HTTP'],
  ['HTTP/1.1 200 OK\r\nno colon\r\n\r\n', 'a broken field'],
  ['HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort', 'cut short'],
  ['HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n', 'a broken length'],
  ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', 'a broken chunk'],
  ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n', 'a chunk too long'],
  [`HTTP/1.1 200 OK\r\n${'A: b\r\n'.repeat(600)}\r\n`, 'too many fields'],
  [`HTTP/1.1 200 OK\r\nA: ${'b'.repeat(300_000)}\r\n\r\n`, 'too long a head'],
  ['', 'nothing'],
])('what is no answer is refused: %#', async (text, why) => {
  await expect(answer(text, 4096), why).rejects.toThrow(HttpError);
});

test('nothing breaks out of a request', () => {
  const ask =
    (path: string, fields: [string, string][], method = 'GET') =>
    () =>
      writeHead({ method, path, fields });
  expect(new TextDecoder().decode(ask('/a?b', [['Host', 'c']])())).toBe(
    'GET /a?b HTTP/1.1\r\nHost: c\r\n\r\n',
  );
  expect(ask('/a b', [])).toThrow(HttpError);
  expect(ask('/', [['A', 'b\r\nC: d']])).toThrow(HttpError);
  expect(ask('/', [['A b', 'c']])).toThrow(HttpError);
  expect(ask('/', [], 'GET / HTTP/1.1\r\n')).toThrow(HttpError);
});
