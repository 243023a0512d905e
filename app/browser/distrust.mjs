// What a broker can do that means harm: its messages, put into the app's own
// socket. A live tunnel goes on over the carrier it has, whatever they say.

import { decode, encode } from 'cborg';
import { check, must, same } from './checks.mjs';
import { paired } from './life.mjs';
import { until } from './world.mjs';

/**
 * Keeps the page's sockets and what they heard, and counts alarms, and connections, each of which is
 * made in a frame of its own.
 */
function tap() {
  const [PlainSocket, PlainConnection] = [WebSocket, RTCPeerConnection];
  const app = location.href === 'about:blank' ? parent : globalThis;
  app.__connections ??= 0;
  Object.assign(globalThis, { __sockets: [], __heard: [], __alarms: [] });
  globalThis.WebSocket = class extends PlainSocket {
    constructor(...args) {
      super(...args);
      globalThis.__sockets.push(this);
      this.addEventListener('message', ({ data, isTrusted }) => {
        if (isTrusted) globalThis.__heard.push([...new Uint8Array(data)]);
      });
    }
  };
  globalThis.RTCPeerConnection = class extends PlainConnection {
    constructor(...args) {
      super(...args);
      app.__connections += 1;
    }
  };
  new MutationObserver(() => {
    const chip = document.querySelector('.chip[role=status]');
    if (chip && /gone|stuck/.test(chip.dataset.mood)) globalThis.__alarms.push(chip.textContent);
  }).observe(document, { subtree: true, childList: true, attributes: true });
}

const message = body => [...encode([1, body])];

/** Bytes that look like some and are others. */
const forged = bytes => Uint8Array.from(bytes, byte => byte ^ 1);

/** What is said, from what the broker truly said of the farm: presence and its signature. */
function lies({ farm, state }) {
  const signed = { body: new Uint8Array(64), signature: new Uint8Array(64) };
  const peer = { farm };
  const zeros = new Uint8Array(16);
  const welcome = { observed: '', heartbeat_seconds: 0, time: 0 };
  return {
    'no CBOR': [255, 0, 17],
    'another version': [...encode([9, { retry_after: { milliseconds: 1 } }])],
    'too large': Array(70_000).fill(0),
    'nothing at all': [],
    'no message of ours': message({ become: 'mine' }),
    'a second welcome': message({ welcome }),
    'a challenge out of turn': message({ challenge: { nonce: zeros } }),
    'presence that nobody signed': message({
      presence: { farm, state: { ...state, proof: forged(state.proof) } },
    }),
    'presence of another run': message({ presence: { farm, state: { ...state, boot: forged(state.boot) } } }),
    'presence of a farm that is none of ours': message({ presence: { farm: forged(farm), state } }),
    'the farm is away': message({ presence: { farm, state: { ...state, online: false } } }),
    'the farm is unknown': message({ presence: { farm } }),
    'a signal of nothing': message({ signal: { peer, payload: new Uint8Array(10) } }),
    'a signal that nobody signed': message({ signal: { peer, payload: encode([1, { signed }]) } }),
    'not delivered': message({ undelivered: { peer, reason: 'offline' } }),
    'come back in a second': message({ retry_after: { milliseconds: 1_000 } }),
  };
}

/** So many of them, and text, are nonsense, for which the app closes the link. */
const NONSENSE = 6;

export async function distrust(world) {
  await check('what a hostile broker says ends no tunnel and moves no key', async () => {
    const { context, stop } = await world.browser();
    const page = await paired(world, context, tap);
    const away = page.getByText(/The meeting server is away/);
    const isLinked = () =>
      page.evaluate(() => globalThis.__sockets.some(socket => socket.readyState === WebSocket.OPEN));
    const presence = await until('the farm’s presence', async () => {
      const heard = await page.evaluate(() => globalThis.__heard);
      const told = heard.map(bytes => decode(Uint8Array.from(bytes))[1].presence);
      return told.find(one => one?.state);
    });
    await page.evaluate(() => globalThis.__alarms.splice(0));
    const before = await page.evaluate(() => globalThis.__connections);
    must(before > 0, 'no connection was counted');
    const all = [...Object.entries(lies(presence)), ['text', 'hello']];
    for (const [, bytes] of all) {
      await until('the link', isLinked);
      await page.evaluate(bytes => {
        const socket = globalThis.__sockets.findLast(one => one.readyState === WebSocket.OPEN);
        const data = typeof bytes === 'string' ? bytes : Uint8Array.from(bytes).buffer;
        socket.dispatchEvent(new MessageEvent('message', { data }));
      }, bytes);
      // What it brings about begins within a look of the monitor.
      await page.waitForTimeout(300);
    }
    await until('the link', isLinked);
    await away.waitFor({ state: 'hidden' });
    const after = await page.evaluate(() => [globalThis.__connections, globalThis.__alarms]);
    const links = await page.evaluate(() => globalThis.__sockets.length);
    must(links > NONSENSE, `only ${links} links: nonsense was taken for sense`);
    same(after, [before, []], 'connections and alarms');
    must(await page.locator('.chip[role=status][data-mood=fine]').isVisible(), 'the tunnel is not live');
    await stop();
    return `${all.length} kinds of lies; ${links} links to the broker, the same connection throughout`;
  });
}
