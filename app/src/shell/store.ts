/**
 * What the phone keeps, in IndexedDB: its key (not extractable), the pinned
 * farms, counts of starts, settings, outages, readings. Where IndexedDB is gone the app
 * works from memory and says so.
 */

import type { Excused } from '../core/absence';
import type { Bytes } from '../core/bytes';
import { generatePair } from '../core/keys';
import type { Service } from '../core/service';

const NAME = 'farm-tunnel';
const VERSION = 2;

/** Outages kept per farm: a month of bad days. */
const MAX_OUTAGES = 500;

/** Days of which it is kept how long this phone looked: what the screen shows, and some. */
const MAX_DAYS = 40;

/** Readings kept of one series: a month of one every five minutes. */
export const MAX_READINGS = 9_000;

/** Series kept of a farm. */
export const MAX_SERIES = 100;

/** A paired farm. Its key never changes; a new key is a new pairing. */
export interface FarmRecord {
  /** The id as people see it. */
  id: string;
  key: Bytes;
  name: string;
  broker: string;
  pairedAt: number;
  /** As last heard, for the offline screens. */
  services: Service[];
  /** Who is paired with it, as last heard; ids as people see them. */
  phones?: { id: string; name: string }[];
  lastLive: number | null;
}

/** A time without the farm. */
export interface Outage {
  farm: string;
  from: number;
  to: number | null;
  /** When it was last seen to go on: an app that was closed meanwhile knows no more. */
  seen?: number;
  reason: string;
  /** By the farm's own word, once it has said it. */
  excused?: Excused;
}

/** How long this phone looked on one day, and how much of that the farm was away; in milliseconds. */
export interface Day {
  farm: string;
  /** Its first moment, by this phone's clock. */
  from: number;
  looked: number;
  away: number;
}

/** One reading, as it is kept. */
export interface Kept {
  n: number;
  /** Milliseconds since 1970. */
  t: number;
  clock: 'set' | 'corrected' | 'guessed';
  value: number;
}

/** The newest of a series, and how many of it are kept. */
export interface Series {
  name: string;
  unit: string;
  last: Kept;
  count: number;
}

/** What is known of a farm's readings. */
export interface ReadingsState {
  /** Everything up to this number was handled. */
  after: number;
  series: Series[];
}

/** What the owner chose. */
export interface Settings {
  language: 'ru' | 'en' | null;
  phoneName: string;
}

const DEFAULT_SETTINGS: Settings = { language: null, phoneName: '' };

const STORES = ['device', 'farms', 'outages', 'days', 'series', 'readings'] as const;
type StoreName = (typeof STORES)[number];

/** A mark beside the database, which outlives it where only that is lost: reads it, or sets it. */
function mark(value?: string): string | null {
  try {
    if (value !== undefined) localStorage.setItem('farm-tunnel', value);
    return localStorage.getItem('farm-tunnel');
  } catch {
    return null;
  }
}

function promised<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error('storage failed'));
  });
}

function openDatabase(): Promise<IDBDatabase> {
  const request = indexedDB.open(NAME, VERSION);
  request.onupgradeneeded = () => {
    const database = request.result;
    for (const name of STORES)
      if (!database.objectStoreNames.contains(name)) database.createObjectStore(name);
  };
  return promised(request);
}

/** Numbers as text, in their order. */
const ordered = (number: number) => String(number).padStart(16, '0');

/** Outages and days in order of time within a farm. */
const outageKey = (farm: string, from: number) => `${farm}/${ordered(from)}`;

/** A series' readings in order; a name can have any sign of its own, but none that is left here. */
const seriesKey = (farm: string, name: string) => `${farm}/${encodeURIComponent(name)}/`;

export class Store {
  /** Without a database everything is kept until the page is closed. */
  private readonly memory: Record<StoreName, Map<string, unknown>> = {
    device: new Map(),
    farms: new Map(),
    outages: new Map(),
    days: new Map(),
    series: new Map(),
    readings: new Map(),
  };

