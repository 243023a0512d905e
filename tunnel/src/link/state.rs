//! The link's states, and why it is offline.

use std::fmt;
use std::time::{Duration, Instant};

/// Longest explanation kept of why the link is offline, in characters: it
/// ends in logs and status lines, and may come from the network.
pub const MAX_EXPLANATION: usize = 200;

/// Where the link to the broker stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not wanted: the only state without a deadline.
    Stopped,
    /// Waiting for the next attempt.
    Offline {
        /// When the next attempt begins.
        until: Instant,
        /// Attempts so far since the link was last up for a stable time.
        attempt: u32,
        /// Why the last connection or attempt ended.
        reason: Reason,
    },
    /// A socket is being opened.
    Connecting {
        /// When this attempt is given up.
        deadline: Instant,
        /// Counts from 1 since the link was last up for a stable time.
        attempt: u32,
    },
    /// The socket is open; the broker has not let us in yet.
    Authenticating {
        /// When this attempt is given up.
        deadline: Instant,
        /// As in [`State::Connecting`].
        attempt: u32,
    },
    /// The broker let us in, and answers heartbeats.
    Online,
}

impl State {
    /// Stable name for logs and status.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Offline { .. } => "offline",
            Self::Connecting { .. } => "connecting",
            Self::Authenticating { .. } => "authenticating",
            Self::Online => "online",
        }
    }
}

/// Why the link is offline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It was only just started.
    Started,
    /// It was stopped.
    Stopped,
    /// The socket could not be opened.
    ConnectFailed(String),
    /// The socket did not open in time.
    ConnectTimedOut,
    /// The broker did not let us in in time.
    AuthenticationTimedOut,
    /// The socket closed.
    Closed(String),
    /// A heartbeat stayed unanswered for this long.
    HeartbeatUnanswered(Duration),
    /// Our network changed under an attempt, which had begun on the old one.
    NetworkChanged,
    /// The broker won't let us in for now.
    RefusedForNow(String),
    /// The broker won't let us in until somebody does something.
    Refused(String),
    /// The broker said how long to stay away.
    AskedToWait(Duration),
}

impl Reason {
    /// Stable name for logs and status.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::ConnectFailed(_) => "connect_failed",
            Self::ConnectTimedOut => "connect_timed_out",
            Self::AuthenticationTimedOut => "authentication_timed_out",
            Self::Closed(_) => "closed",
            Self::HeartbeatUnanswered(_) => "heartbeat_unanswered",
            Self::NetworkChanged => "network_changed",
            Self::RefusedForNow(_) => "refused_for_now",
            Self::Refused(_) => "refused",
            Self::AskedToWait(_) => "asked_to_wait",
        }
    }

    /// Whether the broker itself said so. Such a wait stands whatever our own
    /// network does, which tells nothing about the broker's mind.
    pub fn is_brokers_word(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::AskedToWait(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("not tried yet"),
            Self::Stopped => f.write_str("stopped"),
            Self::ConnectFailed(why) => write!(f, "could not connect: {why}"),
            Self::ConnectTimedOut => f.write_str("the broker did not answer in time"),
            Self::AuthenticationTimedOut => f.write_str("the broker did not let us in in time"),
            Self::Closed(why) if why.is_empty() => f.write_str("the connection closed"),
            Self::Closed(why) => write!(f, "the connection closed: {why}"),
            Self::HeartbeatUnanswered(waited) => {
                write!(f, "the broker left a heartbeat unanswered for {waited:.1?}")
            }
            Self::NetworkChanged => f.write_str("the network changed"),
            Self::RefusedForNow(why) | Self::Refused(why) => write!(f, "the broker refused: {why}"),
            Self::AskedToWait(told) => write!(f, "the broker asked to wait {told:.1?}"),
        }
    }
}

/// Cuts an explanation to [`MAX_EXPLANATION`].
pub(super) fn bounded(explanation: String) -> String {
    match explanation.char_indices().nth(MAX_EXPLANATION) {
        Some((end, _)) => explanation[..end].to_owned(),
        None => explanation,
    }
}

/// The link at one moment, for status displays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its state.
    pub state: State,
    /// When that state began.
    pub since: Instant,
    /// Why the last connection or attempt ended; kept while connecting.
    pub reason: Reason,
    /// Attempts since the link was last up for a stable time.
    pub attempt: u32,
    /// When the next attempt begins, while offline.
    pub next_attempt: Option<Instant>,
    /// Whether our own network has a way out, as far as we were told.
    pub network_up: bool,
    /// Smoothed round trip of heartbeats on this connection.
    pub rtt: Option<Duration>,
    /// When a heartbeat was last answered on this connection: the proof that
    /// the broker is there.
    pub last_answered: Option<Instant>,
    /// When anything last came on this connection.
    pub last_received: Option<Instant>,
}

/// Which deadline [`super::Link::poll_timeout`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutReason {
    /// The next attempt to connect.
    Retry,
    /// The socket did not open.
    Connect,
    /// The broker did not let us in.
    Authenticate,
    /// A heartbeat is due.
    HeartbeatDue,
    /// A heartbeat stays unanswered.
    HeartbeatUnanswered,
}
