// Bulk data through the tunnel beside another WebRTC stack: the same bytes, in
// turns, in the same browser, which nothing watches meanwhile.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Bare } from './bare.mjs';
import { check, must } from './checks.mjs';

/** Pairs of measurements; their ratio's median counts: what else the machine does hits both of a pair. */
const TURNS = 7;

/**
 * What ours must reach of the other stack's at the least; below this something
 * is broken. The goal is as much, and the line says whether it was reached: the
 * other's bytes end in the page that owns the channel, ours go on through the
 * worker to the page's frame, two more processes, and a busy machine runs them
 * in turns.
 */
const LEAST = 0.3;

/** Megabytes per measurement. */
const SIZE = 60;

/** The other stack has this long for one: at a tenth of what it does on a busy machine. */
const OTHER_WITHIN_MS = 60_000;

/** Nothing came from it for so long: it hangs. One connection of ten does, connected, without a byte. */
const OTHER_SILENT_MS = 5_000;

/** Times that it may. */
const OTHER_TRIES = 5;

/** Taps what bears this text, once it is there. */
const tap = (page, text) =>
  page.evaluate(async text => {
    for (;;) {
      const found = [...document.querySelectorAll('a, button')].find(one => one.textContent.includes(text));
      if (found && !found.disabled) return found.click();
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  }, text);

/** Megabytes a second from the other stack to this page. */
async function other(page) {
  const program = fileURLToPath(new URL('./other-stack.mjs', import.meta.url));
  const child = spawn(process.execPath, [program], { stdio: ['pipe', 'pipe', 'inherit'] });
  const bound = setTimeout(() => child.kill('SIGKILL'), OTHER_WITHIN_MS);
  const gone = once(child, 'exit');
  const died = gone.then(([code, signal]) => {
    throw new Error(
      `the other stack did not send ${SIZE} MB within ${OTHER_WITHIN_MS / 1000} s: ended with ${code ?? signal}`,
    );
  });
  died.catch(() => undefined);
  try {
    page.hear = message => child.stdin.write(`${message}\n`);
    await page.evaluate(() => {
      const connection = new RTCPeerConnection();
      globalThis.__other = {
        connection,
        channel: new Promise(resolve => {
          connection.ondatachannel = ({ channel }) => {
            channel.binaryType = 'arraybuffer';
            if (channel.readyState === 'open') resolve(channel);
            channel.onopen = () => resolve(channel);
          };
        }),
      };
      connection.onicecandidate = ({ candidate }) =>
        candidate && globalThis.__say(JSON.stringify({ candidate }));
    });
    const lines = createInterface({ input: child.stdout });
    // In turn: a candidate before its description would be lost.
    let turn = Promise.resolve();
    const hear = line =>
      page.evaluate(async text => {
        const { connection } = globalThis.__other;
        const { description, candidate } = JSON.parse(text);
        if (description) {
          await connection.setRemoteDescription(description);
          await connection.setLocalDescription(await connection.createAnswer());
          globalThis.__say(JSON.stringify({ description: connection.localDescription }));
        } else await connection.addIceCandidate(candidate).catch(() => undefined);
      }, line);
    lines.on('line', line => {
      turn = turn.then(() => hear(line)).catch(() => undefined);
    });
    const sent = page.evaluate(
      async ([size, silent]) => {
        const { connection, channel: opening } = globalThis.__other;
        let left = size * 1_000_000;
        let watch;
        const hangs = new Promise((_, reject) => {
          let before = left;
          watch = setInterval(() => {
            if (left === before) reject(new Error(`nothing more came, ${left} bytes are left`));
            before = left;
          }, silent);
        });
        const all = async () => {
          const channel = await opening;
          const began = performance.now();
          channel.send(String(left));
          await new Promise(resolve => {
            channel.onmessage = ({ data }) => {
              left -= data.byteLength;
              if (left <= 0) resolve();
            };
          });
          return (size * 1000) / (performance.now() - began);
        };
        try {
          return await Promise.race([all(), hangs]);
        } finally {
          clearInterval(watch);
          connection.close();
        }
      },
      [SIZE, OTHER_SILENT_MS],
    );
    return await Promise.race([sent, died]);
  } finally {
    child.stdin.end();
    // Whichever way it ends, and has ended already.
    await gone;
    clearTimeout(bound);
  }
}

/** The same, with more tries: that the other stack fails is not what is tested. */
async function otherAgain(page) {
  for (let left = OTHER_TRIES - 1; left > 0; left--) {
    try {
      return await other(page);
    } catch (error) {
      console.log(`      the other stack once more: ${error.message.split('\n')[0]}`);
    }
  }
  return other(page);
}

/** Megabytes a second from the farm's service through the tunnel to its page. */
const ours = frame =>
  frame.evaluate(async size => {
    const began = performance.now();
    const reader = (await fetch(`/download/${size}MB.bin`)).body.getReader();
    let bytes = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) bytes += part.value.length;
    if (bytes !== size * 1_000_000) throw new Error(`${bytes} bytes`);
    return bytes / 1000 / (performance.now() - began);
  }, SIZE);

const median = numbers => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

export async function bulk(world) {
  await check(`${SIZE} MB through the farm’s page, beside @roamhq/wrtc in the same browser`, async () => {
    const bare = await Bare.start(world);
    try {
      const { link } = await world.invite();
      const app = await bare.open(link);
      await tap(app, 'Pair');
      await tap(app, 'greenhouse');
      const frame = await bare.find(/\/\/greenhouse--[^/]*\/$/);
      const blank = await bare.open(`${world.url}icon.svg`);
      await blank.listen();
      const [mine, theirs] = [[], []];
      // The first turn is for the compilers.
      for (let turn = -1; turn < TURNS; turn++) {
        const pair = [await ours(frame), await otherAgain(blank)];
        if (turn < 0) continue;
        mine.push(pair[0]);
        theirs.push(pair[1]);
      }
      const ratio = median(mine.map((speed, turn) => speed / theirs[turn]));
      const figures = `${median(mine).toFixed(1)} MB/s through tunnel, worker and page; ${median(theirs).toFixed(1)} MB/s of @roamhq/wrtc’s bare channel; ${ratio.toFixed(2)} of it, the median of ${TURNS} pairs`;
      must(ratio >= LEAST, `${figures}: below ${LEAST}`);
      return `${figures}; goal (as much): ${ratio >= 1 ? 'reached' : 'MISSED'}`;
    } finally {
      await bare.stop();
    }
  });
}
