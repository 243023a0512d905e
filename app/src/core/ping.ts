/** What travels on a carrier's `ping` channel. */

import { oneOf, type Read, u32 } from './schema';

/** A question, or the answer of the same number. */
export const ping = oneOf({ ping: u32, pong: u32 });
export type Ping = Read<typeof ping>;
