// What happens to an app over its life: hidden for long, updated, copied, with
// a wrong clock, without room, without what it had kept.

import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { check, must, same } from './checks.mjs';
import { PATIENCE, phone, run, until } from './world.mjs';

/**
 * Counts what leaves the page, and lets a test move the page's wall clock. Each connection to a farm
 * has a frame of its own: what leaves those is counted in the page, too.
 */
function meter() {
  const app = location.href === 'about:blank' ? parent : globalThis;
  app.__sent ??= { WebSocket: 0, RTCDataChannel: 0 };
  for (const type of [WebSocket, RTCDataChannel]) {
    const send = type.prototype.send;
    type.prototype.send = function (...args) {
      app.__sent[type.name] += 1;
      return send.apply(this, args);
    };
  }
  const now = Date.now.bind(Date);
  globalThis.__offset = globalThis.__offset ?? 0;
  Date.now = () => now() + globalThis.__offset;
}

const fine = (page, within = 30_000) =>
  page.locator('.chip[role=status][data-mood=fine]').waitFor({ timeout: within });

/** A farm that is paired already is live so soon: sooner than a second try, which is due after 4 s. */
const AGAIN_WITHIN_MS = 3_000;

/** A page on a newly paired app; `prepare` runs in it before the app does. */
export async function paired(world, context, prepare) {
  const page = await context.newPage();
  await page.setViewportSize({ width: 360, height: 740 });
  if (prepare) await page.addInitScript(prepare);
  const { link } = await world.invite();
  await page.goto(link);
  await page.getByRole('button', { name: /Pair|Сопрячь/ }).click();
  await fine(page);
  return page;
}

