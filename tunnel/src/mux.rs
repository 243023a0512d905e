//! The multiplexer: the byte streams of one session over one carrier after
//! the other. Pure: frames in, frames out, `now` passed in.
//!
//! **Streams outlive carriers.** Every offset is absolute within its stream
//! and direction. The sender keeps what was not acknowledged; when a carrier
//! is lost it rewinds to the last ack, and the two hellos on the next carrier
//! (a [`StreamState`](farm_protocol::frame::StreamState) per stream) say where to go on. Since bytes at an offset
//! never change, an overlap is skipped and a late ack is harmless.
//!
//! **The one who does not know answers.** A stream in the peer's hello that is
//! not live here is answered: with the outcome if it is among the last
//! [`TOMBSTONES`] closed ones, else with a reset. The one whose stream was not
//! listed waits for that, at most [`RESUME_ANSWER_DEADLINE`]. A stream that
//! the farm never confirmed is not listed by the phone but opened again, with
//! its bytes from 0; the phone speaks for such a stream because the farm can't
//! tell "never came" from "forgotten in a restart". A side that finds a stream
//! listed that its own hello left out sends an ack for it, so both ends of
//! every stream hear an offset on every carrier before they send on it.
//!
//! **Credit** bounds what a receiver holds. A window is what a stream's reader
//! may be behind; it doubles while the reader takes half of it within two
//! round trips and shrinks back when the reader is slow. Grants come out of a
//! window of the session; [`MIN_WINDOW`] is never denied and is also what the
//! phone may send before the first ack. Granted credit is never taken back.
//!
//! **Acks** trim the replay buffer and carry credit. They are sent when a
//! quarter of the window came or half of it was read, else after
//! [`ACK_DELAY`]. The end of a stream counts as one byte, and is acknowledged
//! when the reader has reached it: then the two ends forget the stream in an
//! order that keeps the farm's live streams a subset of the phone's, and an
//! honest phone never runs into the farm's [`MAX_STREAMS`].
//!
//! **Pacing**: at most [`Config::in_flight_limit`] bytes on a carrier are
//! unacknowledged. Streams that just got something short to send go before
//! the bulk, which takes turns that are fair by bytes.
//!
//! **Bounds**: everything that a peer or a local program can make grow has a
//! limit with a name below; small pieces are merged, so memory follows the bytes.
//!
//! How to drive it: [`Mux::hello`] to the peer and [`Mux::resume`] with the
//! peer's, on *every* carrier, the first included. After every call drain
//! [`Mux::poll_event`] and, while the transport takes frames,
//! [`Mux::poll_transmit`]; call [`Mux::handle_timeout`] at
//! [`Mux::poll_timeout`].

mod books;
mod error;
mod incoming;
mod limits;
mod outgoing;
mod queue;
mod receive;
mod resume;
mod schedule;
mod send;
mod stream;
#[cfg(test)]
mod tests;
mod tombstones;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farm_protocol::frame::{MAX_TARGET, ResetReason, StreamId};

pub use error::{OpenError, StreamError, Violation};
pub use limits::*;
pub use stream::Event;

use outgoing::Outbox;
use receive::ReceiveHalf;
use schedule::Schedule;
use send::SendHalf;
use stream::{Opening, Stream, Usage};
use tombstones::Tombstones;

/// Which end of the session this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens streams.
    Phone,
    /// Accepts them.
    Farm,
}

/// The streams of one session. See the module's description.
#[derive(Debug)]
pub struct Mux {
    role: Role,
    config: Config,
    round_trip: Duration,
    streams: BTreeMap<StreamId, Stream>,
    /// The highest number opened (phone) or seen in an open (farm).
    last_id: StreamId,
    tombstones: Tombstones,
    /// The peer's hello came on this carrier.
    resumed: bool,
    outbox: Outbox,
    schedule: Schedule,
    events: VecDeque<Event>,
    /// When an answer about a stream is overdue.
    deadlines: BTreeSet<(Instant, StreamId)>,
    /// The sum over all streams.
    usage: Usage,
    #[cfg(test)]
    forget_to_rewind: bool,
}

impl Mux {
    /// No streams, and no carrier yet.
    pub fn new(role: Role, config: Config) -> Self {
        let config = config.within_bounds();
        Self {
            role,
            config,
            round_trip: ASSUMED_ROUND_TRIP,
            streams: BTreeMap::new(),
            last_id: 0,
            tombstones: Tombstones::default(),
            resumed: false,
            outbox: Outbox::default(),
            schedule: Schedule::new(config.max_payload),
            events: VecDeque::new(),
            deadlines: BTreeSet::new(),
            usage: Usage::default(),
            #[cfg(test)]
            forget_to_rewind: false,
        }
    }

