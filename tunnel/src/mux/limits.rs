//! Every bound of the multiplexer, with where it comes from.

use std::time::Duration;

use farm_protocol::frame::MAX_PAYLOAD;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Most live streams of one session. A browser opens six connections per
/// host; this is room for forty such pages at once.
pub const MAX_STREAMS: usize = 256;

/// Credit that a stream starts with, in bytes: 20 Mbit/s at 100 ms.
pub const INITIAL_WINDOW: u64 = 256 * KIB as u64;

/// Credit that no stream is ever denied, in bytes, however full the session's
/// window is. It is also what the phone may send before the first ack of a
/// stream: both ends count on the same figure, so **it is part of the wire**.
pub const MIN_WINDOW: u64 = 32 * KIB as u64;

/// Most credit of one stream, in bytes: twice [`IN_FLIGHT_LIMIT`], since more
/// than that can't be on the way and as much again may wait for its reader.
pub const MAX_WINDOW: u64 = 2 * MIB as u64;

/// Most bytes all streams of a session may be granted and have unread. Only
/// [`MIN_WINDOW`] of each stream may go over it.
pub const SESSION_WINDOW: u64 = 8 * MIB as u64;

/// Most bytes one stream's writer may be ahead of the carrier: about one
/// window, so that a granted window can be filled at once.
pub const SEND_BUFFER: usize = 256 * KIB;

/// Bytes that every stream may buffer for sending even when
/// [`SESSION_SEND_BUFFER`] is used up, so that none waits for another.
pub const MIN_SEND_BUFFER: usize = 16 * KIB;

/// Most bytes all streams of a session may hold for sending and for replay:
/// [`SHARED_SEND_BUFFER`] and what can be in flight. Only [`MIN_SEND_BUFFER`]
/// of each stream may go over it.
pub const SESSION_SEND_BUFFER: usize = 4 * MIB;

/// Bytes that the streams with something to send share evenly, each up to
/// [`SEND_BUFFER`]: room for twelve at full speed.
pub const SHARED_SEND_BUFFER: usize = 3 * MIB;

/// Free bytes at which a writer that was refused is told to go on: waking it
/// for less would cost more than it moves.
pub const WRITABLE_ROOM: usize = MIN_SEND_BUFFER;

/// Most bytes sent and not yet acknowledged on one carrier, each frame
/// counted with [`FRAME_CHARGE`]. The transport's receive window is 1 MiB, and
/// overflowing it costs a retransmission timeout of 1 s: stay 1/16 below.
pub const IN_FLIGHT_LIMIT: usize = 960 * KIB;

/// What a frame costs beside its payload, in bytes: our head (at most 24), an
/// SCTP chunk (16) and what a receiver needs to keep track of a message.
/// Bounds the number of small frames in flight, not just their bytes.
pub const FRAME_CHARGE: usize = 64;

/// Default payload of a data frame, in bytes.
pub const DEFAULT_PAYLOAD: usize = 16 * KIB;

/// Least payload that may be configured, in bytes.
pub const MIN_PAYLOAD: usize = 256;

/// Longest time that received bytes wait for their ack. Below what a person
/// notices, long enough that interactive traffic costs one ack per exchange.
pub const ACK_DELAY: Duration = Duration::from_millis(20);

/// Least bytes received that are worth an ack of their own before
/// [`ACK_DELAY`]: two default payloads, so bulk never gets an ack per frame.
pub const ACK_STEP: u64 = 2 * DEFAULT_PAYLOAD as u64;

/// Bytes received over all streams at which every delayed ack is sent: a
/// quarter of what can be in flight, so that many streams that each owe
/// little never bring the sender to a halt.
pub const ACK_SESSION_STEP: usize = IN_FLIGHT_LIMIT / 4;

/// Least new credit that is worth an ack of its own before [`ACK_DELAY`].
pub const GRANT_STEP: u64 = MIN_WINDOW / 2;

/// The round trip assumed until one was measured: a common LTE path.
pub const ASSUMED_ROUND_TRIP: Duration = Duration::from_millis(100);

/// Shortest round trip used for tuning: below it, scheduling noise decides.
pub const MIN_ROUND_TRIP: Duration = Duration::from_millis(1);

/// Longest round trip used for tuning: a slower path counts as dead.
pub const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);

/// A window halves when its reader took longer than this many round trips for
/// half of it: it then is over sixteen times bandwidth x delay.
pub const SHRINK_ROUND_TRIPS: u32 = 8;

/// A window never halves faster than this, so that one pause of a reader does
/// not undo what bulk traffic had earned.
pub const SHRINK_AT_LEAST: Duration = Duration::from_secs(1);

/// How long after a resume the other end may take to say what became of a
/// stream it did not list. Its answer is the first thing it sends, but on a
/// path that loses half of all packets the transport's timers hold it back, and
/// they double up to a minute: a stream must not end for that while pings are
/// answered.
pub const RESUME_ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// How long after its open was sent a stream may stay unanswered. The answer
/// comes at once, but may have to wait behind [`IN_FLIGHT_LIMIT`] bytes of
/// bulk: a minute is that at 130 kbit/s.
pub const OPEN_ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Closed streams whose outcome is remembered. The other end can miss at most
/// the closing of streams that it still counts as live, [`MAX_STREAMS`].
pub const TOMBSTONES: usize = MAX_STREAMS;

/// Most answers about streams waiting to be sent; a peer that provokes more
/// without reading them is cut off.
pub const MAX_ANSWERS: usize = 4 * MAX_STREAMS;

/// Undelivered events at which new streams are refused.
pub const MAX_EVENTS: usize = 4 * MAX_STREAMS;

/// What [`super::Mux::buffered_bytes`] never exceeds.
pub const MAX_BUFFERED: usize =
    SESSION_WINDOW as usize + SESSION_SEND_BUFFER + MAX_STREAMS * (MIN_WINDOW as usize + MIN_SEND_BUFFER);

/// How a [`super::Mux`] uses its carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Payload of a full data frame in bytes, kept within [`MIN_PAYLOAD`] and
    /// [`MAX_PAYLOAD`].
    pub max_payload: usize,
    /// See [`IN_FLIGHT_LIMIT`], in bytes; at least two full frames.
    pub in_flight_limit: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_payload: DEFAULT_PAYLOAD, in_flight_limit: IN_FLIGHT_LIMIT }
    }
}

impl Config {
    pub(super) fn within_bounds(self) -> Self {
        let max_payload = self.max_payload.clamp(MIN_PAYLOAD, MAX_PAYLOAD);
        let full_frame = max_payload + FRAME_CHARGE;
        Self { max_payload, in_flight_limit: self.in_flight_limit.max(2 * full_frame) }
    }
}
