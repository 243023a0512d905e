// For hands: a thumb on a narrow screen, and a keyboard.

import { check, must, same } from './checks.mjs';

/** Height and width that a thumb hits, in pixels (WCAG 2.5.5). */
const THUMB = 44;

/** Presses Tab until what has the focus has this address, and says how often. */
async function tabTo(page, address) {
  for (let count = 1; count <= 40; count++) {
    await page.keyboard.press('Tab');
    const [to, outline] = await page.evaluate(() => {
      const { outlineStyle, boxShadow } = getComputedStyle(document.activeElement);
      return [
        document.activeElement.getAttribute('href') ?? '',
        outlineStyle !== 'none' || boxShadow !== 'none',
      ];
    });
    if (!to.startsWith(address)) continue;
    must(outline, `the focus on ${to} can't be seen`);
    return count;
  }
  throw new Error(`no key leads to ${address}`);
}

/** `page` shows the farm at the address `farm`; it does so afterwards. */
export async function hands(page, farm) {
  const fragment = farm.slice(farm.indexOf('#'));
  const screens = ['#/', '#/pair', '#/settings', fragment, fragment.replace('farm', 'outages')];

  await check('each screen fits 360 px, and what is tapped fits a thumb', async () => {
    for (const screen of screens) {
      await page.evaluate(to => {
        location.hash = to;
      }, screen);
      await page.waitForTimeout(150);
      const found = await page.evaluate(least => {
        const tapped = [...document.querySelectorAll('a, button, select, summary, input, textarea')]
          // What is there for a screen reader only has a label that is tapped.
          .map(one => one.closest('label') ?? one)
          .filter(one => one.checkVisibility() && one.getClientRects().length > 0);
        const small = tapped.filter(one => {
          const { width, height } = one.getBoundingClientRect();
          return width < least || height < least;
        });
        return {
          wide: document.documentElement.scrollWidth > innerWidth,
          small: small.map(one => one.outerHTML.slice(0, 120)),
          width: innerWidth,
        };
      }, THUMB);
      same(found, { wide: false, small: [], width: 360 }, screen);
    }
  });

  await check('a keyboard leads from the farms to a farm’s page', async () => {
    await page.evaluate(() => {
      location.hash = '#/';
    });
    await page.locator('a.card').waitFor();
    const first = await tabTo(page, '#/farm/');
    await page.keyboard.press('Enter');
    await page.getByText('greenhouse', { exact: true }).waitFor();
    const second = await tabTo(page, '#/open/');
    await page.keyboard.press('Enter');
    await page.locator('.frame iframe').first().waitFor({ state: 'attached' });
    await page.goto(farm);
    return `${first} and ${second} times Tab`;
  });
}