    /// Frames have at most this payload from now on, within the bounds of [`Config`].
    pub fn set_max_payload(&mut self, max_payload: usize) {
        self.config = Config { max_payload, ..self.config }.within_bounds();
    }

    /// Opens a stream to a service; the carrier may be away. Bytes can be
    /// written at once, without waiting for [`Event::Established`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&mut self, target: &str) -> Result<StreamId, OpenError> {
        if self.role == Role::Farm {
            return Err(OpenError::NotThePhone);
        }
        if !(1..=MAX_TARGET).contains(&target.len()) {
            return Err(OpenError::BadTarget(target.len()));
        }
        if self.streams.len() >= MAX_STREAMS {
            return Err(OpenError::TooManyStreams);
        }
        let id = self.last_id.checked_add(1).ok_or(OpenError::Exhausted)?;
        self.last_id = id;
        let mut receive = ReceiveHalf::new(0);
        receive.announce(self.free_window());
        let opening = Opening { target: target.to_owned(), sent: false };
        self.insert(id, Stream::new(SendHalf::new(MIN_WINDOW), receive, Some(opening)));
        if self.resumed {
            self.outbox.open(id);
        }
        Ok(id)
    }

    /// Takes the beginning of `bytes`, as many as there is room for, and says
    /// how many. If some are left, [`Event::Writable`] says when to go on.
    /// The pieces are kept as they are: give no small slice of a large buffer.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn write(&mut self, id: StreamId, bytes: &mut Bytes) -> Result<usize, StreamError> {
        let stream = self.streams.get(&id).ok_or(StreamError::Gone)?;
        if stream.send.is_finishing() {
            return Err(StreamError::Finished);
        }
        let taken = bytes.split_to(self.room(stream).min(bytes.len()));
        let count = taken.len();
        let refused = !bytes.is_empty();
        self.with(id, |stream| {
            stream.send.push(taken);
            stream.writer_waits |= refused;
        });
        self.schedule(id);
        Ok(count)
    }

    /// Declares the end of what is written; the other direction goes on.
    ///
    /// # Errors
    /// [`StreamError::Gone`]. Finishing twice is none.
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        let stream = self.streams.get_mut(&id).ok_or(StreamError::Gone)?;
        stream.send.finish();
        stream.writer_waits = false;
        self.schedule(id);
        Ok(())
    }

    /// Ends a stream at once, in both directions. No event about it follows.
    pub fn reset(&mut self, id: StreamId, reason: ResetReason) {
        if self.drop_stream(id, reason) {
            self.events.retain(|event| event.stream() != id);
        }
    }

    /// Ends all streams, each with [`Event::Reset`].
    pub fn reset_all(&mut self, reason: ResetReason) {
        while let Some(id) = self.streams.keys().next().copied() {
            self.fail(id, reason);
        }
    }

    /// At most `max` bytes of what came, `None` when there are none now. What
    /// is read is granted to the other end again.
    pub fn read(&mut self, id: StreamId, max: usize, now: Instant) -> Option<Bytes> {
        let round_trip = self.round_trip;
        let bytes = self.with(id, |stream| {
            let bytes = stream.receive.read(max, now, round_trip);
            stream.readable_told &= stream.receive.held() > 0;
            bytes
        })??;
        self.weigh_ack(id, now);
        self.after_reading(id);
        Some(bytes)
    }

    /// What happened since, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Mux::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let acks = self.outbox.acks_due().filter(|_| self.resumed).map(|at| (at, "acks are due"));
        let answer = self.deadlines.first().map(|(at, _)| (*at, "an answer about a stream is overdue"));
        acks.into_iter().chain(answer).min_by_key(|(at, _)| *at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.outbox.acks_due().is_some_and(|at| at <= now) {
            self.outbox.release_acks();
        }
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            let opening = self.streams.get(&id).is_some_and(|stream| stream.opening.is_some());
            let reason = if opening { ResetReason::ServiceUnavailable } else { ResetReason::Restarted };
            self.fail(id, reason);
        }
    }

    /// The carrier's round trip, for the windows; used within
    /// [`MIN_ROUND_TRIP`] and [`MAX_ROUND_TRIP`].
    pub fn set_round_trip_time(&mut self, round_trip: Duration) {
        self.round_trip = round_trip.clamp(MIN_ROUND_TRIP, MAX_ROUND_TRIP);
    }

    /// Whether the peer's hello came on this carrier.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Bytes held for sending, for replay and for readers; at most
    /// [`MAX_BUFFERED`].
    pub fn buffered_bytes(&self) -> usize {
        self.usage.send + self.usage.receive
    }

    /// Bytes sent on this carrier and not acknowledged, with the frames' charge.
    pub fn in_flight(&self) -> usize {
        self.usage.in_flight
    }

    /// Live streams, at most [`MAX_STREAMS`].
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }
}
