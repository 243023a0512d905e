// The app in a real browser, against the real broker, agent and greenhouse:
// pairing, farm pages, and each failure as its user sees it.

import { existsSync } from 'node:fs';
import AxeBuilderSource from 'axe-core';
import { brokers } from './brokers.mjs';
import { bulk } from './bulk.mjs';
import { film, modules } from './camera.mjs';
import { check, conclude, must, same, skip } from './checks.mjs';
import { distrust } from './distrust.mjs';
import { faults, table } from './faults.mjs';
import { hands } from './hands.mjs';
import { hostile, serveOdd } from './hostile.mjs';
import { life } from './life.mjs';
import { install, serve, use } from './notebook.mjs';
import { portal } from './portal.mjs';
import { speed } from './speed.mjs';
import { tabs } from './tabs.mjs';
import { app, browserPath, freePort, phone, run, until, World } from './world.mjs';

for (const [path, help] of [
  [browserPath, 'apt-get install chromium, or name it in CHROMIUM'],
  [`${app}/index.html`, 'make app'],
]) {
  if (!existsSync(path)) {
    console.log(`${path} is missing: ${help}`);
    process.exit(1);
  }
}

const [odd, notebookPort, installed] = [await serveOdd(), await freePort(), install()];
const world = await World.start({ services: [['notebook', notebookPort], ...odd.services] });
const { context } = await world.browser();
let page;
let farm;
let notebook;

/** The chip's words. */
const chip = () => page.locator('.chip[role=status]').textContent();

/** How long until the chip is in this mood. */
async function mood(wanted, within = 30_000, on = page) {
  const began = Date.now();
  await on.locator(`.chip[role=status][data-mood=${wanted}]`).waitFor({ timeout: within });
  return Date.now() - began;
}

/** Nothing serious for people who see or move differently. */
async function accessible(where) {
  await page.evaluate(AxeBuilderSource.source);
  const found = await page.evaluate(() => globalThis.axe.run({ exclude: [['iframe']] }));
  const serious = found.violations.filter(one => one.impact === 'serious' || one.impact === 'critical');
  same(
    serious.map(one => `${one.id}: ${one.nodes[0]?.html}`),
    [],
    `axe on ${where}`,
  );
}

/** The farm page's frame. */
async function view(service = 'greenhouse') {
  return until('the farm page', () =>
    page.frames().find(frame => frame.url().includes(`/${service}--`) && !frame.url().includes('/__view')),
  );
}

/** Opens a service's page from the farm's screen. */
async function open(service, isOpen = false) {
  if (!isOpen) {
    await page.goto(farm);
    await page.getByText(service, { exact: true }).click();
  }
  return view(service);
}

