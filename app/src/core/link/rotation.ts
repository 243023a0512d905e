/** Which of several brokers is tried next. The same as `tunnel/src/link/rotation.rs`. */

import type { Reason } from '../link';

/** It is our network that failed, not the broker. */
const OUR_OWN: readonly Reason['kind'][] = ['network_changed', 'started', 'stopped'];

/** A list of brokers and where in it the link is. */
export class Rotation {
  /** The one to be tried, or that is in use, from 0. */
  current = 0;
  /** Brokers given up in a row since one let us in. */
  private givenUp = 0;

  /** Over so many (at least 1), the first one first. */
  constructor(private readonly brokers: number) {}

  /** A broker let us in. */
  succeeded(): void {
    this.givenUp = 0;
  }

  /** A connection or an attempt ended. Whether the next broker is to be tried at once: until each has had its turn, then all have to wait. */
  movesOn(reason: Reason): boolean {
    if (this.brokers === 1 || OUR_OWN.includes(reason.kind)) return false;
    this.current = (this.current + 1) % this.brokers;
    this.givenUp += 1;
    if (this.givenUp >= this.brokers) {
      this.givenUp = 0;
      return false;
    }
    // What only a person can change is the same at all of them; and two programs with one key must
    // not chase each other around.
    return reason.kind !== 'refused';
  }
}
