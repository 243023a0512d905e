// Several tabs of one phone: one of them owns the connection, all show the same
// truth, and when it goes another has it at once.

import { check, must, same } from './checks.mjs';
import { run, until } from './world.mjs';

/** How soon another tab must be live after the leading one went: about a second, and what a loaded machine takes. */
const LIVE_WITHIN = 1_500;

/** Notes every mood that is shown, and asks the farm's page for something without a pause. */
function watch() {
  globalThis.__moods = [];
  const look = () => {
    const mood = document.querySelector('.chip[role=status]')?.dataset.mood;
    if (mood && globalThis.__moods.at(-1)?.mood !== mood) globalThis.__moods.push({ mood, at: Date.now() });
  };
  new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true });
}

function askOn() {
  globalThis.__answers = [];
  const run = async () => {
    for (;;) {
      const began = Date.now();
      const ok = await fetch('/api/readings', { cache: 'no-store' }).then(
        answer => answer.status === 200,
        () => false,
      );
      globalThis.__answers.push({ began, at: Date.now(), ok });
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  };
  void run();
}

/** As the browser does with a tab that was left: hidden, and then not run at all. */
const hide = page =>
  page.evaluate(() => {
    Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => 'hidden' });
    document.dispatchEvent(new Event('visibilitychange'));
  });

class Phone {
  tabs = [];

  constructor(world, context) {
    Object.assign(this, { world, context });
  }

  /** The farm's sessions with live carriers or parked streams. */
  async sessions() {
    const args = ['status', '--json', '--state', this.world.agentState];
    return JSON.parse(await run('farm-agent', args)).sessions.length;
  }

  async tab(url = this.farm) {
    const page = await this.context.newPage();
    await page.setViewportSize({ width: 360, height: 740 });
    await page.addInitScript(watch);
    await page.goto(url);
    this.tabs.push(page);
    return page;
  }

  async open(page) {
    await page.locator('a.service').first().click();
    const frame = await until('the farm page', () =>
      page.frames().find(one => /--.*localhost:\d+\/(?!__view)/.test(one.url())),
    );
    await frame.getByText('°C').first().waitFor();
    return frame;
  }

  async close(page) {
    this.tabs.splice(this.tabs.indexOf(page), 1);
    await page.close();
  }
}

const fine = (page, timeout = 30_000) =>
  page.locator('.chip[role=status][data-mood=fine]').waitFor({ timeout });

/** How long after `from` something that was asked later was answered. */
async function answeredAfter(frame, from) {
  const first = () =>
    frame.evaluate(from => globalThis.__answers.find(one => one.ok && one.began >= from)?.at, from);
  return (await until('an answer of the page', first)) - from;
}

const download = (frame, megabytes) =>
  frame.evaluate(async size => {
    const answer = await fetch(`/download/${size}MB.bin`);
    const bytes = await answer.arrayBuffer();
    const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
    const ours = Array.from(hash, byte => byte.toString(16).padStart(2, '0')).join('');
    return ours === answer.headers.get('x-sha256') && bytes.byteLength === size * 1_000_000;
  }, megabytes);

