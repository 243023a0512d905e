//! Pings: the only proof of life. They ride a channel of their own, unordered
//! and never retransmitted, so that bulk data can't delay them.

use serde::{Deserialize, Serialize};

/// What travels on a carrier's `ping` channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ping {
    /// Asks for a [`Ping::Pong`] with the same number.
    Ping(u32),
    /// Answers the ping of that number.
    Pong(u32),
}
