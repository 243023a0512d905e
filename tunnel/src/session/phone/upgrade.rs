//! When a carrier that goes through a relay is worth an attempt at a direct one.

use std::time::Instant;

use crate::backoff::Jitter;
use crate::recovery;

/// What is planned for the live carrier.
#[derive(Debug, Default)]
pub(super) struct Upgrade {
    /// Attempts since it came up.
    tries: u32,
    /// When the next one is due; `None` for a direct carrier.
    at: Option<Instant>,
}

impl Upgrade {
    /// The carrier's path is known, or became another one.
    pub(super) fn path(&mut self, relayed: bool, now: Instant, jitter: &mut Jitter) {
        if !relayed {
            *self = Self::default();
        } else if self.at.is_none() {
            self.plan(now, jitter);
        }
    }

    /// An attempt begins: plans the one after it.
    pub(super) fn begun(&mut self, now: Instant, jitter: &mut Jitter) {
        self.tries = self.tries.saturating_add(1);
        self.plan(now, jitter);
    }

    /// When an attempt is due, if somebody looks and the farm can be reached.
    pub(super) fn due(&self) -> Option<Instant> {
        self.at
    }

    fn plan(&mut self, now: Instant, jitter: &mut Jitter) {
        self.at = Some(now + recovery::upgrade_after(self.tries, jitter));
    }
}
