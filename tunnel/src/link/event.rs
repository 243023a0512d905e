//! What goes into the link and what comes out of it.

use std::fmt;
use std::time::Duration;

use super::state::{Reason, State};

/// One WebSocket of many over time: what an old one still reports is a no-op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub(super) u64);

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "socket {}", self.0)
    }
}

/// Something that happened to the link or around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Be connected from now on. While already waiting to connect: try now,
    /// even after a refusal (the operator changed something).
    Start,
    /// Say goodbye and stay away until [`Event::Start`].
    Stop,
    /// A socket reports. Anything but the present socket's is ignored.
    Socket(SocketId, SocketEvent),
    /// Our own network changed (netlink, the browser's `online` event, a jump
    /// of the clock after sleep).
    NetworkChanged(NetworkChange),
    /// The addresses that we tell others changed, and with them our epoch.
    AddressChanged,
    /// Whether somebody is looking.
    Attention {
        /// Somebody is.
        watched: bool,
    },
    /// The broker answered a STUN probe.
    ProbeAnswered,
    /// A STUN probe and its repeats stayed without answer.
    ProbeLost,
    /// Probes that had been lost are answered again.
    PathBack,
}

/// What happened to our own network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkChange {
    /// There is a way out again.
    Up,
    /// There is none left.
    Down,
    /// There still is one, but from another address.
    AddressChanged,
}

/// What one socket reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketEvent {
    /// The WebSocket is open; authentication begins.
    Opened,
    /// It could not be opened.
    Failed(String),
    /// It was open and closed.
    Closed(String),
    /// The broker let us in.
    Welcomed {
        /// How often it wants a heartbeat; taken within
        /// [`super::MIN_HEARTBEAT_INTERVAL`]`..=`[`super::MAX_HEARTBEAT_INTERVAL`].
        heartbeat_interval: Duration,
    },
    /// The broker won't let us in.
    Refused {
        /// Whether only an operator can change that.
        permanent: bool,
        /// What a person is told.
        explanation: String,
    },
    /// The broker goes away or is full, and says when to come back.
    RetryAfter(Duration),
    /// Anything at all came from the broker.
    Received,
    /// The broker answered a heartbeat.
    HeartbeatAnswered {
        /// Of the heartbeat.
        sequence: u32,
        /// The broker sees us at another address than before.
        address_changed: bool,
    },
}

/// Why a heartbeat is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The first one of a connection: measures the round trip.
    Connected,
    /// It was time.
    Regular,
    /// Our own network changed: is the link still there?
    NetworkChanged,
    /// Our addresses changed: others must hear of it.
    AddressChanged,
    /// Somebody began to look: whatever a state says may be long past.
    Attention,
    /// STUN probes stay unanswered: is the broker still there?
    ProbeLost,
}

impl Cause {
    /// Stable name for logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Regular => "regular",
            Self::NetworkChanged => "network_changed",
            Self::AddressChanged => "address_changed",
            Self::Attention => "attention",
            Self::ProbeLost => "probe_lost",
        }
    }
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a WebSocket and report on it under this id.
    Connect(SocketId),
    /// Drop this socket, at whatever stage, without waiting for it.
    Close {
        /// Which.
        socket: SocketId,
        /// Why.
        reason: Reason,
    },
    /// Send a heartbeat with the newest epoch.
    SendHeartbeat {
        /// On which socket.
        socket: SocketId,
        /// Counts up within a connection.
        sequence: u32,
        /// Why.
        cause: Cause,
    },
    /// Tell the broker that we leave on purpose; a [`Action::Close`] follows.
    Goodbye(SocketId),
    /// The link is in another state; for logs and status. Transitions only.
    Changed(State),
}
