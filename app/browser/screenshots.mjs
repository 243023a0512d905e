// Pictures of every screen in both languages, into docs/screenshots.

import { mkdirSync } from 'node:fs';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { ANSWERS, inTheWay } from './portal.mjs';
import { phone, run, until, World } from './world.mjs';

const folder = fileURLToPath(new URL('../../docs/screenshots/', import.meta.url));
mkdirSync(folder, { recursive: true });

const world = await World.start();
try {
  for (const [language, tag] of [
    ['ru', 'ru-RU'],
    ['en', 'en-GB'],
  ]) {
    const { context } = await world.browser();
    const page = await phone(context, world.url, { language: tag });
    const shot = name => page.screenshot({ path: `${folder}${name}-${language}.png` });
    const chip = mood => page.locator(`.chip[data-mood=${mood}]`).first().waitFor();
    await page.locator('.empty').waitFor();
    await shot('1-empty');
    const { link } = await world.invite();
    await page.goto('about:blank');
    await page.goto(link);
    await page.locator('form').waitFor();
    await shot('2-pair');
    await page.locator('button[type=submit]').click();
    await chip('fine');
    const farm = page.url();
    const values = Array.from({ length: 20 }, (_, at) => 31 + 6 * Math.sin(at / 4) - at / 10);
    for (const value of values) {
      const args = [
        'record',
        tag === 'ru-RU' ? 'влажность почвы' : 'soil moisture',
        value.toFixed(1),
        '--unit',
        '%',
      ];
      await run('farm-agent', [...args, '--state', world.agentState]);
      // So that the charts have seen something.
      await page.waitForTimeout(1_000);
    }
    await shot('3-farm');
    await page.screenshot({ path: `${folder}3-farm-whole-${language}.png`, fullPage: true });
    await page.locator('.reading').first().click();
    await page.locator('input[name=range]').first().check({ force: true });
    await page.locator('.history canvas').waitFor();
    await page.waitForTimeout(300);
    await shot('9-reading');
    await page.goto(farm);
    await page.locator('a.service').first().click();
    const frame = await until('the page', () =>
      page.frames().find(one => /--.*localhost:\d+\/(?!__view)/.test(one.url())),
    );
    await frame.getByText('°C').first().waitFor();
    await page.waitForTimeout(4_000);
    await shot('4-page');
    await page.goto(farm);
    await chip('fine');
    await world.agent.end();
    await chip('gone');
    await page.waitForTimeout(3_000);
    await shot('5-away');
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.evaluate(() => {
      location.hash = '#/';
    });
    await page.waitForTimeout(300);
    await shot('6-farms-dark');
    await world.agent.start();
    await chip('fine');
    await page.waitForTimeout(1_500);
    await page.evaluate(
      fragment => {
        location.hash = fragment;
      },
      farm.slice(farm.indexOf('#')).replace('farm', 'outages'),
    );
    await page.locator('li.card').first().waitFor();
    await page.emulateMedia({ colorScheme: 'light' });
    await shot('7-outages');
    await page.evaluate(() => {
      location.hash = '#/settings';
    });
    await page.locator('fieldset').waitFor();
    await shot('8-settings');
    // A network that wants a login: somebody else answers where the broker should.
    await page.goto(farm);
    await chip('fine');
    await Promise.all([world.broker.end(), world.agent.end()]);
    const leave = await inTheWay(
      Number(new URL(world.url).port),
      createServer((_, response) => ANSWERS['a page'](response)),
    );
    await chip('stuck');
    await page.waitForTimeout(1_000);
    await shot('10-login');
    await leave();
    await Promise.all([world.broker.start(), world.agent.start()]);
    await page.close();
  }
} finally {
  await world.stop();
}
