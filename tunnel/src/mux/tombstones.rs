//! What became of streams that were closed here, for a peer that missed it.

use std::collections::VecDeque;

use farm_protocol::frame::{Frame, ResetReason, StreamId};

use super::limits::TOMBSTONES;

/// How a stream ended at this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Both directions were completed.
    Complete {
        /// What an ack says was received: one past the end.
        received: u64,
        /// The last credit granted.
        credit: u64,
    },
    /// This side reset it.
    Reset(ResetReason),
}

impl Outcome {
    pub(super) fn answer(self, stream: StreamId) -> Frame {
        match self {
            Self::Complete { received, credit } => Frame::Ack { stream, received, credit },
            Self::Reset(reason) => Frame::Reset { stream, reason },
        }
    }
}

/// The last [`TOMBSTONES`] streams that this side closed. One that the *peer*
/// reset needs none: the peer won't speak of it again.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    ring: VecDeque<(StreamId, Outcome)>,
}

impl Tombstones {
    pub(super) fn add(&mut self, id: StreamId, outcome: Outcome) {
        if self.ring.len() >= TOMBSTONES {
            self.ring.pop_front();
        }
        self.ring.push_back((id, outcome));
    }

    pub(super) fn get(&self, id: StreamId) -> Option<Outcome> {
        self.ring.iter().rev().find(|(closed, _)| *closed == id).map(|(_, outcome)| *outcome)
    }
}
