//! What a connection is made with.

use std::{fmt, net::SocketAddr, time::Duration};

use super::{KnownPath, RelayServer};
use crate::recovery::Ways;

/// A STUN server. (As the engine has it: it is told of the relay as one, too.)
#[derive(Clone, Default, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:host[:port]` or `turn:host[:port]` (RFC 7064, RFC 7065). A `turn:` URL yields only
    /// relayed candidates: list the same host as `stun:` too. Others than UDP are passed over.
    pub urls: Vec<String>,
    /// TURN user name (time-limited ones contain their expiry); empty for STUN.
    pub username: String,
    /// TURN password; empty for STUN.
    pub credential: String,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// How to make a connection.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Servers that tell our public address.
    pub ice_servers: Vec<IceServer>,
    /// The relay, asked once no direct path was found in time.
    pub relay: Option<RelayServer>,
    /// Addresses to bind UDP sockets to, concrete ones with port 0. Empty: every address of
    /// every interface except loopback and link-local ones, as they are at this moment.
    pub local_addresses: Vec<SocketAddr>,
    /// Which ways it may take. Without a relay each of them means a direct one.
    pub ways: Ways,
    /// Somebody is looking: the path's consent is checked every 0.5 s rather than once a minute.
    pub watched: bool,
    /// How long from its making until all channels are open, or the connection counts as lost.
    pub open_within: Duration,
    /// Sizes that decide the throughput.
    pub tuning: Tuning,
    /// What the connections of a session know of their path.
    pub known_path: KnownPath,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            ice_servers: Vec::new(),
            relay: None,
            local_addresses: Vec::new(),
            ways: Ways::Any,
            watched: true,
            open_within: OPEN_WITHIN,
            tuning: Tuning::default(),
            known_path: KnownPath::default(),
        }
    }
}

/// Default of [`PeerConfig::open_within`]. An open takes 5 round trips after the answer has come,
/// 0.5 s on a bad LTE link; the answer itself may wait for a phone that wakes up.
const OPEN_WITHIN: Duration = Duration::from_secs(20);

/// Sizes that decide a connection's throughput and memory. The defaults are measured; see the
/// `peer_throughput` example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Most bytes of the data channel that may be unacknowledged; how many are allowed within
    /// this follows the path's rate and round trip.
    pub send_window: usize,
    /// Bytes the peer may have in flight towards us (SCTP's receiver window); `None` is the
    /// engine's default of 1 MiB.
    pub receive_window: Option<u32>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { send_window: SEND_WINDOW, receive_window: None }
    }
}

/// Default of [`Tuning::send_window`]: 50 Mbit/s at 100 ms, which are 610 KiB, and a quarter. Well
/// inside the peer's receiver window of 1 MiB: what overruns that is dropped, and costs a second.
const SEND_WINDOW: usize = 768 << 10;
