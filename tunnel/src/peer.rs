//! A peer connection: WebRTC between the farm and a phone, as three message channels.
//!
//! [`Peer`] wraps the `webrtc` crate on smol. It decides nothing about sessions: its owner carries
//! the session descriptions and candidates to the other side, reads each channel with one reader,
//! and learns from [`PeerEvent`]s when the connection is open and when it is lost. A lost
//! connection never comes back; the session makes a new one.
//!
//! Two rules for owners, because the engine holds 256 messages per channel and stops reading the
//! *whole* connection when one channel has more:
//! - every channel always has a reader, and it never waits for a slow sink;
//! - senders stay within the credit the receiver gave (`mux`): data beyond a full receive window
//!   is dropped, and the engine then waits a second before it sends it again.
//!
//! The engine logs through the `log` crate, one ERROR per packet once an address is lost. Nothing
//! here bridges `log` to `tracing`; whoever does must limit its rate.

mod candidate;
mod channel;
mod config;
mod error;
mod handler;
mod keeper;
mod known;
mod lane;
mod launch;
mod path;
mod redundancy;
mod relay;
mod repeater;
mod resolve;
mod runtime;
mod sdp;
mod settings;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_trait::async_trait;
use bytes::Bytes;
use smol::lock::Mutex;
use webrtc::{
    error::Error as EngineError,
    peer_connection::{PeerConnection, RTCIceCandidate, RTCIceCandidateInit, RTCSessionDescription},
};

use self::{
    candidate::Candidate,
    keeper::Status,
    lane::{Lane, Received},
    launch::{Launched, launch},
    path::selected,
    runtime::DriverRuntime,
};
use crate::recovery::Ways;

pub use self::{
    candidate::{CandidateError, MAX_CANDIDATE},
    channel::{Carrier, Channel, Path, PathKind},
    config::{IceServer, PeerConfig, Tuning},
    error::{LostReason, PeerError, PeerEvent},
    known::KnownPath,
    relay::{Host as RelayHost, RelayServer, RelayStream},
    sdp::{MAX_SDP, SdpError, fingerprint, wants_direct},
};

/// Longest message, in bytes: 64 KiB and a frame's header. Longer ones gain no throughput and hold
/// up the pings between their fragments.
pub const MAX_MESSAGE: usize = (64 << 10) + 64;

/// Candidates taken from a peer, and told to it, per connection. A host with 4 interfaces, each
/// with 4 addresses, 2 STUN servers and a relay has 64.
pub const MAX_CANDIDATES: usize = 64;

/// How long a description waits for the addresses of our own interfaces. They are known in less
/// than 1 ms, and save the first round trip through the broker; the rest is told as events.
const GATHER_WITHIN: Duration = Duration::from_millis(20);

/// A connection to a peer. Clones are handles of the same connection; when the last is dropped the
/// connection is closed.
#[derive(Clone)]
pub struct Peer {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Arc<dyn PeerConnection>,
    lanes: [Lane; 3],
    runtime: Arc<DriverRuntime>,
    status: Arc<Status>,
    remote: Mutex<Remote>,
    keeper: Sender<BTreeSet<String>>,
    failures: Sender<LostReason>,
    closed: Receiver<()>,
}

/// What the peer has told.
#[derive(Default)]
struct Remote {
    /// Its description is applied, so its candidates can be.
    described: bool,
    /// Candidates that came before it.
    early: Vec<String>,
    /// How many came in all.
    candidates: usize,
    /// The addresses of its relays among them.
    relays: BTreeSet<SocketAddr>,
}

impl Peer {
    /// Makes a connection and the offer that starts it: the peer, its events, and the session
    /// description for the other side. The description names the candidates known at once; the
    /// others come as [`PeerEvent::Candidate`].
    ///
    /// # Errors
    ///
    /// [`PeerError::IceServer`], or [`PeerError::Engine`] when no socket could be bound.
    pub async fn offer(config: PeerConfig) -> Result<(Self, Receiver<PeerEvent>, String), PeerError> {
        let direct_only = config.ways == Ways::DirectOnly;
        let (peer, events, gathered) = Self::launch(config).await?;
        let connection = &peer.shared.connection;
        let offer = connection.create_offer(None).await.map_err(engine("make an offer"))?;
        let sdp = peer.describe(offer, &gathered).await?;
        Ok((peer, events, if direct_only { sdp::ask_for_direct(&sdp) } else { sdp }))
    }

