// A service that means harm, or is broken, as the farm's: what its pages can
// do to the app (nothing), and how what is endless or too large ends.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { createServer as createPlainServer } from 'node:net';
import { check, must, same } from './checks.mjs';
import { until } from './world.mjs';

const PAGE = `<!--a--><!DOCTYPE html ><title>odd</title><script>document.title += typeof WebSocket</script><p>odd page`;

/** Sound: silence, at 8 kHz in 16 bits; longer than the worker asks for at once. */
const SOUND_SECONDS = 375;
const sound = (() => {
  const bytes = Buffer.alloc(44 + SOUND_SECONDS * 16_000);
  bytes.write('RIFF\0\0\0\0WAVEfmt ', 0, 'latin1');
  bytes.writeUInt32LE(bytes.length - 8, 4);
  // PCM, one channel, samples and bytes a second, bytes and bits a sample.
  for (const [at, value] of [16, 1 | (1 << 16), 8_000, 16_000, 2 | (16 << 16)].entries())
    bytes.writeUInt32LE(value, 16 + 4 * at);
  bytes.write('data', 36, 'latin1');
  bytes.writeUInt32LE(bytes.length - 44, 40);
  return bytes;
})();

/** The ranges of it that were asked for. */
const ranges = [];

/** A player's requests: each for a range. */
function play(request, response) {
  const [, first = 0, last = ''] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? [];
  const [from, to] = [Number(first), Math.min(last === '' ? Infinity : Number(last), sound.length - 1)];
  ranges.push([from, to - from + 1]);
  response
    .writeHead(206, {
      'content-type': 'audio/wav',
      'accept-ranges': 'bytes',
      'content-range': `bytes ${from}-${to}/${sound.length}`,
      'content-length': to - from + 1,
    })
    .end(sound.subarray(from, to + 1));
}

/** Answers by path. */
function answer(request, response) {
  const { url } = request;
  const html = (body, fields = {}) =>
    response.writeHead(200, { 'content-type': 'text/html', ...fields }).end(body);
  if (url === '/') html(PAGE);
  else if (url === '/strict')
    html('<p>strict</p><script nonce="abc">document.title = "ran " + WebSocket.name</script>', {
      'content-security-policy': "default-src 'none'; script-src 'nonce-abc'; connect-src 'self'",
    });
  else if (url === '/utf16')
    response
      .writeHead(200, { 'content-type': 'text/html; charset=utf-16le' })
      .end(Buffer.from('\ufeff<!doctype html><title>x</title><p>сорок два', 'utf16le'));
  else if (url === '/sandboxed')
    html('<p>sandboxed</p>', { 'content-security-policy': 'sandbox allow-scripts' });
  else if (url === '/endless') {
    response.writeHead(200, { 'content-type': 'application/octet-stream' });
    const block = Buffer.alloc(64 * 1024);
    const more = () => {
      while (!response.destroyed && response.write(block));
      if (!response.destroyed) response.once('drain', more);
    };
    more();
  } else if (url === '/events') {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    let id = Number(request.headers['last-event-id'] ?? 0);
    const timer = setInterval(() => response.write(`id: ${++id}\ndata: ${id}\n\n`), 100);
    response.on('close', () => clearInterval(timer));
  } else if (url === '/hop')
    response.writeHead(302, { location: `http://${request.headers.host}/landed?a=1` }).end();
  else if (url.startsWith('/landed')) html(`<p>landed on ${url}`);
  else if (url === '/cookies') {
    response.setHeader('set-cookie', [
      'seen=1; Path=/',
      'secret=2; Path=/; HttpOnly',
      'elsewhere=3; Path=/other',
    ]);
    response.end(request.headers.cookie ?? '');
  } else if (url === '/sound') play(request, response);
  else if (url === '/count') response.end(String(request.socket.server.open.size));
  else response.writeHead(404).end();
}

