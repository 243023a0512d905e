//! Which of several brokers is tried next.

use super::state::Reason;

/// A list of brokers and where in it the link is.
#[derive(Debug)]
pub(super) struct Rotation {
    brokers: usize,
    current: usize,
    /// Brokers given up in a row since one let us in.
    given_up: usize,
}

impl Rotation {
    /// Over so many, the first one first.
    pub(super) fn new(brokers: usize) -> Self {
        Self { brokers: brokers.max(1), current: 0, given_up: 0 }
    }

    /// The one to be tried, or that is in use.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// A broker let us in.
    pub(super) fn succeeded(&mut self) {
        self.given_up = 0;
    }

    /// A connection or an attempt ended. Whether the next broker is to be
    /// tried at once: until each has had its turn, then all have to wait.
    pub(super) fn moves_on(&mut self, reason: &Reason) -> bool {
        let stays = match reason {
            // It is our network that failed, not the broker.
            Reason::NetworkChanged | Reason::Started | Reason::Stopped => true,
            Reason::ConnectFailed(_)
            | Reason::ConnectTimedOut
            | Reason::AuthenticationTimedOut
            | Reason::Closed(_)
            | Reason::HeartbeatUnanswered(_)
            | Reason::RefusedForNow(_)
            | Reason::Refused(_)
            | Reason::AskedToWait(_) => false,
        };
        if stays || self.brokers == 1 {
            return false;
        }
        self.current = (self.current + 1) % self.brokers;
        self.given_up += 1;
        if self.given_up >= self.brokers {
            self.given_up = 0;
            return false;
        }
        // What only a person can change is the same at all of them; and two
        // programs with one key must not chase each other around.
        !matches!(reason, Reason::Refused(_))
    }
}
