import { expect, test } from 'vitest';
import { concat, utf8 } from '../../core/bytes';
import { injector, place } from '../../view/injector';
import { CookieJar } from '../cookies';
import { nonceOf, policy, requestFields, responseFields } from '../rewrite';

const ORIGIN = 'http://greenhouse--farm.localhost:8443';

test('cookies follow RFC 6265 as far as one host needs', () => {
  const jar = new CookieJar();
  jar.set('a=1; Path=/', '/login', false, 0);
  jar.set('b=2', '/app/page', false, 0);
  jar.set('secret=3; HttpOnly; Path=/', '/', false, 0);
  jar.set('old=4; Max-Age=10; Path=/', '/', false, 0);
  jar.set('gone=5; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Path=/', '/', false, 2000);
  expect(jar.header('/', false, 0)).toBe('a=1; secret=3; old=4');
  expect(jar.header('/app/x', true, 0)).toBe('b=2; a=1; old=4');
  expect(jar.header('/application', true, 10_000)).toBe('a=1');
  jar.set('secret=mine', '/', true, 0);
  jar.set('secret=mine; Path=/', '/', true, 0);
  expect(jar.header('/', false, 20_000)).toBe('a=1; secret=3');
  jar.set('a=; Max-Age=0; Path=/', '/', true, 0);
  expect(jar.header('/', true, 20_000)).toBe(null);
  expect(jar.lasting().map(one => one.name)).toEqual(['old']);
});

test('the service hears its own name and the page relative addresses', () => {
  const asked = {
    method: 'POST',
    path: '/a',
    fields: [
      ['Accept', '*/*'],
      ['cookie', 'x'],
      ['connection', 'y'],
    ] as [string, string][],
    referrer: `${ORIGIN}/page?q`,
    withOrigin: true,
  };
  expect(requestFields(asked, ORIGIN, 'c=1')).toEqual([
    ['Host', 'localhost'],
    ['Accept', '*/*'],
    ['Accept-Encoding', 'gzip'],
    ['Connection', 'close'],
    ['Cookie', 'c=1'],
    ['Origin', 'http://localhost'],
    ['Referer', 'http://localhost/page?q'],
  ]);
  const fields: [string, string][] = [
    ['Location', 'http://localhost/next'],
    ['location', 'https://elsewhere.example/x'],
    ['Set-Cookie', 'a=1'],
    ['X-Frame-Options', 'DENY'],
    ['ETag', '"1"'],
  ];
  expect(responseFields(fields, ORIGIN)).toEqual([
    ['Location', '/next'],
    ['location', 'https://elsewhere.example/x'],
    ['ETag', '"1"'],
  ]);
});

test("a page's policy stays but for the shim and the frame", () => {
  const shim = `${ORIGIN}/__view/shim.js`;
  expect(policy("default-src 'self'; frame-ancestors 'none'", ORIGIN)).toBe(`default-src 'self' ${shim}`);
  expect(policy("default-src 'none'; script-src 'none'; img-src *", ORIGIN)).toBe(
    `default-src 'none'; script-src ${shim}; img-src *`,
  );
  expect(nonceOf([['Content-Security-Policy', "script-src 'nonce-abc123=='"]])).toBe('abc123==');
  expect(nonceOf([['Content-Security-Policy', "script-src 'nonce-\"><script>'"]])).toBe(null);
});

test('the shim goes after the doctype and before the first element', () => {
  for (const [text, at] of [
    ['<!doctype html><html>', 15],
    ['  <!-- a --> <!DOCTYPE html>\n<p>', 29],
    ['<p>', 0],
    ['<?xml version="1.0"?><html>', 21],
    ['plain text', 0],
  ] as const) {
    expect(place(text, true), text).toBe(at);
  }
  for (const undecided of ['', '<!do', '<!--', '<!-- a', '<!doctype', '  '])
    expect(place(undecided, false)).toBe(null);
});

async function injected(bytes: Uint8Array, contentType: string, size: number): Promise<Uint8Array> {
  const source = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });
  const parts: Uint8Array[] = [];
  for await (const part of source.pipeThrough(injector(contentType, '<x>'))) parts.push(part);
  return concat(...parts);
}

test.each([1, 2, 5, 1000])('pages of any encoding keep every other byte: %i at a time', async size => {
  const text = await injected(utf8('\ufeff<!doctype html><p>тест'), 'text/html', size);
  expect(new TextDecoder('utf-8', { ignoreBOM: true }).decode(text)).toBe('\ufeff<!doctype html><x><p>тест');
  const wide = Uint8Array.from('\ufeff<!doctype html><p>ж', c => c.charCodeAt(0));
  const utf16 = new Uint8Array(wide.length * 2);
  [...'\ufeff<!doctype html><p>ж'].forEach((c, at) => {
    new DataView(utf16.buffer).setUint16(at * 2, c.charCodeAt(0), true);
  });
  const found = new TextDecoder('utf-16le', { ignoreBOM: true }).decode(
    await injected(utf16, 'text/html', size),
  );
  expect(found).toBe('\ufeff<!doctype html><x><p>ж');
});
