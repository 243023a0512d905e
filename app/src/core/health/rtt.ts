/** How long an answer takes: smoothed round trip (RFC 6298) and jitter (RFC 3550). The same as `tunnel/src/health/rtt.rs`. */

import type { Duration } from '../time';

interface Estimate {
  smoothed: Duration;
  variation: Duration;
  latest: Duration;
}

export class Rtt {
  private estimate: Estimate | null = null;
  private jitterNow: Duration = 0;

  /** Takes in one measured round trip. */
  sample(measured: Duration): void {
    const old = this.estimate;
    if (!old) {
      this.estimate = { smoothed: measured, variation: Math.floor(measured / 2), latest: measured };
      return;
    }
    // RFC 6298 (2.3): the variation first, with the old smoothed value.
    this.estimate = {
      variation: Math.floor((old.variation * 3) / 4) + Math.floor(Math.abs(old.smoothed - measured) / 4),
      smoothed: Math.floor((old.smoothed * 7) / 8) + Math.floor(measured / 8),
      latest: measured,
    };
    this.jitterNow =
      Math.floor((this.jitterNow * 15) / 16) + Math.floor(Math.abs(old.latest - measured) / 16);
  }

  /** The smoothed round-trip time, once there was an answer. */
  get smoothed(): Duration | null {
    return this.estimate?.smoothed ?? null;
  }

  /** The last round-trip time measured. */
  get latest(): Duration | null {
    return this.estimate?.latest ?? null;
  }

  /** The interarrival jitter; zero before the second answer. */
  get jitter(): Duration {
    return this.jitterNow;
  }

  /** By when an answer should have come: smoothed + 4 × variation. */
  get answerWithin(): Duration | null {
    return this.estimate ? this.estimate.smoothed + this.estimate.variation * 4 : null;
  }
}
