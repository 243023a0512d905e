/** Who leads, under virtual time. */

import { expect, test } from 'vitest';
import {
  type Action,
  ASK_INTERVAL,
  FROZEN,
  HIDDEN_LIMIT,
  Leadership,
  SPREAD,
  VISIBLE_LIMIT,
} from '../leadership';
import { ms } from '../time';

/** Runs a tab until `until`, answering each question or not; what it did, and when. */
function run(tab: Leadership, from: number, until: number, answer: null | { visible: boolean }) {
  const done: [Action, number][] = [];
  const drain = (now: number) => {
    for (let action = tab.pollAction(); action; action = tab.pollAction()) {
      done.push([action, now]);
      if (action === 'ask' && answer) tab.handle({ kind: 'answered', ...answer }, now + ms(1));
    }
  };
  drain(from);
  for (let due = tab.pollTimeout(); due && due[0] <= until; due = tab.pollTimeout()) {
    tab.handleTimeout(due[0]);
    drain(due[0]);
  }
  return done;
}

const kinds = (done: [Action, number][]) => [...new Set(done.map(([action]) => action))];

test('a tab that answers keeps the lead, hidden or not', () => {
  for (const visible of [true, false]) {
    const tab = new Leadership(true, 1n, 0);
    expect(kinds(run(tab, 0, ms(60_000), { visible }))).toEqual(['ask']);
  }
});

test('a hidden tab that does not answer loses the lead within a second', () => {
  for (let seed = 0n; seed < 50n; seed++) {
    const tab = new Leadership(true, seed, 0);
    run(tab, 0, ms(10_000), { visible: false });
    const asked = ms(10_000) + ASK_INTERVAL;
    const [, at] = run(tab, ms(10_000), ms(20_000), null).find(([action]) => action === 'steal') ?? [];
    expect(at).toBeLessThanOrEqual(asked + HIDDEN_LIMIT + SPREAD);
    tab.handle({ kind: 'granted' }, at ?? 0);
    expect(tab.pollAction()).toBe('lead');
    expect(tab.pollTimeout()).toBeNull();
  }
});

test('a visible tab is given longer', () => {
  const tab = new Leadership(true, 7n, 0);
  run(tab, 0, ms(1_000), { visible: true });
  const steals = run(tab, ms(1_000), ms(9_000), null).filter(([action]) => action === 'steal');
  expect(steals[0]?.[1]).toBeGreaterThanOrEqual(ms(1_000) + VISIBLE_LIMIT);
});

test('a tab that nobody looks at takes nothing, and asks at once when it is shown', () => {
  const tab = new Leadership(false, 3n, 0);
  expect(run(tab, 0, ms(60_000), null)).toEqual([]);
  tab.handle({ kind: 'visible', visible: true }, ms(60_000));
  expect(tab.pollAction()).toBe('ask');
});

test('its own sleep is no silence of the other’s', () => {
  const tab = new Leadership(true, 5n, 0);
  run(tab, 0, ms(1_000), { visible: false });
  // Asked, then frozen for a minute: the answer waits in its queue.
  const [due] = tab.pollTimeout() ?? [0];
  tab.handleTimeout(due);
  tab.handleTimeout(due + ms(60_000) + FROZEN);
  tab.handle({ kind: 'answered', visible: false }, due + ms(60_001) + FROZEN);
  expect(kinds(run(tab, due + ms(60_001) + FROZEN, due + ms(62_000), { visible: false }))).toEqual(['ask']);
});

test('whoever lost the lead follows, and does not take it back from one that answers', () => {
  const tab = new Leadership(true, 9n, 0);
  tab.handle({ kind: 'granted' }, 0);
  expect(kinds(run(tab, 0, ms(1_000), null))).toEqual(['ask', 'lead']);
  tab.handle({ kind: 'taken' }, ms(1_000));
  expect(kinds(run(tab, ms(1_000), ms(30_000), { visible: true }))).toEqual(['follow', 'ask']);
});

test('a lock that does not come is asked for again', () => {
  const tab = new Leadership(true, 11n, 0);
  const steals = run(tab, 0, ms(10_000), null).filter(([action]) => action === 'steal');
  expect(steals.length).toBeGreaterThan(3);
});
