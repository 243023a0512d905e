/** What a farm's screens need of its connection, whichever tab owns it. */

import type { Phase } from '../core/health';
import type { Grade } from '../core/health/quality';
import type { State as LinkState } from '../core/link';
import type { Failure, Strategy } from '../core/recovery';
import type { State } from '../core/session';
import { toMs } from '../core/time';
import { now } from './clock';
import type { Hub } from './hub';
import type { Path } from './peer';
import type { TunnelStream } from './streams';
import type { Tunnel } from './tunnel';

/** How a connection stands; spans in milliseconds, moments by the wall clock. */
export interface Facts {
  state: State;
  since: number;
  failure: Failure | null;
  strategy: Strategy | null;
  attempt: number;
  nextAttempt: number | null;
  farmPresent: boolean | null;
  broker: LinkState['kind'];
  /** The network answers in the broker's place: it wants a login first. */
  login: boolean;
  path: Path | null;
  /** `null` before the first carrier. */
  phase: Phase | null;
  rtt: number | null;
  latestRtt: number | null;
  jitter: number;
  loss: number;
  grade: Grade | null;
  /** When a ping was last answered. */
  answeredAt: number | null;
}

export interface Line {
  facts(): Facts;
  /** Opens a stream to one of the farm's services. */
  open(service: string): TunnelStream;
}

/** Before anybody has tried. */
export function unknown(): Facts {
  return {
    state: 'waiting',
    since: Date.now(),
    failure: null,
    strategy: null,
    attempt: 0,
    nextAttempt: null,
    farmPresent: null,
    broker: 'connecting',
    login: false,
    path: null,
    phase: null,
    rtt: null,
    latestRtt: null,
    jitter: 0,
    loss: 0,
    grade: null,
    answeredAt: null,
  };
}

/** A connection of this tab's own. */
export class OwnLine implements Line {
  constructor(
    readonly hub: Hub,
    readonly tunnel: Tunnel,
  ) {}

  open(service: string): TunnelStream {
    return this.tunnel.streams.open(service);
  }

  facts(): Facts {
    const { state, since, failure, strategy, attempt, nextAttempt, farmPresent } = this.tunnel.snapshot();
    const condition = this.tunnel.condition();
    const health = condition?.health;
    const wall = Date.now() - toMs(now());
    return {
      state,
      since: tenths(wall + toMs(since)),
      failure,
      strategy,
      attempt,
      nextAttempt: nextAttempt === null ? null : tenths(wall + toMs(nextAttempt)),
      farmPresent,
      broker: this.hub.snapshot().state.kind,
      login: this.hub.portal.wanted,
      path: condition?.path ?? null,
      phase: health?.phase ?? null,
      rtt: health?.rtt == null ? null : toMs(health.rtt),
      latestRtt: health?.latestRtt == null ? null : toMs(health.latestRtt),
      jitter: health ? toMs(health.jitter) : 0,
      loss: health?.loss ?? 1,
      grade: health?.grade ?? null,
      answeredAt: this.tunnel.answeredAt,
    };
  }
}

/** To tenths of a second: two clocks are never read at once, and what did not change must look so. */
function tenths(milliseconds: number): number {
  return Math.round(milliseconds / 100) * 100;
}
