//! Whether the farm still knows this device, for those who would otherwise
//! wait for it in vain.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use farm_tunnel::session::phone::State;

/// Closed while the farm does not know the device: closing wakes everybody.
type Gate = (async_channel::Sender<Infallible>, async_channel::Receiver<Infallible>);

/// The farm's word on this device. Clones share it.
#[derive(Clone)]
pub(super) struct Pairing(Arc<Mutex<Gate>>);

impl Pairing {
    /// Paired, as far as is known.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(async_channel::bounded(1))))
    }

    /// Takes a change of the session. Only a live one proves that the device
    /// was paired again.
    pub(super) fn session(&self, state: State) {
        let mut gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            State::NotPaired => {
                gate.0.close();
            }
            State::Live if gate.0.is_closed() => *gate = async_channel::bounded(1),
            _ => {}
        }
    }

    /// Returns when, or if already, the farm does not know the device.
    pub(super) async fn over(&self) {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        // Nothing is ever sent: this ends when the gate is closed.
        let _ = told.recv().await;
    }

    /// Whether the farm does not know the device.
    pub(super) fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_until_the_session_is_live_again() {
        let pairing = Pairing::new();
        pairing.session(State::Waiting);
        assert!(!pairing.is_over());
        pairing.session(State::NotPaired);
        smol::future::block_on(pairing.over());
        pairing.session(State::Connecting);
        assert!(pairing.is_over());
        pairing.session(State::Live);
        assert!(!pairing.is_over());
    }
}
