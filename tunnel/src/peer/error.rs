//! What a connection reports and how it fails.

use super::{CandidateError, MAX_CANDIDATES, MAX_MESSAGE, SdpError};

/// What happens to a connection. At most one each of the last three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// A local candidate the session description does not name, as `candidate:...`: to be told
    /// to the peer (in browsers with `sdpMLineIndex` 0; there is one media section).
    Candidate(String),
    /// There will be no more candidates.
    GatheringDone,
    /// All channels are open.
    Opened,
    /// The connection is lost, and its resources are being freed. The last event.
    Lost(LostReason),
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// No path was found, or the one in use has not answered for too long (ICE).
    #[error("the peer does not answer on any path")]
    Unreachable,
    /// The encryption could not be agreed, or the peer's certificate is another (DTLS).
    #[error("the encrypted handshake failed")]
    Handshake,
    /// The peer closed it.
    #[error("the peer closed the connection")]
    ClosedByPeer,
    /// It was not open in time.
    #[error("the connection did not open in time")]
    NeverOpened,
    /// The peer did what the protocol does not allow.
    #[error("the peer broke the protocol: {0}")]
    Violation(&'static str),
    /// The engine stopped: no socket is left, usually.
    #[error("the WebRTC engine stopped")]
    Engine,
    /// Closed by its owner. Never an event, only a reason why sending fails.
    #[error("the connection was closed here")]
    ClosedHere,
}

/// Errors of a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The peer's session description was refused.
    #[error("the peer sent {0}")]
    Description(#[from] SdpError),
    /// A candidate of the peer's was refused.
    #[error("the peer sent {0}")]
    Candidate(#[from] CandidateError),
    /// The peer has told its share of candidates.
    #[error("the peer sent more than {MAX_CANDIDATES} candidates")]
    TooManyCandidates,
    /// The answer has come already.
    #[error("the peer sent a second answer")]
    Answered,
    /// An ICE server's URL cannot be read.
    #[error("the ICE server URL '{url}' is malformed: {reason}")]
    IceServer {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The channels are not open yet.
    #[error("the connection is not open yet")]
    NotOpen,
    /// A message longer than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes, the limit is {MAX_MESSAGE}")]
    TooLarge(usize),
    /// No room in the channel's send buffer now.
    #[error("the channel's send buffer is full")]
    Full,
    /// The connection is lost.
    #[error("{0}")]
    Lost(LostReason),
    /// The WebRTC engine refused an operation.
    #[error("the WebRTC engine could not {doing}: {reason}")]
    Engine {
        /// What was asked of it.
        doing: &'static str,
        /// Its answer.
        reason: String,
    },
}
