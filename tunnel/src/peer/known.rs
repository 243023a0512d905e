//! What the connections of a session know of their path from each other.

use std::sync::{Arc, Mutex, PoisonError};

use super::{relay::Known, repeater::KnownLoss};

/// What is known of a path, for the connections that follow each other on it: whether it loses
/// packets, and whether it needs a relay. Clones share it. A hint: it saves time where it is right,
/// and costs little where it no longer is.
#[derive(Debug, Clone, Default)]
pub struct KnownPath {
    pub(super) loss: KnownLoss,
    relay: Arc<Mutex<Known>>,
}

impl KnownPath {
    /// What the last connection that opened found out about the relay.
    pub(super) fn relay(&self) -> Known {
        *self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection opened.
    pub(super) fn opened(&self, relay: Known) {
        *self.relay.lock().unwrap_or_else(PoisonError::into_inner) = relay;
    }
}
