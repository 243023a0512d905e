// Every row of the failure table, in a network of its own, as the person with
// the phone sees it: what it says, how soon, and when all is well again.

import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { check, must } from './checks.mjs';
import { Net, obstacle } from './net.mjs';
import { phone, until, World } from './world.mjs';

/** Where the pictures go. */
const folder = process.env.SHOTS ?? fileURLToPath(new URL('../../target/app-faults/', import.meta.url));

/** How soon a failure must be shown: three seconds, and what a loaded machine takes. */
const SHOWN_WITHIN = 3_500;

/**
 * Notes every change of what is shown, with the wall clock's time, and asks
 * the farm's page for something as fast as it answers.
 */
function observe() {
  const seen = [];
  globalThis.__seen = seen;
  const look = () => {
    const chip = document.querySelector('.chip[role=status]');
    const why = document.querySelector('.why')?.textContent ?? '';
    const text = chip?.textContent.replace(/^[●◐○✕]/u, '') ?? '';
    const entry = { at: Date.now(), mood: chip?.dataset.mood ?? '', text, why };
    const last = seen.at(-1);
    if (last?.mood !== entry.mood || last?.why !== why) seen.push(entry);
  };
  new MutationObserver(look).observe(document.body, {
    subtree: true,
    childList: true,
    characterData: true,
    attributes: true,
  });
  look();
}

