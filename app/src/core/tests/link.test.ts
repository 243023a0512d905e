/** What the shared scenarios of the link seldom reach. */

import { expect, test } from 'vitest';
import { CONNECT_DEBOUNCE, Link } from '../link';
import { seconds } from '../time';

test('attempts without a network leave some for when it is back', () => {
  let now = 0;
  const link = new Link(42n, now);
  let socket: number | null = null;
  const drain = () => {
    let connects = 0;
    for (let action = link.pollAction(); action; action = link.pollAction()) {
      if (action.kind !== 'connect') continue;
      socket = action.socket;
      connects += 1;
    }
    return connects;
  };
  link.handle({ kind: 'start' }, now);
  drain();
  // Four outages in a row, each long enough for all attempts that are to be had.
  for (let outage = 0; outage < 4; outage++) {
    link.handle({ kind: 'network_changed', change: 'down' }, now);
    const end = now + seconds(4);
    for (;;) {
      if (socket !== null)
        link.handle({ kind: 'socket', socket, event: { kind: 'failed', why: 'no network' } }, now);
      socket = null;
      drain();
      const [due] = link.pollTimeout() ?? [end];
      if (due >= end) break;
      now = due;
      link.handleTimeout(now);
      drain();
    }
    now = end;
    link.handle({ kind: 'network_changed', change: 'up' }, now);
    const [due] = link.pollTimeout() ?? [now];
    if (drain() === 0) {
      expect(due - now).toBeLessThanOrEqual(CONNECT_DEBOUNCE);
      now = due;
      link.handleTimeout(now);
      expect(drain()).toBe(1);
    }
  }
});
