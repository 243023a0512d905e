/**
 * A farm's readings on this phone: followed while somebody looks, kept in the
 * store with how far they go. The stream outlives carriers; after anything
 * else a new one goes on where the former ended, so every reading comes once.
 */

import { type Answer, answer, frame, type Reading, TARGET, Unframer } from '../core/readings';
import { report } from './log';
import { MAX_READINGS, MAX_SERIES, type ReadingsState, type Series, type Store } from './store';
import { StreamReset, type TunnelStream } from './streams';

/** After a stream has ended the next is opened after this, doubled while streams bring nothing ... */
const FIRST_PAUSE_MS = 100;
/** ... up to this. */
const LONGEST_PAUSE_MS = 10_000;

/** A farm that is seen for the first time is asked for this many of its newest readings: a week of ten series. */
const BACKLOG = 20_000;

/** A series is trimmed once it is this much longer than what is kept. */
const SLACK = 500;

/** Why nothing comes. */
export type Silence = 'not_offered' | 'unknown';

/** What the leading tab tells the others. */
export interface Told {
  series: Series[];
  arrived: number;
  caughtUp: boolean;
  silence: Silence | null;
}

export class Readings {
  /** The newest of every series, by name. */
  readonly series = new Map<string, Series>();
  /** How many readings came in this run: charts draw again after a change. */
  arrived = 0;
  /** Everything that the farm had at first is here. */
  caughtUp = false;
  silence: Silence | null = null;
  private after = 0;
  /** The farm said which of its readings is the newest. */
  private asked = false;
  private loaded: Promise<void>;
  private running: { stream: TunnelStream | null; over: boolean } | null = null;

  constructor(
    private readonly farm: string,
    private readonly open: (service: string) => TunnelStream,
    private readonly store: Store,
    private readonly changed: () => void,
  ) {
    this.loaded = this.load();
  }

  private async load(): Promise<void> {
    try {
      this.take(await this.store.readingsState(this.farm));
    } catch (error) {
      report('readings', `not kept: ${error}`);
    }
    this.changed();
  }

  private take(state: ReadingsState): void {
    this.after = state.after;
    this.series.clear();
    for (const one of state.series) this.series.set(one.name, one);
  }

  /** This tab leads now: what the former one kept meanwhile is where this one goes on. */
  lead(): void {
    if (!this.running) this.loaded = this.load();
  }

  /** What a tab that follows is told. */
  told(): Told {
    const { arrived, caughtUp, silence } = this;
    return { series: [...this.series.values()], arrived, caughtUp, silence };
  }

  /** As the leading tab has it. */
  mirror(told: Told): void {
    this.series.clear();
    for (const one of told.series) this.series.set(one.name, one);
    this.arrived = told.arrived;
    this.caughtUp = told.caughtUp;
    this.silence = told.silence;
  }

  /** Whether it follows. */
  get follows(): boolean {
    return this.running !== null;
  }

  /** Whether to follow: the farm is reached, and somebody looks. */
  follow(wanted: boolean): void {
    if (wanted === (this.running !== null)) return;
    if (this.running) {
      this.running.over = true;
      this.running.stream?.abort();
      this.running = null;
    } else {
      const run = { stream: null, over: false };
      this.running = run;
      void this.run(run);
    }
  }

  private async run(run: { stream: TunnelStream | null; over: boolean }): Promise<void> {
    await this.loaded;
    let pause = FIRST_PAUSE_MS;
    while (!run.over) {
      let brought = false;
      try {
        brought = await this.once(run);
      } catch (error) {
        if (run.over) return;
        const unknown = error instanceof StreamReset && error.reason === 'unknown_service';
        if (unknown) {
          this.silence = 'not_offered';
          this.changed();
        } else report('readings', String(error instanceof Error ? error.message : error));
        pause = unknown ? LONGEST_PAUSE_MS : pause;
      }
      run.stream?.abort();
      run.stream = null;
      pause = brought ? FIRST_PAUSE_MS : Math.min(pause * 2, LONGEST_PAUSE_MS);
      await new Promise(resolve => setTimeout(resolve, pause));
    }
  }

  /** One stream to its end: whether it brought anything. */
  private async once(run: { stream: TunnelStream | null; over: boolean }): Promise<boolean> {
    const stream = this.open(TARGET);
    run.stream = stream;
    // A number that no farm can have given yet: the answer says which is the newest.
    const first = this.after === 0 && !this.asked;
    await stream.write(
      frame({ follow: { after: first ? Number.MAX_SAFE_INTEGER : this.after, live: true } }),
    );
    const unframer = new Unframer();
    let brought = false;
    for (;;) {
      const bytes = await stream.read();
      if (bytes === null || run.over) return brought;
      unframer.push(bytes);
      for (let message = unframer.message(answer); message; message = unframer.message(answer)) {
        brought = true;
        await this.answer(message, first);
      }
    }
  }

  private async answer(message: Answer, first: boolean): Promise<void> {
    this.silence = null;
    if (message.readings) await this.add(message.readings);
    else if (message.gap) this.after = Math.max(this.after, message.gap.last);
    else if (message.caught_up) {
      this.after = Math.max(this.after, message.caught_up.newest);
      this.caughtUp = true;
      await this.keep([]);
    } else if (message.behind) {
      if (!first) {
        // An old copy of the farm's state was put back: its numbers begin to mean something else.
        report('readings', 'the farm went back in time: what was kept of it is forgotten');
        await this.store.forgetReadings(this.farm);
        this.series.clear();
      }
      this.after = Math.max(0, message.behind.newest - BACKLOG);
      this.asked = true;
    }
    this.changed();
  }

  private async add(readings: readonly Reading[]): Promise<void> {
    const fresh = readings.filter(({ n }) => n > this.after);
    const kept = [];
    for (const { n, t, c, name, value, unit } of fresh) {
      this.after = n;
      const known = this.series.get(name);
      if (!known && this.series.size >= MAX_SERIES) continue;
      const clock = c === 'other' ? ('guessed' as const) : c;
      const last = { n, t, clock, value };
      kept.push({ name, ...last });
      this.series.set(name, { name, unit: unit ?? '', last, count: (known?.count ?? 0) + 1 });
    }
    this.arrived += kept.length;
    await this.keep(kept);
    for (const one of this.series.values()) {
      if (one.count > MAX_READINGS + SLACK) one.count = await this.store.trimReadings(this.farm, one.name);
    }
  }

  private async keep(readings: Parameters<Store['putReadings']>[1]): Promise<void> {
    const state = { after: this.after, series: [...this.series.values()] };
    // Storage is full: what came is shown, and comes again another time.
    await this.store
      .putReadings(this.farm, readings, state)
      .catch(error => report('readings', `not kept: ${error instanceof Error ? error.message : error}`));
  }
}