  /** A write failed: storage is full, or broken. What is kept in memory goes on. */
  private failing = false;

  /** There was a key once, and it is gone: the browser cleared what it kept. */
  keyLost = false;

  private constructor(private readonly database: IDBDatabase | null) {}

  /** Opens what is there, or memory. */
  static async open(): Promise<Store> {
    try {
      const database = await openDatabase();
      // Keys are worth asking for; the browser may say no.
      void navigator.storage?.persist?.().catch(() => false);
      // Another tab brings a newer version: let it.
      database.onversionchange = () => database.close();
      return new Store(database);
    } catch {
      return new Store(null);
    }
  }

  /** Whether what is kept outlives the page. */
  get isDurable(): boolean {
    return this.database !== null && !this.failing;
  }

  private async get<T>(store: StoreName, key: string): Promise<T | undefined> {
    if (!this.database) return this.memory[store].get(key) as T | undefined;
    return promised<T | undefined>(this.database.transaction(store).objectStore(store).get(key));
  }

  /** All whose key begins with `prefix`, in the keys' order. */
  private async all<T>(store: StoreName, prefix: string): Promise<[string, T][]> {
    if (!this.database) {
      const found = [...this.memory[store]].filter(([key]) => key.startsWith(prefix));
      return found.sort(([a], [b]) => (a < b ? -1 : 1)) as [string, T][];
    }
    const objects = this.database.transaction(store).objectStore(store);
    const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    const [keys, values] = await Promise.all([
      promised(objects.getAllKeys(range)),
      promised(objects.getAll(range)),
    ]);
    return keys.map((key, at) => [String(key), values[at] as T]);
  }

