/**
 * What the tabs of one browser say to each other, over BroadcastChannels of the
 * app's origin: one for all, and one for each tab that follows and whoever leads.
 */

import type { ResetReason } from '../../core/frame';
import type { Facts } from '../line';
import type { Trouble } from '../pair';
import type * as readings from '../readings';
import type { FarmRecord, Settings } from '../store';

/** Tabs of another version of the app neither hear nor disturb these. */
export const COMMON = 'farm-tunnel-1';

/** The lock of the tab that leads. */
export const LEAD_LOCK = `${COMMON}-lead`;

/** A tab's channel, and the lock that it holds as long as it lives. */
export const ofTab = (tab: string) => `${COMMON}-tab-${tab}`;

/** Bytes of a stream that may be on their way to a tab without having been asked for. */
export const WINDOW = 1024 * 1024;

/** How much a tab is looked at. */
export interface Attention {
  watched: boolean;
  /** Hidden for long. */
  suspended: boolean;
}

/** To all. */
export type ToAll =
  | { kind: 'leads' }
  | { kind: 'join'; tab: string; attention: Attention }
  | { kind: 'settings'; settings: Settings };

/** A farm, as the leading tab has it. */
export interface ToldFarm {
  record: FarmRecord;
  facts: Facts;
  readings: readings.Told;
}

/** From a tab that follows, on its channel. Streams and calls have numbers of the tab's own. */
export type FromFollower =
  | { kind: 'ask' }
  | { kind: 'attention'; attention: Attention }
  | { kind: 'probe'; why: string }
  | { kind: 'open'; stream: number; farm: string; service: string }
  | { kind: 'credit'; stream: number; bytes: number }
  | { kind: 'write'; stream: number; bytes: Uint8Array }
  | { kind: 'finish'; stream: number }
  | { kind: 'abort'; stream: number }
  | { kind: 'call'; call: number; what: Call };

/** What a tab that follows asks for, and waits for. */
export type Call =
  | { kind: 'accept'; text: string; phoneName: string }
  | { kind: 'forget'; farm: string }
  | { kind: 'keep'; farm: string };

/** From the leading tab, on the follower's channel. */
export type FromLead =
  | { kind: 'here'; visible: boolean }
  | { kind: 'farms'; farms: ToldFarm[] }
  | { kind: 'data'; stream: number; bytes: Uint8Array }
  | { kind: 'wrote'; stream: number }
  | { kind: 'end'; stream: number }
  | { kind: 'reset'; stream: number; reason: ResetReason }
  | { kind: 'done'; call: number; answer: Answer };

/** A call's answer: the farm's id where there is one, or why not. */
export type Answer = { farm: string | null } | { trouble: Trouble };
