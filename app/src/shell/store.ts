/**
 * What the phone keeps, in IndexedDB: its key (not extractable), the pinned
 * farms, counts of starts, settings, outages. Where IndexedDB is gone the app
 * works from memory and says so.
 */

import type { Bytes } from '../core/bytes';
import { generatePair } from '../core/keys';
import type { Service } from '../core/service';

const NAME = 'farm-tunnel';
const VERSION = 1;

/** Outages kept per farm: a month of bad days. */
const MAX_OUTAGES = 500;

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
  lastLive: number | null;
}

/** A time without the farm. */
export interface Outage {
  farm: string;
  from: number;
  to: number | null;
  reason: string;
}

/** What the owner chose. */
export interface Settings {
  language: 'ru' | 'en' | null;
  phoneName: string;
}

const DEFAULT_SETTINGS: Settings = { language: null, phoneName: '' };

type StoreName = 'device' | 'farms' | 'outages';

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
    database.createObjectStore('device');
    database.createObjectStore('farms');
    database.createObjectStore('outages');
  };
  return promised(request);
}

/** Outages in order of time within a farm. */
const outageKey = (farm: string, from: number) => `${farm}/${String(from).padStart(16, '0')}`;

export class Store {
  /** Without a database everything is kept until the page is closed. */
  private readonly memory: Record<StoreName, Map<string, unknown>> = {
    device: new Map(),
    farms: new Map(),
    outages: new Map(),
  };

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
    return this.database !== null;
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

  private async change(store: StoreName, work: (objects: IDBObjectStore) => void): Promise<void> {
    if (!this.database) return;
    const transaction = this.database.transaction(store, 'readwrite', { durability: 'strict' });
    const done = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error ?? new Error('storage is full'));
    });
    work(transaction.objectStore(store));
    await done;
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
    const pair = await generatePair();
    await this.put('device', 'key', pair);
    return pair;
  }

  /** Counts a start of this slot; at least `least`. */
  async countStart(slot: number, least = 0): Promise<number> {
    const starts = Math.max(((await this.get<number>('device', `starts-${slot}`)) ?? 0) + 1, least);
    await this.put('device', `starts-${slot}`, starts);
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
  }

  async removeFarm(id: string): Promise<void> {
    await this.remove('farms', id);
    for (const [key] of await this.all<Outage>('outages', `${id}/`)) await this.remove('outages', key);
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
}
