//! The engine's events, on their way to the connection's keeper.
//!
//! The engine calls these on its driver task: they may queue, never wait.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_channel::Sender;
use async_trait::async_trait;
use webrtc::{
    data_channel::DataChannel,
    peer_connection::{
        PeerConnectionEventHandler, RTCIceConnectionState, RTCIceGatheringState, RTCPeerConnectionIceEvent,
        RTCPeerConnectionState,
    },
};

use super::{LostReason, MAX_CANDIDATES};

/// Signals that may wait for the keeper: every candidate that is passed on, their end, the path.
pub(super) const MAX_SIGNALS: usize = MAX_CANDIDATES + 2;

/// What the keeper hears from the engine.
pub(super) enum Signal {
    /// A local candidate, as `candidate:...`.
    Candidate(String),
    /// There will be no more.
    GatheringDone,
    /// ICE has found a path. Once.
    Path,
}

/// Translates the engine's events.
pub(super) struct Handler {
    /// To the keeper. Bounded by [`MAX_SIGNALS`].
    pub(super) signals: Sender<Signal>,
    /// The first failure, to the keeper. Capacity 1: a second one adds nothing.
    pub(super) failures: Sender<LostReason>,
    /// Closed when the first candidates are known (or there are none): the engine announces a
    /// candidate only after it has all host candidates.
    pub(super) gathered: Sender<()>,
    /// Whether ICE has found a path yet.
    pub(super) path: AtomicBool,
}

impl Handler {
    fn signal(&self, signal: Signal) {
        if self.signals.try_send(signal).is_err() {
            tracing::debug!("a local candidate too many is not told to the peer");
        }
    }

    fn fail(&self, reason: LostReason) {
        // Full: it is failing already. Closed: it has ended.
        let _ = self.failures.try_send(reason);
    }
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        match event.candidate.to_json() {
            Ok(init) if !init.candidate.is_empty() => {
                self.signal(Signal::Candidate(init.candidate));
                self.gathered.close();
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a local candidate cannot be written"),
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.signal(Signal::GatheringDone);
            self.gathered.close();
        }
    }

    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        tracing::debug!(%state, "ICE");
        if state == RTCIceConnectionState::Connected && !self.path.swap(true, Ordering::Relaxed) {
            self.signal(Signal::Path);
        }
    }

    /// It fails with ICE; the engine never calls a DTLS transport failed.
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if state == RTCPeerConnectionState::Failed {
            self.fail(LostReason::Unreachable);
        }
    }

    /// Ours are agreed beforehand, so this is one the peer opened by itself. Nobody would read
    /// it, and each such channel holds up to 256 messages.
    async fn on_data_channel(&self, _: Arc<dyn DataChannel>) {
        self.fail(LostReason::Violation("it opened a data channel of its own"));
    }
}
