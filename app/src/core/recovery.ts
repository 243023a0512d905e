/** The recovery strategy manager: what to do about a failure, and when. The same as `tunnel/src/recovery.rs`. */

import type { Jitter } from './backoff';
import type { OfferRefused } from './signal';
import { type Duration, ms, seconds } from './time';

/** From this attempt on, every other one goes through a relay only. */
export const RELAY_FROM_ATTEMPT = 2;

/** From this attempt on, a stale epoch means that another program holds the same slot. */
export const ANOTHER_SLOT_FROM_ATTEMPT = 3;

/** Delays of the first attempts after a failure. */
export const LADDER: readonly Duration[] = [0, ms(100), ms(300), seconds(1), seconds(2), seconds(4)];
/** The delay of all further attempts while somebody is looking. */
export const LONGEST_DELAY = seconds(5);
/** While nobody is looking, delays go on doubling up to here. */
export const LONGEST_DELAY_UNWATCHED = seconds(300);
/** Time between blind attempts at a farm that the broker calls absent. */
export const BLIND_RETRY = seconds(15);
export const BLIND_RETRY_UNWATCHED = seconds(300);
/** The first blind attempt at a restarting farm. */
export const RESTART_RETRY = seconds(2);
/** Time between looks whether the network or the broker's link is back although nobody said so. */
export const RECHECK = seconds(5);
export const RECHECK_UNWATCHED = seconds(60);
/** From a carrier that came up relayed to the first attempt at a direct one; three times longer each time, up to the longest. */
export const UPGRADE_FIRST = seconds(5);
export const UPGRADE_LONGEST = seconds(900);
/** Time between looks whether somebody paired this phone again. */
export const NOT_PAIRED_RETRY = seconds(60);

/** What failed. */
export type Failure =
  | 'network_timeout'
  | 'ip_change'
  | 'peer_restart'
  | 'broker_lost'
  | 'phone_offline'
  | 'farm_offline'
  | 'carrier_failed'
  | `refused_${OfferRefused}`
  | 'superseded'
  | 'no_slot_left';

/** Which ways a carrier may take: a direct one, else a relay; a relay only; a direct one only, in place of a relayed carrier that works. */
export type Ways = 'any' | 'relay_only' | 'direct_only';

/** What is known when something fails. */
export interface Context {
  /** Failures since the session was last live, before this one. */
  attempt: number;
  farmPresent: boolean;
  brokerLink: boolean;
  networkUp: boolean;
  watched: boolean;
}

/** What is done about a failure. */
export type Strategy =
  | 'quick_reconnect'
  | 'full_reestablishment'
  | 'wait_for_presence_then_connect'
  | 'keep_tunnels'
  | 'park_until_network'
  | 'wait_for_presence'
  | 'wait_for_broker'
  | 'retry_carrier'
  | 'retry_later'
  | 'jump_epoch'
  | 'stop_and_tell'
  | 'take_another_slot';

/** A strategy, and when it is carried out. Attempts never end. */
export interface Decision {
  strategy: Strategy;
  relayOnly: boolean;
  retryAfter: Duration;
}

/** What to do about `failure`. */
export function decide(failure: Failure, context: Context, jitter: Jitter): Decision {
  const strategy = strategyFor(failure, context);
  return {
    strategy,
    relayOnly: strategy === 'retry_carrier' && triesRelayOnly(context.attempt),
    retryAfter: shortened(longest(strategy, context), jitter),
  };
}

function longest(strategy: Strategy, context: Context): Duration {
  const { attempt, watched } = context;
  const blind = watched ? BLIND_RETRY : BLIND_RETRY_UNWATCHED;
  switch (strategy) {
    case 'keep_tunnels':
    case 'park_until_network':
    case 'wait_for_broker':
      return watched ? RECHECK : RECHECK_UNWATCHED;
    case 'stop_and_tell':
      return NOT_PAIRED_RETRY;
    case 'wait_for_presence':
      return blind;
    case 'wait_for_presence_then_connect':
      if (!context.farmPresent) return attempt === 0 ? RESTART_RETRY : blind;
      return ladder(attempt, watched);
    case 'retry_later':
      // Past the quick ones: a farm that has no room has none 100 ms later.
      return ladder(attempt + 3, watched);
    default:
      return ladder(attempt, watched);
  }
}

function strategyFor(failure: Failure, context: Context): Strategy {
  const { attempt, farmPresent } = context;
  if (failure === 'broker_lost') return 'keep_tunnels';
  if (failure === 'phone_offline') return 'park_until_network';
  if (failure === 'refused_not_paired') return 'stop_and_tell';
  // Needs neither network nor link: our place at the broker is gone with the session.
  if (failure === 'superseded') return 'take_another_slot';
  if (failure === 'no_slot_left') return 'stop_and_tell';
  // Whatever else failed, without these nothing can be tried.
  if (!context.networkUp) return 'park_until_network';
  if (!context.brokerLink) return 'wait_for_broker';
  switch (failure) {
    // The first try goes out whatever the broker says of the farm.
    case 'network_timeout':
      return farmPresent || attempt === 0 ? 'quick_reconnect' : 'wait_for_presence';
    case 'ip_change':
      return farmPresent || attempt === 0 ? 'full_reestablishment' : 'wait_for_presence';
    case 'carrier_failed':
      return farmPresent ? 'retry_carrier' : 'wait_for_presence';
    case 'farm_offline':
      return 'wait_for_presence';
    case 'peer_restart':
    case 'refused_other_boot':
      return 'wait_for_presence_then_connect';
    case 'refused_stale_epoch':
      return attempt < ANOTHER_SLOT_FROM_ATTEMPT ? 'jump_epoch' : 'take_another_slot';
    case 'refused_limit':
      return 'retry_later';
    case 'refused_bad_description':
    case 'refused_other':
      return 'retry_carrier';
  }
}

function triesRelayOnly(attempt: number): boolean {
  return attempt >= RELAY_FROM_ATTEMPT && attempt % 2 === RELAY_FROM_ATTEMPT % 2;
}

/** The longest delay before the attempt that follows `attempt` failures. */
function ladder(attempt: number, watched: boolean): Duration {
  const step = LADDER[attempt];
  if (step !== undefined) return step;
  if (watched) return LONGEST_DELAY;
  const doublings = Math.min(attempt - LADDER.length, 6);
  return Math.min(LONGEST_DELAY * 2 ** doublings, LONGEST_DELAY_UNWATCHED);
}

/** How long a relayed carrier is used before the next attempt at a direct one, when `tries` came to nothing since it came up. */
export function upgradeAfter(tries: number, jitter: Jitter): Duration {
  return shortened(Math.min(UPGRADE_FIRST * 3 ** Math.min(tries, 5), UPGRADE_LONGEST), jitter);
}

/** Takes up to a fifth away: what failed together does not come back together. */
function shortened(most: Duration, jitter: Jitter): Duration {
  return most - jitter.upTo(Math.floor(most / 5));
}
