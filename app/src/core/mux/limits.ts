/** Every bound of the multiplexer. Derived in `tunnel/src/mux/limits.rs`, which these repeat. */

import { MAX_PAYLOAD } from '../frame';
import { type Duration, ms, seconds } from '../time';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Most live streams of one session. */
export const MAX_STREAMS = 256;
/** Credit that a stream starts with, in bytes. */
export const INITIAL_WINDOW = 256 * KIB;
/** Credit that no stream is ever denied; part of the wire. */
export const MIN_WINDOW = 32 * KIB;
/** Most credit of one stream. */
export const MAX_WINDOW = 2 * MIB;
/** Most bytes all streams may be granted and have unread. */
export const SESSION_WINDOW = 8 * MIB;
/** Most bytes one stream's writer may be ahead of the carrier. */
export const SEND_BUFFER = 256 * KIB;
/** Bytes that every stream may buffer for sending even when the session's share is used up. */
export const MIN_SEND_BUFFER = 16 * KIB;
/** Most bytes all streams may hold for sending and for replay. */
export const SESSION_SEND_BUFFER = 4 * MIB;
/** Bytes that the streams with something to send share evenly. */
export const SHARED_SEND_BUFFER = 3 * MIB;
/** Free bytes at which a writer that was refused is told to go on. */
export const WRITABLE_ROOM = MIN_SEND_BUFFER;
/** Most bytes sent and not yet acknowledged on one carrier. */
export const IN_FLIGHT_LIMIT = 960 * KIB;
/** What a frame costs beside its payload, in bytes. */
export const FRAME_CHARGE = 64;
/** Default payload of a data frame. */
export const DEFAULT_PAYLOAD = 16 * KIB;
/** Least payload that may be configured. */
export const MIN_PAYLOAD = 256;
/** Longest time that received bytes wait for their ack. */
export const ACK_DELAY = ms(20);
/** Least bytes received that are worth an ack of their own before {@link ACK_DELAY}. */
export const ACK_STEP = 2 * DEFAULT_PAYLOAD;
/** Bytes received over all streams at which every delayed ack is sent. */
export const ACK_SESSION_STEP = IN_FLIGHT_LIMIT / 4;
/** Least new credit that is worth an ack of its own. */
export const GRANT_STEP = MIN_WINDOW / 2;
/** The round trip assumed until one was measured, and the bounds of those used. */
export const ASSUMED_ROUND_TRIP = ms(100);
export const MIN_ROUND_TRIP = ms(1);
export const MAX_ROUND_TRIP = seconds(10);
/** A window halves when its reader took longer than this many round trips for half of it. */
export const SHRINK_ROUND_TRIPS = 8;
/** A window never halves faster than this. */
export const SHRINK_AT_LEAST: Duration = seconds(1);
/** How long after a resume the other end may take to say what became of a stream it did not list. */
export const RESUME_ANSWER_DEADLINE = seconds(60);
/** How long after its open was sent a stream may stay unanswered. */
export const OPEN_ANSWER_DEADLINE = seconds(60);
/** Closed streams whose outcome is remembered. */
export const TOMBSTONES = MAX_STREAMS;
/** Most answers about streams waiting to be sent. */
export const MAX_ANSWERS = 4 * MAX_STREAMS;
/** What a multiplexer never holds more of, in bytes. */
export const MAX_BUFFERED =
  SESSION_WINDOW + SESSION_SEND_BUFFER + MAX_STREAMS * (MIN_WINDOW + MIN_SEND_BUFFER);

/** How a multiplexer uses its carrier. */
export interface Config {
  maxPayload: number;
  inFlightLimit: number;
}

/** A configuration within its bounds. */
export function withinBounds(config: Config): Config {
  const maxPayload = Math.min(Math.max(config.maxPayload, MIN_PAYLOAD), MAX_PAYLOAD);
  return { maxPayload, inFlightLimit: Math.max(config.inFlightLimit, 2 * (maxPayload + FRAME_CHARGE)) };
}