function askOn() {
  const answers = [];
  globalThis.__answers = answers;
  const run = async () => {
    for (;;) {
      try {
        const { status } = await fetch('/api/readings', { cache: 'no-store' });
        answers.push({ at: Date.now(), ok: status === 200 });
      } catch {
        answers.push({ at: Date.now(), ok: false });
      }
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  };
  void run();
}

class Stage {
  rows = [];

  async begin() {
    this.net = await Net.start();
    this.world = await World.start({ net: this.net });
    const { context } = await this.world.browser();
    const { link } = await this.world.invite();
    this.page = await phone(context, link);
    await this.page.getByRole('button', { name: 'Pair', exact: true }).click();
    await this.fine();
    await this.page.getByText('greenhouse', { exact: true }).click();
    await this.open();
  }

  /** The greenhouse's page is shown and asked for something without a pause. */
  async open() {
    await this.fine();
    this.frame = await until('the farm page', () =>
      this.page.frames().find(frame => /--.*\.localhost:\d+\/(?!__view)/.test(frame.url())),
    );
    await this.frame.getByText('°C').first().waitFor();
    await this.page.evaluate(observe);
    await this.frame.evaluate(askOn);
    await this.answered();
  }

  async fine(within = 30_000) {
    await this.page.locator('.chip[role=status][data-mood=fine]').waitFor({ timeout: within });
  }

  /** One more answer of the farm's page. */
  async answered() {
    const from = Date.now();
    await until('an answer', () =>
      this.frame.evaluate(from => globalThis.__answers.some(one => one.ok && one.at > from), from),
    );
  }

  /**
   * One row: `fault` happens, `mood` is waited for (or nothing), then `repair`; in
   * the end the chip has to have what it `says`. All requests of the page must be
   * answered; `silent` is for how many milliseconds none may be, and `healed` how
   * many after the repair the first one is.
   */
  async row(
    name,
    { fault, mood = null, says = null, repair = null, stay = 0, silent = null, healed = null, file },
  ) {
    const { page, frame } = this;
    const at = Date.now();
    await fault();
    const done = Date.now();
    let said = null;
    if (mood) {
      const find = () =>
        page.evaluate(
          ([at, mood]) => globalThis.__seen.find(one => one.at >= at && one.mood === mood),
          [at, mood],
        );
      said = await until(`${name}: to be shown`, find, 20_000);
      if (stay > 0) {
        await page.waitForTimeout(stay);
        said = (await page.evaluate(() => globalThis.__seen.at(-1))) ?? said;
      }
      await page.screenshot({ path: `${folder}${file}.png` });
    }
    const first = await page.evaluate(
      at => globalThis.__seen.find(one => one.at >= at && one.mood !== 'fine')?.at ?? null,
      at,
    );
    await repair?.();
    const repaired = repair ? Date.now() : done;
    await this.answered();
    await this.fine();
    if (says) {
      await page.locator('.chip[role=status]', { hasText: says }).waitFor();
      await page.screenshot({ path: `${folder}${file}-after.png` });
    }
    const [seen, answers] = [
      await page.evaluate(() => globalThis.__seen),
      await frame.evaluate(() => globalThis.__answers),
    ];
    const back = seen.findLast(one => one.mood === 'fine')?.at ?? at;
    const times = answers.filter(one => one.ok).map(one => one.at);
    const gaps = times.slice(1).map((time, index) => (time < at ? 0 : time - times[index]));
    const gap = Math.max(...gaps);
    // What was on its way when it happened may have come after it: the longest silence counts.
    const end = times[gaps.indexOf(gap) + 1];
    const data = Math.max(end, times.find(time => time > repaired) ?? Date.now()) - repaired;
    const failed = answers.filter(one => one.at >= at && !one.ok).length;
    this.rows.push({
      name,
      shown: first === null ? 'not shown' : `${first - at} ms`,
      said: said ? [said.text, said.why].filter(Boolean).join(' — ') : '',
      healed: `${Math.max(0, data, first === null ? 0 : back - repaired)} ms`,
      gap: `${gap} ms`,
      failed,
    });
    if (mood && first !== null) must(first - at <= SHOWN_WITHIN, `shown only after ${first - at} ms`);
    if (healed !== null) must(data <= healed, `the page was answered only ${data} ms after the repair`);
    if (silent !== null) must(gap <= silent, `the page was silent for ${gap} ms`);
    must(failed === 0, `${failed} requests of the page failed`);
    return `shown ${this.rows.at(-1).shown}, healed ${this.rows.at(-1).healed}, silent for ${gap} ms${
      said ? `: ${this.rows.at(-1).said}` : ''
    }`;
  }

  async end() {
    await this.world?.stop();
    this.net?.stop();
  }
}

/** Runs the table; gives its rows, or why it can't run here. */
export async function faults() {
  const why = obstacle();
  if (why) return why;
  mkdirSync(folder, { recursive: true });
  const stage = new Stage();
  try {
    await stage.begin();
    const { world } = stage;
    const row = (name, what) => check(`fault: ${name}`, () => stage.row(name, what));
    await row('phone loses its network', {
      file: 'phone-offline',
      mood: 'gone',
      stay: 2_000,
      fault: () => stage.net.plug('phone', false),
      repair: () => stage.net.plug('phone', true),
      // Every third time it took up to 3.7 s with the browser's old list of networks (`src/shell/networks.ts`).
      healed: 2_000,
    });
    await row('farm’s address changes', {
      file: 'address',
      fault: () => stage.net.readdress('farm', 2, 3),
    });
    await row('farm’s router gets another public address', {
      file: 'public-address',
      fault: () => stage.net.appearsAs('farm', 9),
    });
    await row('phone’s address changes', {
      file: 'phone-moves',
      fault: () => stage.net.readdress('phone', 2, 3),
      silent: 5_000,
    });
    await row('phone’s network gets another public address', {
      file: 'phone-address',
      fault: () => stage.net.appearsAs('phone', 9),
      silent: 5_000,
    });
    await row('both, half a second apart', {
      file: 'twice',
      // The second before the farm has learned what its first new address looks like from outside.
      fault: async () => {
        stage.net.readdress('farm', 3, 2);
        await stage.page.waitForTimeout(500);
        stage.net.appearsAs('farm', 2);
      },
      silent: 5_000,
    });
    await row('farm’s router forgets its mappings', {
      file: 'mappings',
      fault: () => stage.net.forget('farm'),
    });
    await row('farm’s program restarts', {
      file: 'restart',
      fault: () => world.agent.end(),
      repair: () => world.agent.start(),
    });
    await row('farm loses power', {
      file: 'power',
      mood: 'gone',
      stay: 1_000,
      fault: () => {
        stage.net.plug('farm', false);
        return world.agent.end();
      },
      repair: () => {
        stage.net.plug('farm', true);
        return world.agent.start();
      },
    });
    await row('broker is down', {
      file: 'broker',
      fault: () => world.broker.end(),
      repair: async () => {
        await stage.page.getByText('meeting server is away').waitFor();
        await stage.page.screenshot({ path: `${folder}broker.png` });
        await world.broker.start();
      },
    });
    await check('fault: app restarts', async () => {
      await stage.page.reload();
      const began = await stage.page.evaluate(() => performance.timeOrigin);
      await stage.fine();
      const took = Date.now() - began;
      await stage.open();
      stage.rows.push({
        name: 'app restarts',
        shown: '',
        said: '',
        healed: `${Math.round(took)} ms`,
        gap: '',
        failed: 0,
      });
      return `live ${Math.round(took)} ms after the page began to load`;
    });
    await row('datagrams are blocked: through the relay', {
      file: 'blocked',
      mood: 'gone',
      says: 'relay',
      fault: () => stage.net.blockDatagrams(true),
    });
    await row('datagrams pass again: a direct way', {
      file: 'direct',
      says: 'direct',
      fault: () => stage.net.blockDatagrams(false),
    });
    return stage.rows;
  } finally {
    await stage.end();
  }
}

/** The table as text. */
export function table(rows) {
  const columns = [
    ['failure', 'name'],
    ['shown after', 'shown'],
    ['healed after', 'healed'],
    ['page silent', 'gap'],
    ['failed requests', 'failed'],
    ['what the phone says', 'said'],
  ];
  const cells = [
    columns.map(([title]) => title),
    ...rows.map(row => columns.map(([, key]) => String(row[key]))),
  ];
  const widths = columns.map((_, at) => Math.max(...cells.map(row => row[at].length)));
  return cells.map(row => `| ${row.map((cell, at) => cell.padEnd(widths[at])).join(' | ')} |`).join('\n');
}
