/** What the two ends say on a carrier's `control` channel. */

import { epoch } from './epoch';
import { streamState } from './frame';
import { bootId, phoneId, sessionId } from './id';
import { bool, extensible, list, oneOf, type Read, reason, safe, text, u32 } from './schema';
import { services } from './service';

/** First on a new carrier, from both ends. */
export const hello = extensible(
  { session: sessionId, epoch, boot: bootId, streams: list(streamState), watched: bool },
  { burst: u32 },
);
export type Hello = Read<typeof hello>;

const pairedPhone = extensible({ id: phoneId, name: text(0, 64) });

/** When the farm's box had no power or no network: `a` seconds since 1970, `l` seconds long. */
const absence = extensible({ a: safe, l: u32, w: reason('no_power', 'no_network') });
export type Absence = Read<typeof absence>;

/** The farm's name and services, who is paired with it, and when it could not be there. */
export const farm = extensible(
  { name: text(0, 64), services },
  { phones: list(pairedPhone, 256), absences: list(absence, 32) },
);
export type FarmInfo = Read<typeof farm>;

/** Why a side leaves a carrier. */
export const goodbyeReason = reason(
  'superseded',
  'stopping',
  'revoked',
  'session_ended',
  'taken_over',
  'protocol_error',
);
export type GoodbyeReason = Read<typeof goodbyeReason>;

export const control = oneOf({
  hello,
  farm,
  attention: extensible({ watched: bool }),
  goodbye: extensible({ reason: goodbyeReason }),
});
export type Control = Read<typeof control>;