    /// Makes a connection that accepts an offer: the peer, its events, and the answering session
    /// description. An offer that [wants a direct way](wants_direct) gets no other.
    ///
    /// # Errors
    ///
    /// [`PeerError::Description`] for an offer that is refused, and those of [`offer`](Self::offer).
    pub async fn answer(
        config: PeerConfig,
        offer_sdp: &str,
    ) -> Result<(Self, Receiver<PeerEvent>, String), PeerError> {
        let screened = sdp::screen(sdp::Kind::Offer, offer_sdp)?;
        let ways = if wants_direct(offer_sdp) { Ways::DirectOnly } else { config.ways };
        let config = PeerConfig { ways, ..config };
        let (peer, events, gathered) = Self::launch(config).await?;
        let offer = RTCSessionDescription::offer(screened.text).map_err(engine("read the offer"))?;
        peer.apply(offer, screened.candidates, screened.relays, relay::PATIENCE_ANSWERING).await?;
        let connection = &peer.shared.connection;
        let answer = connection.create_answer(None).await.map_err(engine("make an answer"))?;
        let sdp = peer.describe(answer, &gathered).await?;
        Ok((peer, events, sdp))
    }

    /// Applies the answer to our offer.
    ///
    /// # Errors
    ///
    /// [`PeerError::Description`] for an answer that is refused, [`PeerError::Answered`] for a
    /// second one, [`PeerError::Engine`] when the engine cannot make sense of it.
    pub async fn accept_answer(&self, sdp: &str) -> Result<(), PeerError> {
        let screened = sdp::screen(sdp::Kind::Answer, sdp)?;
        let answer = RTCSessionDescription::answer(screened.text).map_err(engine("read the answer"))?;
        self.apply(answer, screened.candidates, screened.relays, relay::PATIENCE).await
    }

    /// Adds a candidate of the peer's: `candidate:...`, with or without `a=`. One that comes before
    /// the peer's description is kept until then. The empty string (the end of candidates) and
    /// candidates of no use here (TCP, mDNS names) are accepted and ignored.
    ///
    /// # Errors
    ///
    /// [`PeerError::Candidate`] for a malformed one, [`PeerError::TooManyCandidates`],
    /// [`PeerError::Lost`].
    pub async fn add_candidate(&self, candidate: &str) -> Result<(), PeerError> {
        let Candidate::Usable(candidate) = candidate::read(candidate)? else {
            return Ok(());
        };
        self.alive()?;
        let mut remote = self.shared.remote.lock().await;
        if remote.candidates >= MAX_CANDIDATES {
            return Err(PeerError::TooManyCandidates);
        }
        remote.candidates += 1;
        remote.relays.extend(candidate::relay_address(&candidate));
        if remote.described {
            self.check_candidate(candidate).await
        } else {
            remote.early.push(candidate);
            Ok(())
        }
    }

    /// Sends a message, waiting while as much is unacknowledged as the path carries in a round trip
    /// or so (at most [`Tuning::send_window`] bytes), and for senders that came before.
    ///
    /// # Errors
    ///
    /// [`PeerError::TooLarge`], [`PeerError::NotOpen`], or [`PeerError::Lost`] once the connection
    /// is lost, also for a sender that was waiting.
    pub async fn send(&self, channel: Channel, message: Bytes) -> Result<(), PeerError> {
        self.lane(channel).send(message).await
    }

    /// Sends a message only if there is room for it now.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`PeerError::Full`].
    pub async fn try_send(&self, channel: Channel, message: Bytes) -> Result<(), PeerError> {
        self.lane(channel).try_send(message).await
    }

    /// The peer's socket holds this many bytes while its program does not run: data that comes at
    /// once beyond that would be lost.
    pub fn receiver_holds(&self, bytes: u32) {
        self.lane(Channel::Data).receiver_holds(bytes);
    }

    /// The channel's next message; `None` once the connection is lost or closed and everything
    /// that had arrived was read. One reader per channel, and always one: see the module.
    pub async fn recv(&self, channel: Channel) -> Option<Bytes> {
        match self.lane(channel).recv().await {
            Received::Message(message) => return Some(message),
            // Full: it is failing already. Closed: it has ended.
            Received::End(Some(reason)) => drop(self.shared.failures.try_send(reason)),
            Received::End(None) => {}
        }
        None
    }

    /// The path in use, `None` while there is none.
    pub async fn path(&self) -> Option<Path> {
        let pair = selected(&*self.shared.connection).await?;
        let address = |candidate: &RTCIceCandidate| {
            let ip = candidate.address.parse().ok()?;
            Some(SocketAddr::new(ip, candidate.port))
        };
        let (local, remote) = (address(&pair.local)?, address(&pair.remote)?);
        let relayed = pair.is_relayed() || self.shared.remote.lock().await.relays.contains(&remote);
        let kind = if relayed { PathKind::Relayed } else { PathKind::Direct };
        Some(Path { kind, local, remote })
    }

    /// Whether somebody is looking; at first somebody is. An open connection that nobody looks at
    /// sleeps for seconds between packets, at the cost of slower retransmissions.
    pub fn set_watched(&self, watched: bool) {
        self.shared.runtime.set_watched(watched);
    }

