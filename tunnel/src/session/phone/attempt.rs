//! An attempt at a carrier: how far it has come.

use std::time::Instant;

use farm_protocol::epoch::Epoch;

use super::Due;
use crate::recovery::Ways;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Offered,
    Connecting,
    Greeting,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) epoch: Epoch,
    pub(super) stage: Stage,
    pub(super) deadline: Instant,
    pub(super) ways: Ways,
    /// Its path is known, and goes through a relay.
    pub(super) relayed: bool,
}

impl Attempt {
    /// Whether it can be given up without a word: the live carrier goes on.
    pub(super) fn is_idle_upgrade(&self) -> bool {
        self.ways == Ways::DirectOnly && self.stage != Stage::Greeting
    }

    /// What it waits for, and how long.
    pub(super) fn due(&self) -> (Instant, Due) {
        let due = match self.stage {
            Stage::Offered => Due::Answer,
            Stage::Connecting => Due::Connect,
            Stage::Greeting => Due::Hello,
        };
        (self.deadline, due)
    }
}
