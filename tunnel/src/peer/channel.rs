//! The channels of a carrier, and the trait behind which carriers are interchangeable.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;

use super::PeerError;

/// The channels of a connection: agreed beforehand, open as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Hello and resume, services, readings, status: reliable and ordered. Id 0.
    Control,
    /// Pings: unordered and never sent again, so that nothing delays them. Id 1.
    Ping,
    /// The streams' bytes: reliable and ordered. Id 2.
    Data,
}

impl Channel {
    /// All of them, by id.
    pub const ALL: [Self; 3] = [Self::Control, Self::Ping, Self::Data];

    /// The stream id both sides open the channel with (`negotiated` in browsers).
    pub const fn id(self) -> u16 {
        match self {
            Self::Control => 0,
            Self::Ping => 1,
            Self::Data => 2,
        }
    }

    /// The channel's label, for people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Ping => "ping",
            Self::Data => "data",
        }
    }

    /// Whether messages arrive in order and are sent again when lost.
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Ping)
    }
}

/// Whether a path goes through a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// From host to host, at most through their routers.
    Direct,
    /// Through a TURN server of either side.
    Relayed,
}

/// The path a connection has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Direct or relayed. A relay of the *peer's* is known as such only when the peer told us its
    /// candidate before it used it.
    pub kind: PathKind,
    /// Our end: the address the peer sees, as far as we know it.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

/// What carries a session: one connection with the three channels.
#[async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// Sends a message, waiting while the channel's send buffer is full.
    ///
    /// # Errors
    ///
    /// [`PeerError::TooLarge`], [`PeerError::NotOpen`], or [`PeerError::Lost`] once it is lost,
    /// also for a sender that was waiting.
    async fn send(&self, channel: Channel, message: Bytes) -> Result<(), PeerError>;

    /// Sends a message only if there is room for it now.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`PeerError::Full`].
    async fn try_send(&self, channel: Channel, message: Bytes) -> Result<(), PeerError>;

    /// The channel's next message; `None` once the carrier is lost or closed and everything that
    /// had arrived was read. One reader per channel, and it never stops reading for long.
    async fn recv(&self, channel: Channel) -> Option<Bytes>;

    /// The path in use, `None` while there is none.
    async fn path(&self) -> Option<Path>;

    /// Whether somebody is looking. While nobody is, it may sleep for seconds between packets.
    fn set_watched(&self, watched: bool);

    /// The peer's socket holds this many bytes while its program does not run: data that comes at
    /// once beyond that would be lost.
    fn receiver_holds(&self, bytes: u32);

    /// Closes the carrier and tells the peer. Closing again does nothing.
    async fn close(&self);
}