/** Both servers, on free ports. */
export async function serveOdd() {
  const odd = createServer({ maxHeaderSize: 64 * 1024 }, answer);
  odd.open = new Set();
  odd.on('connection', socket => {
    odd.open.add(socket);
    socket.on('close', () => odd.open.delete(socket));
  });
  // A head that never ends, whatever is asked.
  const bomb = createPlainServer(socket => {
    socket.on('error', () => undefined);
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\n');
      const field = `x-bomb: ${'a'.repeat(8_000)}\r\n`;
      const more = () => {
        while (!socket.destroyed && socket.write(field));
        if (!socket.destroyed) socket.once('drain', more);
      };
      more();
    });
  });
  for (const server of [odd, bomb]) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  }
  return {
    services: [
      ['odd', odd.address().port],
      ['bomb', bomb.address().port],
    ],
    stop() {
      odd.closeAllConnections();
      for (const server of [odd, bomb]) server.close();
      for (const socket of odd.open) socket.destroy();
    },
  };
}

export async function hostile(world, page, open) {
  let frame;
  const go = async path => {
    await frame.evaluate(to => location.assign(to), path);
    await until(
      path,
      () =>
        frame.url().endsWith(path) &&
        frame.evaluate(() => document.readyState === 'complete').catch(() => false),
    );
  };

  await check('odd pages get the shim and stay what they are', async () => {
    frame = await open('odd');
    await until('the page', async () => (await frame.title()) === 'oddfunction');
    same(
      await frame.evaluate(() => [document.compatMode, WebSocket.name]),
      ['CSS1Compat', 'WebSocket'],
      'page',
    );
    await go('/strict');
    same(await frame.title(), 'ran WebSocket', 'a page with a strict policy');
    await go('/utf16');
    same(await frame.locator('p').textContent(), 'сорок два', 'UTF-16');
    same(await frame.evaluate(() => String(WebSocket).includes('native')), false, 'the shim in UTF-16');
  });

  await check('redirects and cookies are as the service says, per service', async () => {
    await frame.evaluate(() => location.assign('/hop'));
    await until('the landing', () => frame.url().endsWith('/landed?a=1'));
    await frame.evaluate(() => fetch('/cookies').then(answer => answer.text()));
    const [sent, seen] = await frame.evaluate(async () => [
      await (await fetch('/cookies')).text(),
      document.cookie,
    ]);
    same(sent.split('; ').sort(), ['secret=2', 'seen=1'], 'sent to the service');
    must(!seen.includes('secret'), `the page sees ${seen}`);
  });

  await check('server-sent events come, and go on after the connection broke', async () => {
    const first = await frame.evaluate(
      () =>
        new Promise(resolve => {
          globalThis.events = new EventSource('/events');
          globalThis.last = 0;
          globalThis.events.onmessage = ({ data }) => {
            globalThis.last = Number(data);
            resolve(globalThis.last);
          };
        }),
    );
    same(first, 1, 'the first event');
    await world.agent.end();
    await world.agent.start();
    const before = await frame.evaluate(() => globalThis.last);
    // The browser asks again, from the last event on.
    await until('the next events', () => frame.evaluate(last => globalThis.last > last, before));
  });

  await check('sound plays, and is found at its end: a player’s ranges come in pieces', async () => {
    const duration = await frame.evaluate(async () => {
      const player = new Audio('/sound');
      const heard = name =>
        new Promise((resolve, reject) => {
          player.addEventListener(name, resolve, { once: true });
          player.addEventListener('error', () => reject(new Error(player.error.message)), { once: true });
        });
      await heard('loadedmetadata');
      const sought = heard('seeked');
      player.currentTime = player.duration - 1;
      await sought;
      return player.duration;
    });
    same(Math.round(duration), SOUND_SECONDS, 'seconds');
    const far = ranges.filter(([from]) => from > sound.length / 2);
    must(far.length > 0, `nothing near the end was asked for: ${JSON.stringify(ranges)}`);
    const longest = Math.max(...ranges.map(([, length]) => length));
    must(longest <= 2 * 1024 * 1024, `a range of ${longest} bytes was asked for at once`);
    return `${ranges.length} ranges, the longest of ${longest} bytes`;
  });

  await check('an endless body is taken at the page’s pace and ends with it', async () => {
    const taken = await frame.evaluate(async () => {
      globalThis.events.close();
      const abort = new AbortController();
      const { body } = await fetch('/endless', { signal: abort.signal });
      const reader = body.getReader();
      let bytes = 0;
      while (bytes < 5_000_000) bytes += (await reader.read()).value.length;
      abort.abort();
      return bytes;
    });
    must(taken < 8_000_000, `${taken} bytes at once`);
    await until('the service to be let go', () =>
      frame.evaluate(async () => Number(await (await fetch('/count')).text()) <= 2),
    );
  });

  await check('500 requests at once are all answered', async () => {
    const found = await frame.evaluate(async () => {
      const all = Array.from({ length: 500 }, () =>
        fetch('/count').then(
          ({ status }) => status,
          () => 0,
        ),
      );
      return (await Promise.all(all)).filter(status => status === 200).length;
    });
    same(found, 500, 'answered');
  });

  await check('a page that attacks the app gets nowhere', async () => {
    const before = await page.evaluate(() => document.querySelectorAll('iframe').length);
    const found = await frame.evaluate(async () => {
      const attempt = async work => {
        try {
          return String((await work()) ?? 'done');
        } catch (error) {
          return error.name;
        }
      };
      const { port1, port2 } = new MessageChannel();
      let heard = false;
      port1.onmessage = () => {
        heard = true;
      };
      // It pretends to be the bridge: the app takes that from the bridge's own frame only.
      parent.postMessage({ farmView: 'port' }, '*', [port2]);
      parent.postMessage({ farmView: 'ready' }, '*');
      port1.postMessage({
        kind: 'request',
        method: 'GET',
        path: '/',
        fields: [],
        referrer: '',
        hasBody: false,
      });
      const blank = document.createElement('iframe');
      document.body.append(blank);
      const sandboxed = document.createElement('iframe');
      sandboxed.src = '/sandboxed';
      document.body.append(sandboxed);
      await new Promise(resolve => {
        sandboxed.onload = resolve;
      });
      const registration = await navigator.serviceWorker.getRegistration();
      return {
        heard,
        top: await attempt(() => {
          top.location = 'https://example.com/';
        }),
        worker: await attempt(() => navigator.serviceWorker.register('/sw.js')),
        cookie: await attempt(() => parent.document.cookie),
        storage: await attempt(() => parent.localStorage.length),
        opener: await attempt(() => blank.contentWindow.top.document.title),
        unregister: await attempt(() => registration.unregister()),
        popup: await attempt(() => open('/', '_top')),
      };
    });
    const refused = 'SecurityError';
    same(found.heard, false, 'heard by the app');
    same(
      [found.worker, found.cookie, found.storage, found.opener],
      [refused, refused, refused, refused],
      'refused',
    );
    same(found.unregister, 'false', 'unregistering the worker');
    must(page.url().includes('#/open/'), 'the page moved the app');
    same(await page.evaluate(() => document.querySelectorAll('iframe').length), before, 'frames of the app');
    // Its own worker, gone by force: the page comes back by itself.
    await frame
      .evaluate(async () => {
        const blank = document.createElement('iframe');
        document.body.append(blank);
        const workers = blank.contentWindow.navigator.serviceWorker;
        const registration = await workers.getRegistration('/');
        await blank.contentWindow.ServiceWorkerRegistration.prototype.unregister.call(registration);
      })
      .catch(() => undefined);
    await page.getByRole('button', { name: 'Reload the page' }).click();
    frame = await open('odd', true);
    await until('the page again', async () => (await frame.title().catch(() => '')) === 'oddfunction');
  });

  await check('a head without end fails visibly', async () => {
    frame = await open('bomb');
    await frame.getByText('Farm Tunnel:').waitFor();
    return (await frame.locator('body').textContent()).trim();
  });
}