try {
  await check('a link pairs, and its secret leaves the address bar', async () => {
    const { link } = await world.invite();
    page = await phone(context, link);
    await page.getByRole('button', { name: 'Pair', exact: true }).waitFor();
    must(!page.url().includes('s='), `the secret stayed in ${page.url()}`);
    await accessible('pairing');
    const began = Date.now();
    await page.getByRole('button', { name: 'Pair', exact: true }).click();
    await mood('fine');
    farm = page.url();
    const history = await page.evaluate(() => history.length);
    must(history < 5, 'the history grew');
    return `live ${Date.now() - began} ms after the tap: ${await chip()}`;
  });

  await check('the key can be used but not read', async () => {
    const extractable = await page.evaluate(async () => {
      const request = indexedDB.open('farm-tunnel');
      const database = await new Promise(resolve => {
        request.onsuccess = () => resolve(request.result);
      });
      const got = database.transaction('device').objectStore('device').get('key');
      const pair = await new Promise(resolve => {
        got.onsuccess = () => resolve(got.result);
      });
      database.close();
      return pair.privateKey.extractable;
    });
    same(extractable, false, 'extractable');
  });

  await check('screens pass axe in both schemes', async () => {
    await accessible('farm');
    for (const where of [
      '#/',
      '#/settings',
      '#/pair',
      farm.slice(farm.indexOf('#')).replace('farm', 'outages'),
    ]) {
      await page.evaluate(fragment => {
        location.hash = fragment;
      }, where);
      await page.waitForTimeout(150);
      for (const scheme of ['dark', 'light']) {
        await page.emulateMedia({ colorScheme: scheme });
        await accessible(`${where} ${scheme}`);
      }
    }
    await page.goto(farm);
  });

  await hands(page, farm);

  await check('readings: live, with age, history and chart; kept for when the farm is away', async () => {
    const record = value =>
      run('farm-agent', [
        'record',
        'soil moisture',
        String(value),
        '--unit',
        '%',
        '--state',
        world.agentState,
      ]);
    for (const value of [21, 22.5, 24]) await record(value);
    await page.goto(farm);
    const row = page.locator('.reading', { hasText: 'soil moisture' });
    await row.getByText('24 %').waitFor();
    const began = Date.now();
    await record(25.5);
    await row.getByText('25.5 %').waitFor();
    const took = Date.now() - began;
    await row.getByText('ago').waitFor();
    await row.click();
    await page.locator('.history canvas').waitFor();
    await page.getByText('4 readings, kept on this phone').waitFor();
    await accessible('readings');
    const painted = await page.locator('.history canvas').evaluate(canvas => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      return data.some(byte => byte !== 0);
    });
    must(painted, 'the chart is empty');
    // A new start of the app has them before the farm is reached, and none twice.
    await page.reload();
    await page.getByText('4 readings, kept on this phone').waitFor();
    return `${took} ms from the command to the screen`;
  });

  await check('the farm’s phones are listed, this one marked', async () => {
    await page.goto(farm);
    await page.locator('.list li', { hasText: 'this phone' }).waitFor();
  });

  await check('the greenhouse page opens inside the app and is live', async () => {
    const began = Date.now();
    await page.getByText('greenhouse', { exact: true }).click();
    const frame = await view();
    await frame.getByText('°C').first().waitFor();
    const took = Date.now() - began;
    const before = await frame.locator('body').textContent();
    await until('new readings', async () => (await frame.locator('body').textContent()) !== before);
    return `first readings after ${took} ms`;
  });

  await check('a page reaches its service: fetch, post, ranges, errors, cookies', async () => {
    const frame = await view();
    const found = await frame.evaluate(async () => {
      const readings = await (await fetch('/api/readings')).json();
      const vent = await fetch('/api/vent', { method: 'POST', body: JSON.stringify({ open: 42 }) });
      const range = await fetch('/download/1MB.bin', { headers: { range: 'bytes=10-19' } });
      const missing = await fetch('/nothing');
      const wrong = await fetch('/api/vent');
      return {
        readings: typeof readings.time,
        vent: (await vent.json()).vent ?? vent.status,
        range: [range.status, (await range.arrayBuffer()).byteLength, range.headers.get('content-range')],
        missing: missing.status,
        wrong: wrong.status,
      };
    });
    same(found.range, [206, 10, 'bytes 10-19/1000000'], 'range');
    same([found.missing, found.wrong], [404, 405], 'errors');
    same(found.readings, 'number', 'readings');
  });

  await check('WebSockets work through the shim', async () => {
    const frame = await view();
    const heard = await frame.evaluate(
      () =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(`ws://${location.host}/ws`);
          const got = [];
          socket.binaryType = 'arraybuffer';
          socket.onopen = () => {
            socket.send('привет');
            socket.send(new Uint8Array(100_000).fill(7));
          };
          socket.onmessage = ({ data }) => {
            got.push(typeof data === 'string' ? data : data.byteLength);
            if (got.length === 2) socket.close(1000);
          };
          socket.onclose = ({ code, wasClean }) => resolve([...got, code, wasClean]);
          socket.onerror = () => reject(new Error('error'));
          setTimeout(() => reject(new Error('too late')), 10_000);
        }),
    );
    same(heard.slice(0, 2), ['привет', 100_000], 'heard');
  });

  await check('an upload of 8 MB arrives byte for byte', async () => {
    const frame = await view();
    const [ours, theirs] = await frame.evaluate(async () => {
      const bytes = new Uint8Array(8_000_000);
      for (let at = 0; at < bytes.length; at++) bytes[at] = (at * 31) >> 3;
      const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
      const answer = await (await fetch('/upload', { method: 'POST', body: bytes })).json();
      return [Array.from(hash, byte => byte.toString(16).padStart(2, '0')).join(''), answer.sha256];
    });
    same(theirs, ours, 'checksum');
  });

  const download = async megabytes =>
    (await view()).evaluate(async size => {
      const answer = await fetch(`/download/${size}MB.bin`);
      const began = performance.now();
      const bytes = await answer.arrayBuffer();
      const took = performance.now() - began;
      const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
      const ours = Array.from(hash, byte => byte.toString(16).padStart(2, '0')).join('');
      return { took, right: ours === answer.headers.get('x-sha256'), length: bytes.byteLength };
    }, megabytes);

  await check('100 MB come through the page with the right checksum', async () => {
    const { took, right, length } = await download(100);
    must(right && length === 100_000_000, `checksum or length wrong (${length})`);
    return `${(length / took / 1000).toFixed(1)} MB/s`;
  });

  await check('200 requests at once are all answered', async () => {
    const answers = await (await view()).evaluate(async () => {
      const all = Array.from({ length: 200 }, () => fetch('/api/readings').then(answer => answer.status));
      return (await Promise.all(all)).filter(status => status === 200).length;
    });
    same(answers, 200, 'answered');
  });

  await check('a farm page reaches neither the app nor its keys', async () => {
    const frame = await view();
    const found = await frame.evaluate(async () => {
      const attempt = async work => {
        try {
          await work();
          return 'done';
        } catch (error) {
          return error.name;
        }
      };
      return {
        parent: await attempt(() => parent.document.title),
        top: await attempt(() => {
          top.location.href = 'about:blank';
        }),
        worker: await attempt(() => navigator.serviceWorker.register('/icon.svg')),
        databases: (await indexedDB.databases()).length,
        elsewhere: await attempt(
          () =>
            new Promise((resolve, reject) => {
              const socket = new WebSocket('ws://127.0.0.1:1/');
              socket.onopen = resolve;
              socket.onerror = () => reject(new DOMException('refused', 'Refused'));
            }),
        ),
      };
    });
    same([found.parent, found.worker, found.databases], ['SecurityError', 'SecurityError', 0], 'found');
    same(found.elsewhere, 'Refused', 'a WebSocket to another host');
    must(page.url().includes('#/open/'), 'the page moved the app');
  });

  await check('what can’t be carried fails visibly and leaks nothing', async () => {
    const status = await (await view()).evaluate(() => {
      const request = new XMLHttpRequest();
      request.open('GET', '/api/readings', false);
      request.send();
      return request.status;
    });
    same(status, 404, 'synchronous XMLHttpRequest');
  });

  if (installed.why) skip('a notebook of others as the farm’s service', installed.why);
  else {
    notebook = await serve(installed, notebookPort, world.dir);
    await use(page, notebook, open);
    await notebook.notebook.end();
  }
  await hostile(world, page, open);
  await open('greenhouse');
  await speed(world);
  await bulk(world);

  await check('broker away: the tunnel goes on, and the app says so without alarm', async () => {
    await page.goto(farm);
    await mood('fine');
    await until('the worker', () => page.evaluate(() => navigator.serviceWorker.controller !== null));
    await world.broker.end();
    try {
      await withoutBroker();
    } finally {
      await world.broker.start();
    }
    await page.goto(farm);
    await page.getByText('The meeting server is away').waitFor({ state: 'hidden', timeout: 15_000 });
  });

  async function withoutBroker() {
    await page.getByText('The meeting server is away').waitFor({ timeout: 15_000 });
    await mood('fine', 1000);
    await page.getByText('greenhouse', { exact: true }).click();
    const frame = await view();
    await frame.getByText('°C').first().waitFor();
  }

  await check('farm without power: shown at once, back at once', async () => {
    await mood('fine');
    await world.agent.end();
    const shown = await mood('gone', 10_000);
    const said = await chip();
    must(said.includes('Farm unavailable, reconnecting…'), `said ${said}`);
    await page.getByText('Next attempt in').or(page.getByText('under way')).first().waitFor();
    await world.agent.start();
    const healed = await mood('fine');
    must(shown <= 5_000, `shown only after ${shown} ms`);
    return `shown after ${shown} ms, healed ${healed} ms after the agent was ready`;
  });

  await check('a download rides over a silent path, byte for byte', async () => {
    await page.getByText('greenhouse', { exact: true }).click();
    await view();
    const running = download(60);
    await page.waitForTimeout(300);
    world.agent.child.kill('SIGSTOP');
    await page.waitForTimeout(4_000);
    const said = await page.locator('.chip[role=status]').textContent();
    world.agent.child.kill('SIGCONT');
    const { right } = await running;
    must(right, 'checksum wrong');
    return `while silent it said: ${said.trim()}`;
  });

  await check('a request during a restart of the farm is answered after it', async () => {
    const frame = await view();
    await world.agent.end();
    const asked = frame.evaluate(async () => (await fetch('/api/readings')).status);
    await page.waitForTimeout(500);
    await world.agent.start();
    same(await asked, 200, 'status');
  });

  await check('a tap while the farm is away is queued, visibly, and done later', async () => {
    await page.goto(farm);
    await mood('fine');
    await world.agent.end();
    await mood('gone', 10_000);
    await page.getByText('greenhouse', { exact: true }).click();
    await page.getByText('opens as soon as the farm is back').waitFor();
    await world.agent.start();
    await (await view()).getByText('°C').first().waitFor({ timeout: 30_000 });
  });

  await check('the app opens without any server, to what was last known', async () => {
    await page.goto(farm);
    await mood('fine');
    await until('the worker', () => page.evaluate(() => navigator.serviceWorker.controller !== null));
    await world.broker.end();
    const began = Date.now();
    await page.goto(world.url);
    await page.getByText('North field').waitFor();
    const took = Date.now() - began;
    await page.getByText('Last connected').waitFor();
    await world.broker.start();
    await page.goto(farm);
    const back = await mood('fine');
    return `drawn after ${took} ms, live ${back} ms after the broker's return`;
  });

  await check('a thousand requests leave nothing behind', async () => {
    await page.goto(farm);
    await mood('fine');
    await page.getByText('greenhouse', { exact: true }).click();
    const frame = await view();
    const devtools = await context.newCDPSession(page);
    const heap = async () => {
      await devtools.send('HeapProfiler.collectGarbage');
      return (await devtools.send('Runtime.getHeapUsage')).usedSize;
    };
    const ask = count =>
      frame.evaluate(async many => {
        for (let at = 0; at < many; at += 20) {
          await Promise.all(Array.from({ length: 20 }, async () => (await fetch('/api/readings')).text()));
        }
      }, count);
    await ask(200);
    const before = await heap();
    await ask(1000);
    const grown = ((await heap()) - before) / 1000;
    must(grown < 1_000, `${Math.round(grown)} KB more`);
    return `${Math.round(grown)} KB more on the heap of ${Math.round(before / 1000)} KB`;
  });

  await life(world);
  await brokers();
  await distrust(world);

  await check('a second phone pairs by typed code, in Russian, beside the first', async () => {
    const { code } = await world.invite();
    const { context: second } = await world.browser();
    const other = await phone(second, world.url, { language: 'ru-RU' });
    await other.getByText('Добавить ферму').click();
    await other.getByLabel('Ссылка или код').fill(code.toLowerCase());
    await other.getByRole('button', { name: 'Сопрячь' }).click();
    await mood('fine', 30_000, other);
    must((await other.locator('.chip[role=status]').textContent()).includes('На связи'), 'not in Russian');
    await mood('fine', 1000);
    await other.close();
  });

  await check('the camera reads the QR code from the farm’s terminal', async () => {
    const video = `${world.dir}/camera.y4m`;
    film(video, modules(await world.terminal()));
    const { context: third, stop } = await world.browser([
      '--use-fake-ui-for-media-stream',
      '--use-fake-device-for-media-stream',
      `--use-file-for-fake-video-capture=${video}`,
    ]);
    const other = await phone(third, `${world.url}#/pair`);
    await other.getByRole('button', { name: 'Scan the QR code' }).click();
    await mood('fine', 30_000, other);
    await stop();
  });

  await tabs(world);
  await portal(world);

  await check('wrong invitations are refused with the reason', async () => {
    await page.goto(`${world.url}#/pair`);
    for (const [text, said] of [
      ['hello', 'neither an invitation link nor a code'],
      ['0000-0000-0000-0000', 'No farm with this invitation'],
    ]) {
      await page.getByLabel('Link or code').fill(text);
      await page.getByRole('button', { name: 'Pair', exact: true }).click();
      await page.getByRole('alert').getByText(said).waitFor({ timeout: 40_000 });
    }
  });

  await check('a removed phone is told, and how to come back', async () => {
    await page.goto(farm);
    await mood('fine');
    const phones = JSON.parse(await run('farm-agent', ['phones', '--json', '--state', world.agentState]));
    for (const one of phones)
      await run('farm-agent', ['revoke', one.id ?? one.phone, '--state', world.agentState]);
    await mood('stuck', 20_000);
    await page.getByText('Pair again').waitFor();
    return (await chip()).trim();
  });

  await check('nothing was logged as an error', async () => {
    const expected =
      /ERR_CONNECTION_REFUSED|WebSocket connection|status of (404|405|502|511)|Synchronous XMLHttpRequest|Unsafe attempt/;
    same(
      page.problems.filter(text => !expected.test(text)),
      [],
      'problems',
    );
  });
} finally {
  await notebook?.notebook.end();
  odd.stop();
  if (process.env.KEEP_SHOT) await page?.screenshot({ path: process.env.KEEP_SHOT }).catch(() => undefined);
  await world.stop();
}
const rows = await faults();
if (typeof rows === 'string') skip('the failure table', rows);
else console.log(table(rows));
conclude();
process.exit();
