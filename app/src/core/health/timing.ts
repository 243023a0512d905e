/** When to ping, when to doubt, when to give up. Derived in `tunnel/src/health/timing.rs`, which these repeat. */

import { ms, seconds } from '../time';

/** Time between pings while somebody is looking and all is well. */
export const WATCHED_INTERVAL = seconds(1);
/** The same while data waits for an acknowledgement, or a ping for its answer. */
export const BUSY_INTERVAL = ms(500);
/** Time between pings while nobody is looking. */
export const UNWATCHED_INTERVAL = seconds(20);
/** Time between pings while in doubt and somebody is looking. */
export const QUICK_INTERVAL = ms(40);
/** How long quick pings go on after the decisive one was sent. */
export const QUICK_AFTER_DECISIVE = ms(500);
/** Time between pings in doubt while nobody is looking, and once the quick ones are over. */
export const SLOW_QUICK_INTERVAL = ms(250);
/** Pings in a row without answer that make a carrier dead. */
export const UNANSWERED_TO_DIE = 15;
/** No carrier dies of less silence than this. */
export const SHORTEST_SILENCE = ms(1_200);
/** While something is still heard the verdict waits until that has been quiet for this long. */
export const QUIET = ms(500);
/** But not longer than until this much silence, when somebody is looking. */
export const WATCHED_LIMIT = seconds(3);
/** The same while nobody is looking. */
export const UNWATCHED_LIMIT = seconds(30);
/** A carrier whose first ping is never answered is dead after this. */
export const START_GRACE = seconds(3);
/** An answer later than the usual raises doubt, within these bounds. */
export const SHORTEST_TRUST = ms(100);
export const LONGEST_TRUST = seconds(1);
/** An unanswered ping counts against the carrier after the same time within wider bounds. */
export const SHORTEST_OVERDUE = ms(250);
export const LONGEST_OVERDUE = seconds(5);
/** Data due asks for no further ping this soon after the last. */
export const DATA_DUE_DEBOUNCE = ms(250);
/** Network changes this close together are one. */
export const CHANGE_DEBOUNCE = seconds(1);
/** Heard this shortly before a death, the other side is there and our direction is lost. */
export const ONE_WAY_HEARD = seconds(1);
/** A deadline served later than this means that the process did not run. */
export const FROZEN = ms(250);
