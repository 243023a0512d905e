/** When a carrier that goes through a relay is worth an attempt at a direct one. The same as `tunnel/src/session/phone/upgrade.rs`. */

import type { Jitter } from './backoff';
import { upgradeAfter } from './recovery';
import type { Instant } from './time';

/** What is planned for the live carrier. */
export class Upgrade {
  private tries = 0;
  private at: Instant | null = null;

  constructor(private readonly jitter: Jitter) {}

  /** Another carrier is live. */
  begin(relayed: boolean, now: Instant): void {
    this.tries = 0;
    this.at = null;
    this.path(relayed, now);
  }

  /** The carrier's path is known, or became another one. */
  path(relayed: boolean, now: Instant): void {
    if (!relayed) {
      this.tries = 0;
      this.at = null;
    } else if (this.at === null) this.plan(now);
  }

  /** An attempt begins: plans the one after it. */
  begun(now: Instant): void {
    this.tries += 1;
    this.plan(now);
  }

  /** When an attempt is due, if somebody looks and the farm can be reached. */
  get due(): Instant | null {
    return this.at;
  }

  private plan(now: Instant): void {
    this.at = now + upgradeAfter(this.tries, this.jitter);
  }
}
