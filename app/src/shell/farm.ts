/**
 * One farm as the screens show it: its connection, what was measured, and its
 * outages. Every open tab has one; only the leading tab's writes anything down.
 */

import { excused } from '../core/absence';
import * as base32 from '../core/base32';
import type { Absence, FarmInfo } from '../core/control';
import { type Facts, type Line, unknown } from './line';
import { Readings } from './readings';
import type { FarmRecord, Outage, Store } from './store';
import { StreamReset, type TunnelStream } from './streams';
import type { ToldFarm } from './tabs/messages';

/** No alarm for a blip: a loss is shown after this long. */
export const GRACE_MS = 1_000;

/** A silence of this length is shown at once when it is noticed: pings have had their grace. */
export const SILENCE_MS = 2_000;

/** Time between samples of the live chart: the monitor's look. */
export const SAMPLE_SECONDS = 2;

/** Samples of the live chart: two minutes. */
export const SAMPLES = 60;

/** Between two updates more than this was not looked at: the phone slept. */
const LONGEST_LOOK_MS = 5_000;

/** How often what was looked at, and an outage that goes on, is written down. */
const KEEP_EVERY_MS = 30_000;

/** What is shown of a farm. Nothing of what was measured before there is a measure. */
export interface Status extends Omit<Facts, 'phase' | 'latestRtt' | 'answeredAt' | 'jitter' | 'loss'> {
  /** Live, or lost so recently that nobody needs to know. */
  calm: boolean;
  jitter: number | null;
  loss: number | null;
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
  private updatedAt: number | null = null;
  private keptAt = Date.now();
  private looked = 0;
  private away = 0;
  readonly readings: Readings;
  private line: Line | null = null;
  /** This tab owns the connections, and writes down what happens. */
  private leads = false;

  constructor(
    public record: FarmRecord,
    private readonly store: Store,
    changed: () => void,
  ) {
    this.readings = new Readings(record.id, service => this.open(service), store, changed);
  }

  /** This tab leads now: over a connection of its own. */
  lead(line: Line): void {
    this.line = line;
    this.leads = true;
    this.looked = this.away = 0;
    this.readings.lead();
    void this.takeOutagesOver().catch(() => undefined);
  }

  /** Another tab leads: over its connection. */
  follow(line: Line): void {
    if (this.line === line) return;
    this.line = line;
    this.leads = false;
    this.outage = null;
    this.readings.follow(false);
  }

  /** Opens a stream to one of the farm's services. Throws {@link StreamReset}. */
  open(service: string): TunnelStream {
    if (!this.line) throw new StreamReset('session_ended');
    return this.line.open(service);
  }

  /** How the connection stands, for a tab that follows too. */
  facts(): Facts {
    return this.line?.facts() ?? unknown();
  }

  /** Outages that nobody saw the end of: one that goes on is ours now, a former run's is over when it was last seen. */
  private async takeOutagesOver(): Promise<void> {
    for (const outage of await this.store.outages(this.record.id)) {
      if (outage.to !== null || outage.from === this.outage?.from) continue;
      if (this.lostAt !== null && !this.outage) this.outage = outage;
      else await this.store.putOutage({ ...outage, to: outage.seen ?? outage.from });
    }
  }

  /** For the tabs that follow. */
  told(): ToldFarm {
    return { record: this.record, facts: this.facts(), readings: this.readings.told() };
  }

  /** The farm told its name and services. */
  heard(info: FarmInfo): void {
    const { name, services } = info;
    const phones = info.phones?.map(phone => ({ id: base32.encode(phone.id), name: phone.name }));
    this.record = { ...this.record, name: name || this.record.name, services, phones: phones ?? [] };
    void this.store.putFarm(this.record).catch(() => undefined);
    this.absences = info.absences ?? [];
    this.excuse();
  }

  /** Times in which the farm, by its own word, had no power or no network. */
  private absences: readonly Absence[] = [];

  /** Takes out of what counts as an outage what the farm had no power or no network for. */
  private excuse(): void {
    const { absences } = this;
    if (!this.leads || absences.length === 0) return;
    const { id } = this.record;
    this.keeping = this.keeping
      .then(async () => {
        for (const outage of await this.store.outages(id)) {
          if (outage.to === null) continue;
          const found = excused(outage.from, outage.to, absences);
          const more = (found?.milliseconds ?? 0) - (outage.excused?.milliseconds ?? 0);
          if (!found || more <= 0) continue;
          await this.store.putOutage({ ...outage, excused: found });
          await this.store.addToDay(id, new Date(outage.to).setHours(0, 0, 0, 0), -more, -more);
        }
      })
      .catch(() => undefined);
  }