export async function tabs(world) {
  const { context, stop } = await world.browser();
  const phone = new Phone(world, context);
  const others = await phone.sessions();
  /** What the farm has of this phone. */
  const own = async () => (await phone.sessions()) - others;

  await check('three tabs show one farm over one session', async () => {
    const first = await phone.tab((await world.invite()).link);
    await first.getByRole('button', { name: 'Pair', exact: true }).click();
    await fine(first);
    phone.farm = first.url();
    for (let more = 0; more < 2; more++) await fine(await phone.tab());
    // Ten looks: nobody takes anything from anybody.
    const before = await Promise.all(phone.tabs.map(page => page.evaluate(() => globalThis.__moods.length)));
    for (let look = 0; look < 10; look++) {
      await first.waitForTimeout(300);
      for (const page of phone.tabs) must(await page.locator('.chip[data-mood=fine]').isVisible(), 'a fight');
    }
    const after = await Promise.all(phone.tabs.map(page => page.evaluate(() => globalThis.__moods.length)));
    same(after, before, 'changes of mood in three seconds');
    same(await own(), 1, 'sessions at the farm');
  });

  await check('two windows side by side both work', async () => {
    const [lead, follower] = phone.tabs;
    const frames = [await phone.open(lead), await phone.open(follower)];
    same(await Promise.all(frames.map(frame => download(frame, 20))), [true, true], 'checksums');
    const uploaded = await frames[1].evaluate(async () => {
      const bytes = new Uint8Array(3_000_000).fill(9);
      return (await (await fetch('/upload', { method: 'POST', body: bytes })).json()).bytes;
    });
    must(uploaded === undefined || uploaded === 3_000_000, `${uploaded} bytes came`);
    const echoed = await frames[1].evaluate(
      () =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(`ws://${location.host}/ws`);
          socket.onopen = () => socket.send('side by side');
          socket.onmessage = ({ data }) => data === 'side by side' && resolve(data);
          socket.onerror = () => reject(new Error('error'));
        }),
    );
    same(echoed, 'side by side', 'heard');
    same(await own(), 1, 'sessions at the farm');
  });

  await check('the leading tab is closed: another is live at once, and its page goes on', async () => {
    const [lead, follower, third] = phone.tabs;
    const frame = await phone.open(await phone.tab());
    await frame.evaluate(askOn);
    await until('answers', () => frame.evaluate(() => globalThis.__answers.length > 3));
    const at = Date.now();
    await phone.close(lead);
    const took = await answeredAfter(frame, at);
    for (const page of [follower, third]) await fine(page);
    const moods = await Promise.all(
      phone.tabs.map(page =>
        page.evaluate(at => globalThis.__moods.filter(one => one.at >= at).map(one => one.mood), at),
      ),
    );
    must(!moods.flat().includes('gone'), `an alarm: ${JSON.stringify(moods)}`);
    must(took <= LIVE_WITHIN, `the page was answered only ${took} ms after`);
    const failed = await frame.evaluate(() => globalThis.__answers.filter(one => !one.ok).length);
    same(failed, 0, 'failed requests of the page');
    same(await own(), 1, 'sessions at the farm');
    return `the page of a tab that followed was answered ${took} ms after`;
  });

  await check('the leading tab crashes: the same', async () => {
    const [lead] = phone.tabs;
    const frame = phone.tabs
      .at(-1)
      .frames()
      .find(one => /--.*localhost:\d+\/(?!__view)/.test(one.url()));
    const devtools = await context.newCDPSession(lead);
    const at = Date.now();
    devtools.send('Page.crash').catch(() => undefined);
    const took = await answeredAfter(frame, at);
    must(took <= LIVE_WITHIN, `the page was answered only ${took} ms after`);
    await phone.close(lead);
    same(await own(), 1, 'sessions at the farm');
    return `answered ${took} ms after`;
  });

  await check('the leading tab is frozen in the background: a tab that is looked at takes over', async () => {
    const [lead, follower] = phone.tabs;
    const frame = follower.frames().find(one => /--.*localhost:\d+\/(?!__view)/.test(one.url()));
    await hide(lead);
    await lead.waitForTimeout(600);
    // It answers, hidden as it is: nothing changes hands.
    const before = await follower.evaluate(() => globalThis.__moods.length);
    await lead.waitForTimeout(2_000);
    same(await follower.evaluate(() => globalThis.__moods.length), before, 'changes of mood');
    const devtools = await context.newCDPSession(lead);
    await devtools.send('Debugger.enable');
    // Stopped amid its work, as a frozen tab is.
    const at = Date.now();
    await devtools.send('Debugger.pause');
    // What was asked before it stood still may have been answered yet.
    const took = 200 + (await answeredAfter(frame, at + 200));
    must(took <= LIVE_WITHIN, `the page was answered only ${took} ms after`);
    await fine(follower);
    same(await own(), 1, 'sessions at the farm');
    // Awake again it follows, and fights for nothing.
    await devtools.send('Debugger.resume');
    await devtools.send('Debugger.disable');
    await fine(lead);
    const moods = () => Promise.all(phone.tabs.map(page => page.evaluate(() => globalThis.__moods.length)));
    const calm = await moods();
    await lead.waitForTimeout(2_000);
    same(await moods(), calm, 'changes of mood after it');
    same(await own(), 1, 'sessions at the farm');
    return `answered ${took} ms after`;
  });

  await check('a farm that is paired or removed in one tab is so in all; so is the language', async () => {
    const [one, two] = phone.tabs;
    for (const page of phone.tabs) await page.goto(`${world.url}#/settings`);
    await one.getByText('Русский', { exact: true }).click();
    await two.getByText('Настройки').first().waitFor();
    await one.getByText('English', { exact: true }).click();
    await two.getByText('Settings').first().waitFor();
    await one.goto(phone.farm);
    await fine(one);
    await two.goto(`${world.url}#/`);
    await two.locator('a.card').waitFor();
    await one.getByText('Remove this farm').click();
    await one.getByRole('button', { name: 'Remove', exact: true }).click();
    await two.getByText('No farm yet').waitFor();
    for (const page of [two, one]) {
      // Whichever follows: pairing is done through the tab that leads.
      await page.goto('about:blank');
      await page.goto((await world.invite()).link);
      await page.getByRole('button', { name: 'Pair', exact: true }).click();
      await fine(page);
    }
    same(await own(), 1, 'sessions at the farm');
  });

  await check('the leading tab is closed while another pairs through it: that one pairs', async () => {
    const page = await phone.tab((await world.invite()).link);
    const pair = page.getByRole('button', { name: 'Pair', exact: true });
    await pair.waitFor();
    // So that pairing is still under way when the leading tab goes.
    await world.broker.end();
    try {
      await pair.click();
      for (const other of phone.tabs.filter(other => other !== page)) await phone.close(other);
    } finally {
      await world.broker.start();
    }
    await fine(page);
    same(await own(), 1, 'sessions at the farm');
  });

  await stop();
}