export async function life(world) {
  await check('hidden for long nothing is sent; shown again it is live at once', async () => {
    const { context, stop } = await world.browser();
    const sessions = async () =>
      JSON.parse(await run('farm-agent', ['status', '--json', '--state', world.agentState])).sessions.length;
    const page = await paired(world, context, meter);
    const before = await sessions();
    const sent = () => page.evaluate(() => globalThis.__sent);
    must(
      Object.values(await sent()).every(count => count > 0),
      `not all is counted: ${JSON.stringify(await sent())}`,
    );
    const hide = hidden =>
      page.evaluate(hidden => {
        Object.defineProperty(document, 'visibilityState', {
          configurable: true,
          get: () => (hidden ? 'hidden' : 'visible'),
        });
        document.dispatchEvent(new Event('visibilitychange'));
      }, hidden);
    await hide(true);
    // Five minutes later, as far as the app can tell.
    await page.evaluate(() => {
      globalThis.__offset = 301_000;
    });
    await until('the farm to be left', async () => (await sessions()) < before);
    const rested = async () => Object.values(await sent()).reduce((sum, count) => sum + count);
    // The goodbyes have left when the count stands for two looks of the monitor.
    let count = await rested();
    await until('silence', async () => {
      await page.waitForTimeout(4_500);
      const now = await rested();
      const still = now === count;
      count = now;
      return still;
    });
    const began = Date.now();
    await hide(false);
    await fine(page);
    const took = Date.now() - began;
    await stop();
    must(took <= 1_500, `live only ${took} ms after it was shown`);
    return `silent for 4.5 s on end, live ${took} ms after it was shown`;
  });

  await check('with third-party cookies blocked a farm’s page is shown', async () => {
    const profile = mkdtempSync(`${world.dir}/profile-`);
    mkdirSync(`${profile}/Default`);
    // What "Block third-party cookies" in Chromium's settings writes; private windows have it so.
    const settings = { profile: { cookie_controls_mode: 1, block_third_party_cookies: true } };
    writeFileSync(`${profile}/Default/Preferences`, JSON.stringify(settings));
    const { context, stop } = await world.browser([], profile);
    const page = await paired(world, context);
    await page.getByText('greenhouse', { exact: true }).click();
    const frame = await until('the farm page', () =>
      page.frames().find(frame => /--.*\.localhost:\d+\/(?!__view)/.test(frame.url())),
    );
    await frame.getByText('°C').first().waitFor({ timeout: PATIENCE });
    await stop();
  });

  await check(
    'a copy of the browser’s profile does not fight: one of them goes on in another place',
    async () => {
      const first = await world.browser();
      await paired(world, first.context);
      await first.stop();
      const copy = `${first.profile}-copy`;
      cpSync(first.profile, copy, {
        recursive: true,
        filter: path => !/Singleton|DevToolsActivePort/.test(path),
      });
      const pages = [];
      const browsers = [await world.browser([], first.profile), await world.browser([], copy)];
      for (const { context } of browsers) {
        const page = await context.newPage();
        await page.goto(world.url);
        await page.locator('a.card').click();
        pages.push(page);
      }
      for (const page of pages) await fine(page);
      // Both stay: ten looks of each without a change.
      for (let look = 0; look < 10; look++) {
        await pages[0].waitForTimeout(300);
        for (const page of pages)
          must(await page.locator('.chip[role=status][data-mood=fine]').isVisible(), 'they fight');
      }
      for (const { stop } of browsers) await stop();
    },
  );

  await check('a clock an hour off changes nothing', async () => {
    const { context, stop } = await world.browser();
    const page = await paired(world, context, () => {
      const now = Date.now.bind(Date);
      Date.now = () => now() - 3_600_000;
    });
    const said = await page.locator('.standing').textContent();
    must(/for \d+ s|for a moment|уже/.test(said), `it says ${said}`);
    await stop();
  });

  await check('without IndexedDB it works until it is closed, and says so', async () => {
    const { context, stop } = await world.browser();
    const page = await paired(world, context, () => {
      indexedDB.open = () => {
        throw new DOMException('gone', 'UnknownError');
      };
    });
    await page.goto(`${page.url().split('#')[0]}#/`);
    await page.getByText(/This browser keeps nothing|Браузер ничего не хранит/).waitFor();
    await stop();
  });

  await check('with full storage it pairs, works, and says that nothing is kept', async () => {
    const { context, stop } = await world.browser();
    // What a browser does where there is no room: it takes the write, and takes it back.
    const page = await paired(world, context, () => {
      const put = IDBObjectStore.prototype.put;
      IDBObjectStore.prototype.put = function (...args) {
        const request = put.apply(this, args);
        this.transaction.abort();
        return request;
      };
    });
    await page.evaluate(() => {
      location.hash = '#/';
    });
    await page.getByText(/This browser keeps nothing|Браузер ничего не хранит/).waitFor();
    await stop();
  });

  await check('keys that the browser cleared are missed, and pairing is offered', async () => {
    const { context, stop } = await world.browser();
    const page = await paired(world, context);
    await page.goto(`${world.url}icon.svg`);
    await page.evaluate(
      () =>
        new Promise((resolve, reject) => {
          const request = indexedDB.deleteDatabase('farm-tunnel');
          request.onsuccess = resolve;
          request.onblocked = () => reject(new Error('blocked'));
        }),
    );
    await page.goto(world.url);
    await page.getByText(/cleared what this app had kept|стёр всё/).waitFor();
    // The same farm again, as a new phone.
    const { link } = await world.invite();
    await page.goto('about:blank');
    await page.goto(link);
    await page.getByRole('button', { name: /Pair|Сопрячь/ }).click();
    await fine(page);
    // And once more, though it is paired: one farm, live.
    const { link: again } = await world.invite();
    await page.goto('about:blank');
    await page.goto(again);
    await page.getByRole('button', { name: /Pair|Сопрячь/ }).click();
    const began = Date.now();
    await fine(page);
    const took = Date.now() - began;
    must(took <= AGAIN_WITHIN_MS, `live only ${took} ms after it was paired again`);
    await page.goto(world.url);
    await page.locator('a.card').first().waitFor();
    same(await page.locator('a.card').count(), 1, 'farms');
    await stop();
  });

  await check('a new version is offered, and taken when it is wanted', async () => {
    const { context, stop } = await world.browser();
    const page = await phone(context, world.url);
    await until('the worker', () => page.evaluate(() => navigator.serviceWorker.controller !== null));
    for (const file of readdirSync(world.served)) if (file.endsWith('.gz')) rmSync(`${world.served}/${file}`);
    const change = (file, from, to) => {
      const text = readFileSync(`${world.served}/${file}`, 'utf8');
      must(from.test(text), `${file} has no ${from}`);
      writeFileSync(`${world.served}/${file}`, text.replace(from, to));
    };
    change('index.html', /<body>/, '<body data-version="2">');
    change('sw.js', /farm-tunnel-\$\{?[^`"']*|farm-tunnel-[0-9a-f]{16}/, found => `${found}2`);
    await world.broker.end();
    await world.broker.start();
    await page.goto(world.url);
    same(await page.evaluate(() => document.body.dataset.version ?? '1'), '1', 'version before');
    await page.getByRole('button', { name: 'Use it now' }).click();
    await until('the new version', () =>
      page.evaluate(() => document.body?.dataset.version === '2').catch(() => false),
    );
    await stop();
  });
}