  status(): Status {
    const { phase, ...facts } = this.facts();
    const live = facts.state === 'live';
    const brief = this.lostAt !== null && this.isBrief(this.lostAt, Date.now());
    const measured = facts.rtt !== null;
    return {
      ...facts,
      calm: live || brief,
      since: live ? (this.liveSince ?? Date.now()) : (this.lostAt ?? facts.since),
      jitter: measured ? facts.jitter : null,
      loss: measured ? facts.loss : null,
      doubted: phase === 'doubted',
    };
  }

  /** Notes what changed since; called after every change and every two seconds. */
  update(watched: boolean): void {
    const { state } = this.facts();
    const at = Date.now();
    const live = state === 'live';
    // Nobody looks: that is no outage.
    const looks = state !== 'stopped' && state !== 'resting';
    this.readings.follow(this.leads && watched && looks && (live || this.readings.follows));
    if (live) {
      this.liveSince ??= at;
      this.lostAt = null;
      this.everLive = true;
      this.record.lastLive = at;
      this.endOutage(at);
    } else {
      if (this.everLive && looks) this.lostAt ??= at;
      this.liveSince = null;
      if (!looks) {
        this.endOutage(at);
        this.lostAt = null;
      } else if (this.leads && !this.outage && this.lostAt !== null && !this.isBrief(this.lostAt, at))
        this.begin(this.lostAt);
    }
    this.count(looks, at);
    // Before the first connection there is nothing to show.
    if (this.everLive && looks && at - this.sampledAt >= SAMPLE_SECONDS * 900) this.sample(at);
  }

  private endOutage(at: number): void {
    const { outage } = this;
    this.outage = null;
    if (!outage) return;
    // What was counted of it first, then that it is over.
    void this.keep();
    this.keeping = this.keeping
      .then(() => this.store.putOutage({ ...outage, to: at }))
      .catch(() => undefined);
    this.excuse();
  }

  /** How long was looked, and how much of that the farm was away. */
  private count(looks: boolean, at: number): void {
    const span = this.updatedAt === null ? 0 : Math.min(Math.max(0, at - this.updatedAt), LONGEST_LOOK_MS);
    this.updatedAt = at;
    if (!this.leads) return;
    if (looks && this.everLive) {
      this.looked += span;
      if (this.outage) this.away += span;
    }
    if (at - this.keptAt >= KEEP_EVERY_MS || at < this.keptAt) void this.keep();
  }

  /** One after the other: each adds to what the former wrote. */
  private keeping: Promise<void> = Promise.resolve();

  /** Writes down what was looked at; also when the page is hidden, since it may never come back. */
  keep(): Promise<void> {
    if (!this.leads) return Promise.resolve();
    const at = Date.now();
    const { looked, away, outage } = this;
    this.keptAt = at;
    this.looked = this.away = 0;
    const { id } = this.record;
    this.keeping = this.keeping
      .then(async () => {
        if (outage && this.outage === outage) await this.store.putOutage({ ...outage, seen: at });
        if (looked === 0) return;
        await this.store.addToDay(id, new Date(at).setHours(0, 0, 0, 0), looked, away);
        await this.store.putFarm(this.record);
      })
      .catch(() => undefined);
    return this.keeping;
  }

  /** A loss that nobody needs to know of yet: just noticed, and the last answer not long ago. */
  private isBrief(lostAt: number, at: number): boolean {
    return at - lostAt < GRACE_MS && at - (this.facts().answeredAt ?? lostAt) < SILENCE_MS;
  }

  private begin(from: number): void {
    const { failure } = this.facts();
    this.away += Math.max(0, Date.now() - from);
    this.outage = { farm: this.record.id, from, to: null, seen: from, reason: failure ?? 'network_timeout' };
    void this.store.putOutage(this.outage).catch(() => undefined);
    void this.store.putFarm(this.record).catch(() => undefined);
  }

  private sample(at: number): void {
    const { phase, latestRtt, loss } = this.facts();
    // A carrier that has only just opened has had no time to answer.
    if (phase === 'starting') return;
    this.sampledAt = at;
    this.samples.push({ at, rtt: phase === 'alive' ? latestRtt : null, loss });
    if (this.samples.length > SAMPLES) this.samples.shift();
  }
}
