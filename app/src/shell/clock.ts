/** The page's clock, and timers for the cores. */

import type { Instant } from '../core/time';
import { toMs } from '../core/time';

/** Now, in the cores' nanoseconds; it never goes back. */
export function now(): Instant {
  return Math.round(performance.now() * 1_000_000);
}

/** Timers longer than this overflow in browsers; a core that is asked early only says so. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

const set = new Set<Alarm>();

/** Rings what is due now: a hidden page's timers are held back for up to a second, messages are not. */
export function ringDue(): void {
  for (const alarm of [...set]) alarm.ringIfDue();
}

/** One timer that is set again and again. */
export class Alarm {
  private timer: ReturnType<typeof setTimeout> | null = null;
  private at: Instant | null = null;

  constructor(private readonly ring: () => void) {}

  /** Rings at `at`, or not at all; replaces what was set before. */
  set(at: Instant | null): void {
    if (this.timer !== null && at === this.at) return;
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    this.at = at;
    if (at === null) return void set.delete(this);
    set.add(this);
    const wait = Math.min(Math.max(0, Math.ceil(toMs(at - now()))), LONGEST_TIMER_MS);
    this.timer = setTimeout(() => this.rings(), wait);
  }

  /** Rings where a timer of the browser's should have. */
  ringIfDue(): void {
    if (this.timer === null || this.at === null || this.at > now()) return;
    clearTimeout(this.timer);
    this.rings();
  }

  private rings(): void {
    this.timer = null;
    set.delete(this);
    this.ring();
  }
}

const turns = new MessageChannel();
const waiting: (() => void)[] = [];
turns.port1.onmessage = () => waiting.shift()?.();

/** Lets everything go first that waits already. Unlike a timer it is not held back in a hidden page. */
export function turn(): Promise<void> {
  return new Promise(resolve => {
    waiting.push(resolve);
    turns.port2.postMessage(null);
  });
}
