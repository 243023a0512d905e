/** How a farm stands, in one chip and a few lines. */

import type { FarmView, Status } from '../shell/farm';
import { HEALTH_PATH } from '../shell/portal';
import type { Strings } from '../strings/en';
import { spanText } from './context';

/** What colour and symbol say: fine, in doubt, gone, needs a person. */
export type Mood = 'fine' | 'busy' | 'gone' | 'stuck';

/** The chip's words. */
export function chip(t: Strings, status: Status): { mood: Mood; text: string } {
  if (status.state === 'not_paired') return { mood: 'stuck', text: t.notPaired };
  if (status.state === 'live') {
    if (status.doubted) return { mood: 'busy', text: t.checking };
    const parts = [t.live];
    if (status.path) parts.push(status.path === 'direct' ? t.direct : t.relayed);
    if (status.rtt !== null) parts.push(t.milliseconds(Math.max(1, Math.round(status.rtt))));
    return { mood: 'fine', text: parts.join(' · ') };
  }
  if (status.calm) return { mood: 'busy', text: t.checking };
  if (status.login) return { mood: 'stuck', text: t.needsLogin };
  if (status.state === 'resting') return { mood: 'busy', text: t.resting };
  if (waits(status)) return { mood: 'gone', text: t.waiting };
  if (status.failure === null && status.attempt === 0) return { mood: 'busy', text: t.connecting };
  return { mood: 'gone', text: t.reconnecting };
}

/** Nothing can be tried before something comes back: the phone's network, or the meeting server. */
function waits(status: Status): boolean {
  if (status.strategy === 'park_until_network' || status.strategy === 'wait_for_broker') return true;
  return status.strategy === 'keep_tunnels' || (status.broker !== 'online' && status.failure !== null);
}

/** Why, in a sentence; `null` while all is well. */
export function reason(t: Strings, status: Status): string | null {
  if (status.state === 'not_paired') return t.notPairedText;
  if (status.state === 'live') return status.broker === 'online' ? null : t.brokerAway;
  if (status.calm) return null;
  if (status.login) return t.needsLoginText;
  if (status.failure !== null && status.failure !== 'network_timeout') return t.failures[status.failure];
  if (status.broker !== 'online' && status.failure !== null) return t.failures.broker_lost;
  if (status.farmPresent === false) return t.failures.farm_offline;
  return status.failure === null ? null : t.failures[status.failure];
}

/** Since when, and when next. */
export function timing(t: Strings, farm: FarmView, status: Status): string {
  const at = Date.now();
  if (status.state === 'live') return t.since(spanText(t, at - status.since));
  const parts: string[] = [];
  if (!status.calm) {
    const { lastLive } = farm.record;
    parts.push(lastLive === null ? t.never : t.lastSeen(spanText(t, at - lastLive)));
  }
  if (status.state === 'connecting') parts.push(t.attempting(status.attempt + 1));
  else if (status.nextAttempt !== null && status.nextAttempt > at) {
    parts.push(t.nextAttempt(spanText(t, status.nextAttempt - at)));
  }
  return parts.join(' · ');
}

/** What a person can do about the phone's network: log in where that is wanted, else a hint. */
export function NetworkLogin({ t, status }: { t: Strings; status: Status }) {
  if (status.state === 'live' || status.calm) return null;
  if (status.login) {
    return (
      <a class="button primary" href={HEALTH_PATH} target="_blank" rel="noopener noreferrer">
        {t.logIn}
      </a>
    );
  }
  const unreached = status.failure === 'phone_offline' || status.failure === 'broker_lost';
  return unreached ? <p class="quiet">{t.networkLogin}</p> : null;
}

const SYMBOLS: Record<Mood, string> = { fine: '●', busy: '◐', gone: '○', stuck: '✕' };

/** The chip. */
export function Chip({ t, status, live }: { t: Strings; status: Status; live?: boolean }) {
  const { mood, text } = chip(t, status);
  return (
    <span class={`chip ${mood}`} role={live ? 'status' : undefined} data-mood={mood}>
      <span class="symbol" aria-hidden="true">
        {SYMBOLS[mood]}
      </span>
      {text}
    </span>
  );
}