  private async change(
    store: StoreName,
    work: (objects: IDBObjectStore) => void,
    durability: IDBTransactionDurability = 'strict',
  ): Promise<void> {
    if (!this.database) return;
    const transaction = this.database.transaction(store, 'readwrite', { durability });
    const done = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error ?? new Error('storage is full'));
    });
    try {
      work(transaction.objectStore(store));
      await done;
      this.failing = false;
    } catch (error) {
      this.failing = true;
      throw error;
    }
  }

  private async put(store: StoreName, key: string, value: unknown): Promise<void> {
    if (this.database) await this.change(store, objects => objects.put(value, key));
    else this.memory[store].set(key, value);
  }

  private async remove(store: StoreName, key: string): Promise<void> {
    this.memory[store].delete(key);
    await this.change(store, objects => objects.delete(key));
  }

  /** The device's key pair, made at the first start. */
  async keyPair(): Promise<CryptoKeyPair> {
    const known = await this.get<CryptoKeyPair>('device', 'key');
    if (known) return known;
    this.keyLost = this.database !== null && mark() !== null;
    const pair = await generatePair();
    // Where nothing can be kept the key is good until the page is closed.
    await this.put('device', 'key', pair).catch(() => undefined);
    return pair;
  }

  /** Counts a start of this slot; at least `least`. */
  async countStart(slot: number, least = 0): Promise<number> {
    const starts = Math.max(((await this.get<number>('device', `starts-${slot}`)) ?? 0) + 1, least);
    await this.put('device', `starts-${slot}`, starts).catch(() => undefined);
    return starts;
  }

  async settings(): Promise<Settings> {
    return { ...DEFAULT_SETTINGS, ...(await this.get<Settings>('device', 'settings')) };
  }

  async setSettings(settings: Settings): Promise<void> {
    await this.put('device', 'settings', settings);
  }

  /** All farms, as they were paired. */
  async farms(): Promise<FarmRecord[]> {
    const all = (await this.all<FarmRecord>('farms', '')).map(([, farm]) => farm);
    return all.sort((a, b) => a.pairedAt - b.pairedAt);
  }

  async putFarm(farm: FarmRecord): Promise<void> {
    await this.put('farms', farm.id, farm);
    mark('paired');
    this.keyLost = false;
  }

  async removeFarm(id: string): Promise<void> {
    await this.remove('farms', id);
    await this.remove('series', id);
    for (const store of ['outages', 'days', 'readings'] as const) await this.clear(store, `${id}/`);
  }

  /** Removes all whose key begins with `prefix`. */
  private async clear(store: StoreName, prefix: string): Promise<void> {
    for (const key of this.memory[store].keys()) if (key.startsWith(prefix)) this.memory[store].delete(key);
    await this.change(store, objects => objects.delete(IDBKeyRange.bound(prefix, `${prefix}\uffff`)));
  }

  /** The farm's outages, newest first. */
  async outages(farm: string): Promise<Outage[]> {
    return (await this.all<Outage>('outages', `${farm}/`)).map(([, outage]) => outage).reverse();
  }

  /** Keeps an outage, or that it is over; the oldest go. */
  async putOutage(outage: Outage): Promise<void> {
    await this.put('outages', outageKey(outage.farm, outage.from), outage);
    const all = await this.all<Outage>('outages', `${outage.farm}/`);
    for (const [key] of all.slice(0, Math.max(0, all.length - MAX_OUTAGES)))
      await this.remove('outages', key);
  }

  /** How long this phone looked, by day, newest first. */
  async days(farm: string): Promise<Day[]> {
    return (await this.all<Day>('days', `${farm}/`)).map(([, day]) => day).reverse();
  }

  /** Adds to a day what was looked at since the last time; less than nothing takes away what does not count after all. */
  async addToDay(farm: string, from: number, looked: number, away: number): Promise<void> {
    const key = outageKey(farm, from);
    const known = await this.get<Day>('days', key);
    const sum = (before: number | undefined, more: number) => Math.max(0, (before ?? 0) + more);
    const day = { farm, from, looked: sum(known?.looked, looked), away: sum(known?.away, away) };
    await this.put('days', key, day);
    const all = await this.all<Day>('days', `${farm}/`);
    for (const [old] of all.slice(0, Math.max(0, all.length - MAX_DAYS))) await this.remove('days', old);
  }

  /** What is known of a farm's readings. */
  async readingsState(farm: string): Promise<ReadingsState> {
    return (await this.get<ReadingsState>('series', farm)) ?? { after: 0, series: [] };
  }

  /** Keeps readings, then how far they go: what is cut off in between comes again. */
  async putReadings(
    farm: string,
    readings: (Kept & { name: string })[],
    state: ReadingsState,
  ): Promise<void> {
    const entries = readings.map(
      ({ name, ...kept }) => [`${seriesKey(farm, name)}${ordered(kept.n)}`, kept] as const,
    );
    if (this.database) {
      const put = (objects: IDBObjectStore) => {
        for (const [key, kept] of entries) objects.put(kept, key);
      };
      // The farm has them still: a lost write costs nothing.
      if (entries.length > 0) await this.change('readings', put, 'relaxed');
      await this.change('series', objects => objects.put(state, farm), 'relaxed');
    } else {
      for (const [key, kept] of entries) this.memory.readings.set(key, kept);
      this.memory.series.set(farm, state);
    }
  }

  /** The readings of a series, oldest first. */
  async readings(farm: string, name: string): Promise<Kept[]> {
    return (await this.all<Kept>('readings', seriesKey(farm, name))).map(([, kept]) => kept);
  }

  /** Forgets the oldest readings of a series; how many are left. */
  async trimReadings(farm: string, name: string): Promise<number> {
    const all = await this.all<Kept>('readings', seriesKey(farm, name));
    const old = all.slice(0, Math.max(0, all.length - MAX_READINGS));
    const last = old.at(-1);
    if (last) {
      for (const [key] of old) this.memory.readings.delete(key);
      const range = IDBKeyRange.bound(seriesKey(farm, name), last[0]);
      await this.change('readings', objects => objects.delete(range), 'relaxed');
    }
    return all.length - old.length;
  }

  /** A farm's state was put back: what was kept is of no use for it. */
  async forgetReadings(farm: string): Promise<void> {
    await this.remove('series', farm);
    await this.clear('readings', `${farm}/`);
  }
}
