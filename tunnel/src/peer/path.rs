//! The pair of candidates that ICE has chosen.

use webrtc::peer_connection::{PeerConnection, RTCIceCandidate, RTCIceCandidateType};

/// The pair in use.
pub(super) struct Selected {
    pub(super) local: RTCIceCandidate,
    pub(super) remote: RTCIceCandidate,
}

/// The pair in use, if there is one.
pub(super) async fn selected(connection: &dyn PeerConnection) -> Option<Selected> {
    let transport = connection.sctp().await?.transport().ice_transport();
    let pair = transport.get_selected_candidate_pair().await.ok()??;
    Some(Selected { local: pair.local().clone(), remote: pair.remote().clone() })
}

impl Selected {
    /// Whether it goes through a relay, as far as the candidates say. One of the peer's that was
    /// used before it was told shows as learned from the peer.
    pub(super) fn is_relayed(&self) -> bool {
        [&self.local, &self.remote].iter().any(|candidate| candidate.typ == RTCIceCandidateType::Relay)
    }
}