    /// Whether all channels are open and the connection is not lost.
    pub fn is_open(&self) -> bool {
        self.shared.status.opened.load(Ordering::Acquire) && self.lost().is_none()
    }

    /// Why the connection is lost; `None` while it is not.
    pub fn lost(&self) -> Option<LostReason> {
        self.shared.status.lost.get().copied()
    }

    /// Closes the connection, tells the peer, and returns when the engine has stopped (within
    /// 0.2 s). Closing again does nothing.
    pub async fn close(&self) {
        self.shared.keeper.close();
        // Fails when the keeper is gone, which is what we wait for.
        let _ = self.shared.closed.recv().await;
    }
}

impl Peer {
    async fn launch(config: PeerConfig) -> Result<(Self, Receiver<PeerEvent>, Receiver<()>), PeerError> {
        let Launched { connection, lanes, runtime, status, events, keeper, failures, gathered, closed } =
            launch(config).await?;
        let remote = Mutex::default();
        let shared = Shared { connection, lanes, runtime, status, remote, keeper, failures, closed };
        Ok((Self { shared: Arc::new(shared) }, events, gathered))
    }

    /// Applies our own description, which starts the gathering of candidates, and returns it with
    /// those that are known at once.
    async fn describe(
        &self,
        description: RTCSessionDescription,
        gathered: &Receiver<()>,
    ) -> Result<String, PeerError> {
        let connection = &self.shared.connection;
        connection.set_local_description(description).await.map_err(engine("apply our own description"))?;
        smol::future::or(
            async {
                let _ = gathered.recv().await;
            },
            async {
                smol::Timer::after(GATHER_WITHIN).await;
            },
        )
        .await;
        let description = connection.local_description().await.ok_or(PeerError::Engine {
            doing: "describe itself",
            reason: "it has no local description".to_owned(),
        })?;
        let (text, named) = sdp::advertise(&description.sdp);
        // Fails when the connection is lost already; its events say so.
        let _ = self.shared.keeper.send(named).await;
        Ok(text)
    }

    /// Applies the peer's description and the candidates that came before it.
    async fn apply(
        &self,
        description: RTCSessionDescription,
        candidates: usize,
        relays: BTreeSet<SocketAddr>,
        patience: Duration,
    ) -> Result<(), PeerError> {
        self.alive()?;
        let mut remote = self.shared.remote.lock().await;
        if remote.described {
            return Err(PeerError::Answered);
        }
        self.shared
            .connection
            .set_remote_description(description)
            .await
            .map_err(engine("apply the peer's description"))?;
        self.shared.runtime.described(patience);
        remote.described = true;
        remote.candidates += candidates;
        remote.relays.extend(relays);
        for candidate in std::mem::take(&mut remote.early) {
            self.check_candidate(candidate).await?;
        }
        Ok(())
    }

    /// Gives a candidate to the ICE agent.
    async fn check_candidate(&self, candidate: String) -> Result<(), PeerError> {
        let init =
            RTCIceCandidateInit { candidate, sdp_mline_index: Some(0), ..RTCIceCandidateInit::default() };
        let connection = &self.shared.connection;
        connection.add_ice_candidate(init).await.map_err(engine("add a candidate of the peer's"))?;
        // The engine does not wake its driver for a candidate: the first check would wait for the
        // next timer.
        self.lane(Channel::Control).wake_driver().await
    }

    fn lane(&self, channel: Channel) -> &Lane {
        &self.shared.lanes[usize::from(channel.id())]
    }

    fn alive(&self) -> Result<(), PeerError> {
        self.lost().map_or(Ok(()), |reason| Err(PeerError::Lost(reason)))
    }
}

/// Names what the engine was doing when it failed.
fn engine(doing: &'static str) -> impl FnOnce(EngineError) -> PeerError {
    move |error| PeerError::Engine { doing, reason: error.to_string() }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("open", &self.is_open())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Carrier for Peer {
    async fn send(&self, channel: Channel, message: Bytes) -> Result<(), PeerError> {
        Self::send(self, channel, message).await
    }

    async fn try_send(&self, channel: Channel, message: Bytes) -> Result<(), PeerError> {
        Self::try_send(self, channel, message).await
    }

    async fn recv(&self, channel: Channel) -> Option<Bytes> {
        Self::recv(self, channel).await
    }

    async fn path(&self) -> Option<Path> {
        Self::path(self).await
    }

    fn set_watched(&self, watched: bool) {
        Self::set_watched(self, watched);
    }

    fn receiver_holds(&self, bytes: u32) {
        Self::receiver_holds(self, bytes);
    }

    async fn close(&self) {
        Self::close(self).await;
    }
}
