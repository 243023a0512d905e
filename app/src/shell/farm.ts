/** One farm as the screens show it: its tunnel, what was measured, and its outages. */

import type { FarmInfo } from '../core/control';
import type { Grade } from '../core/health/quality';
import type { State as LinkState } from '../core/link';
import type { Failure, Strategy } from '../core/recovery';
import type { State } from '../core/session';
import { toMs } from '../core/time';
import { now } from './clock';
import type { Hub } from './hub';
import type { Path } from './peer';
import type { FarmRecord, Outage, Store } from './store';
import type { Tunnel } from './tunnel';

/** No alarm for a blip: a loss is shown after this long. */
export const GRACE_MS = 1_000;

/** A silence of this length is shown at once when it is noticed: pings have had their grace. */
export const SILENCE_MS = 2_000;

/** Time between samples of the live chart: the monitor's look. */
export const SAMPLE_SECONDS = 2;

/** Samples of the live chart: two minutes. */
export const SAMPLES = 60;

/** What is shown of a farm, in milliseconds and the wall clock's time. */
export interface Status {
  state: State;
  /** Live, or lost so recently that nobody needs to know. */
  calm: boolean;
  since: number;
  failure: Failure | null;
  strategy: Strategy | null;
  attempt: number;
  nextAttempt: number | null;
  farmPresent: boolean | null;
  broker: LinkState['kind'];
  path: Path | null;
  rtt: number | null;
  jitter: number | null;
  loss: number | null;
  grade: Grade | null;
  /** Pings are missing right now. */
  doubted: boolean;
}

/** One bar of the chart: round trip in milliseconds, `null` without an answer. */
export interface Sample {
  at: number;
  rtt: number | null;
  loss: number;
}

export class FarmView {
  readonly samples: Sample[] = [];
  private outage: Outage | null = null;
  private liveSince: number | null = null;
  private lostAt: number | null = null;
  private everLive = false;
  private sampledAt = 0;

  constructor(
    public record: FarmRecord,
    readonly hub: Hub,
    readonly tunnel: Tunnel,
    private readonly store: Store,
  ) {}

  /** The farm told its name and services. */
  told(info: FarmInfo): void {
    this.record = { ...this.record, name: info.name || this.record.name, services: info.services };
    void this.store.putFarm(this.record).catch(() => undefined);
  }

  status(): Status {
    const snapshot = this.tunnel.snapshot();
    const condition = this.tunnel.condition();
    const wall = Date.now() - toMs(now());
    const health = condition?.health;
    const live = snapshot.state === 'live';
    const brief = this.lostAt !== null && this.isBrief(this.lostAt, Date.now());
    return {
      state: snapshot.state,
      calm: live || brief,
      since: live ? (this.liveSince ?? Date.now()) : (this.lostAt ?? wall + toMs(snapshot.since)),
      failure: snapshot.failure,
      strategy: snapshot.strategy,
      attempt: snapshot.attempt,
      nextAttempt: snapshot.nextAttempt === null ? null : wall + toMs(snapshot.nextAttempt),
      farmPresent: snapshot.farmPresent,
      broker: this.hub.snapshot().state.kind,
      path: condition?.path ?? null,
      rtt: health?.rtt == null ? null : toMs(health.rtt),
      jitter: health?.rtt == null ? null : toMs(health.jitter),
      loss: health?.rtt == null ? null : health.loss,
      grade: health?.grade ?? null,
      doubted: health?.phase === 'doubted',
    };
  }

  /** Notes what changed since; called after every change and every two seconds. */
  update(): void {
    const live = this.tunnel.snapshot().state === 'live';
    const at = Date.now();
    if (live) {
      this.liveSince ??= at;
      this.lostAt = null;
      this.everLive = true;
      this.record.lastLive = at;
      if (this.outage) void this.store.putOutage({ ...this.outage, to: at }).catch(() => undefined);
      this.outage = null;
    } else {
      if (this.everLive) this.lostAt ??= at;
      this.liveSince = null;
      if (!this.outage && this.lostAt !== null && !this.isBrief(this.lostAt, at)) this.begin(this.lostAt);
    }
    // Before the first connection there is nothing to show.
    if (this.everLive && at - this.sampledAt >= SAMPLE_SECONDS * 900) this.sample(at);
  }

  /** A loss that nobody needs to know of yet: just noticed, and the last answer not long ago. */
  private isBrief(lostAt: number, at: number): boolean {
    return at - lostAt < GRACE_MS && at - (this.tunnel.answeredAt ?? lostAt) < SILENCE_MS;
  }

  private begin(from: number): void {
    const { failure } = this.tunnel.snapshot();
    this.outage = { farm: this.record.id, from, to: null, reason: failure ?? 'network_timeout' };
    void this.store.putOutage(this.outage).catch(() => undefined);
    void this.store.putFarm(this.record).catch(() => undefined);
  }

  private sample(at: number): void {
    const health = this.tunnel.condition()?.health;
    // A carrier that has only just opened has had no time to answer.
    if (health?.phase === 'starting') return;
    this.sampledAt = at;
    const rtt = health?.phase === 'alive' && health.latestRtt !== null ? toMs(health.latestRtt) : null;
    this.samples.push({ at, rtt, loss: health?.loss ?? 1 });
    if (this.samples.length > SAMPLES) this.samples.shift();
  }
}
