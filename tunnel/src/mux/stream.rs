//! One stream: its two halves and what the multiplexer keeps about it.

use std::time::Instant;

use farm_protocol::frame::StreamId;

use super::receive::ReceiveHalf;
use super::send::SendHalf;

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) send: SendHalf,
    pub(super) receive: ReceiveHalf,
    /// The phone's: what to open, until the farm is known to have it.
    pub(super) opening: Option<Opening>,
    /// This carrier's offsets are agreed: it may send.
    pub(super) agreed: bool,
    /// This carrier's hello listed it.
    pub(super) listed: bool,
    /// It waits in the schedule.
    pub(super) scheduled: bool,
    /// When the peer's answer is overdue.
    pub(super) answer_by: Option<Instant>,
    /// The reader was told and did not empty the queue since.
    pub(super) readable_told: bool,
    /// The writer was refused bytes and waits for room.
    pub(super) writer_waits: bool,
}

/// An open that is not acknowledged.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) target: String,
    /// It was sent on some carrier, so the farm may know it.
    pub(super) sent: bool,
}

impl Stream {
    pub(super) fn new(send: SendHalf, receive: ReceiveHalf, opening: Option<Opening>) -> Self {
        Self {
            send,
            receive,
            opening,
            agreed: true,
            listed: false,
            scheduled: false,
            answer_by: None,
            readable_told: false,
            writer_waits: false,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            busy: usize::from(self.send.held() > 0),
            send: self.send.held(),
            receive: self.receive.held(),
            in_flight: self.send.in_flight(),
            exposure: self.receive.exposure(),
        }
    }
}

/// What streams use of the session's bounds, in bytes where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Streams that hold bytes to send.
    pub(super) busy: usize,
    /// Held for sending and replay.
    pub(super) send: usize,
    /// Waiting for readers.
    pub(super) receive: usize,
    /// Sent on this carrier and not acknowledged, with the frames' charge.
    pub(super) in_flight: usize,
    /// Granted to the other end and not read.
    pub(super) exposure: u64,
}

impl Usage {
    pub(super) fn add(&mut self, other: Self) {
        self.busy += other.busy;
        self.send += other.send;
        self.receive += other.receive;
        self.in_flight += other.in_flight;
        self.exposure += other.exposure;
    }

    pub(super) fn remove(&mut self, other: Self) {
        self.busy -= other.busy;
        self.send -= other.send;
        self.receive -= other.receive;
        self.in_flight -= other.in_flight;
        self.exposure -= other.exposure;
    }
}

/// What the owner of a [`super::Mux`] should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The phone opened a stream (farm's side only). Accept it by using it,
    /// refuse it with [`super::Mux::reset`].
    Opened {
        /// The stream.
        id: StreamId,
        /// The service's name.
        target: String,
    },
    /// The farm has the stream (phone's side only).
    Established {
        /// The stream.
        id: StreamId,
    },
    /// There are bytes: read until `None`, the next event comes after that.
    Readable {
        /// The stream.
        id: StreamId,
    },
    /// A write that was not taken whole can go on.
    Writable {
        /// The stream.
        id: StreamId,
    },
    /// Everything was read, and the other end sends no more.
    Finished {
        /// The stream.
        id: StreamId,
    },
    /// The stream is over at once and forgotten; unread bytes are dropped.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why: as the other end says, or what was found here.
        reason: farm_protocol::frame::ResetReason,
    },
    /// Both directions are complete and acknowledged; the stream is forgotten.
    Closed {
        /// The stream.
        id: StreamId,
    },
}

impl Event {
    /// The stream it is about.
    pub fn stream(&self) -> StreamId {
        match self {
            Self::Opened { id, .. }
            | Self::Established { id }
            | Self::Readable { id }
            | Self::Writable { id }
            | Self::Finished { id }
            | Self::Reset { id, .. }
            | Self::Closed { id } => *id,
        }
    }
}
