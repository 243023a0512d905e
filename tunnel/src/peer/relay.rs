//! A connection's way to its relay (TURN, RFC 8656), outside the engine.
//!
//! The engine has a TURN client, but only over UDP, and it asks the relay in the moment in which a
//! connection begins. So it is told of a relay at an address that nobody has ([`STAND_INS`]), and
//! its sockets, which are ours, take what it sends there: [`gate`] decides when that leaves and by
//! which transport, [`framing`] and [`stream`] carry it over TCP or TLS. The engine sees one relay
//! and makes one allocation, whatever the way to it. Why not a local UDP port in between: see
//! decision 0010.

mod framing;
mod gate;
mod socket;
mod stream;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender, bounded};
use futures_util::task::AtomicWaker;
use webrtc::runtime::{AsyncUdpSocket, Transmit};

use super::IceServer;
use crate::aside;
use crate::recovery::Ways;
use gate::{Gate, Terms};
pub(super) use gate::{PATIENCE, PATIENCE_ANSWERING, Via};
use socket::RelaySocket;
pub use stream::RelayStream;

/// Where the engine believes the relay to be: the IPv4 dummy address (RFC 7600) and one of the
/// prefix that is discarded (RFC 6666). Nothing is ever sent there.
const STAND_INS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), 3478),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8)), 3478),
];

/// Datagrams that wait for the stream: the engine's send window is 768 KiB, and what overruns this
/// is lost, as on any path.
const OUTGOING: usize = 768;

/// Datagrams that came on it and wait for the engine. While it is full, nothing is read.
const ARRIVED: usize = 64;

/// Turns of the engine's driver after which a relayed packet is on the wire: it is wrapped one turn
/// after it was queued.
pub(super) const RELAYED_TURNS: u8 = 2;

/// A relay, as the broker names it.
#[derive(Clone)]
pub struct RelayServer {
    /// Where it is.
    pub host: Host,
    /// The port of TURN over UDP, if it speaks that.
    pub udp: Option<u16>,
    /// TURN over TCP or TLS, if it speaks that.
    pub stream: Option<RelayStream>,
    /// The user name; it contains its expiry.
    pub username: String,
    /// What goes with it.
    pub credential: String,
}

/// Where a relay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// By address.
    Address(IpAddr),
    /// By name, looked up when the relay is needed.
    Name(String),
}

/// Without the credential.
impl fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, udp, stream, .. } = self;
        f.debug_struct("RelayServer")
            .field("host", host)
            .field("udp", udp)
            .field("stream", stream)
            .finish_non_exhaustive()
    }
}

/// What the connection before found out: that it needed a relay, and by which transport its own
/// answered.
pub(super) type Known = Option<Via>;

/// One connection's relay. Clones are handles of the same; with the last its stream ends.
#[derive(Clone)]
pub(super) struct Relay {
    shared: Arc<Shared>,
    changed: Sender<()>,
}

struct Shared {
    server: RelayServer,
    /// Its address for datagrams, once known.
    udp: OnceLock<SocketAddr>,
    state: Mutex<State>,
    /// See [`RELAYED_TURNS`].
    turns: Arc<AtomicU8>,
}

struct State {
    gate: Gate,
    ends: Vec<End>,
    /// Which of them has the stream.
    streaming: Option<usize>,
}

/// One of the connection's sockets, as the relay's messages use it.
struct End {
    socket: Arc<dyn AsyncUdpSocket>,
    /// The newest message that had to wait.
    held: Option<Vec<u8>>,
    /// By which transport the relay answered.
    via: Option<Via>,
    outgoing: Option<Sender<Vec<u8>>>,
    /// To the socket, from the stream.
    incoming: Sender<Vec<u8>>,
    waker: Arc<AtomicWaker>,
}

impl Relay {
    /// For a new connection; `turns` is where the driver's turns are counted.
    pub(super) fn new(server: RelayServer, ways: Ways, known: Known, turns: Arc<AtomicU8>) -> Self {
        let terms = Terms {
            udp: server.udp.is_some(),
            stream: server.stream.is_some(),
            at_once: ways == Ways::RelayOnly || known.is_some(),
            stream_at_once: known == Some(Via::Stream),
        };
        let udp = OnceLock::new();
        if let (Host::Address(address), Some(port)) = (&server.host, server.udp) {
            let _ = udp.set(SocketAddr::new(*address, port));
        }
        let gate = Gate::new(terms, Instant::now());
        let state = Mutex::new(State { gate, ends: Vec::new(), streaming: None });
        let shared = Arc::new(Shared { server, udp, state, turns });
        let (changed, changes) = bounded(1);
        crate::executor::spawn(attend(Arc::clone(&shared), changes)).detach();
        Self { shared, changed }
    }

    /// What the engine is told of it.
    pub(super) fn as_ice_server(&self) -> IceServer {
        let family = |at: &&SocketAddr| self.shared.udp.get().is_none_or(|udp| udp.is_ipv4() == at.is_ipv4());
        IceServer {
            urls: STAND_INS.iter().filter(family).map(|at| format!("turn:{at}?transport=udp")).collect(),
            username: self.shared.server.username.clone(),
            credential: self.shared.server.credential.clone(),
        }
    }

    /// A socket of the connection's.
    pub(super) fn wrap(&self, socket: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        let (incoming, arrived) = bounded(ARRIVED);
        let waker = Arc::new(AtomicWaker::new());
        let mut state = self.shared.state();
        let index = state.ends.len();
        state.ends.push(End {
            socket: Arc::clone(&socket),
            held: None,
            via: None,
            outgoing: None,
            incoming,
            waker: Arc::clone(&waker),
        });
        drop(state);
        Arc::new(RelaySocket::new(socket, index, self.clone(), arrived, waker))
    }

    /// Both descriptions are known: a direct path has this long.
    pub(super) fn described(&self, patience: Duration) {
        self.shared.state().gate.described(patience, Instant::now());
        self.look();
    }

    /// ICE found a path.
    pub(super) fn path_found(&self) {
        self.shared.state().gate.path_found();
        self.look();
    }

    /// By which transport the relay answered, if it did.
    pub(super) fn via(&self) -> Option<Via> {
        self.shared.state().ends.iter().find_map(|end| end.via)
    }

    /// The connection has ended: so does its stream.
    pub(super) fn close(&self) {
        self.changed.close();
    }

    fn look(&self) {
        // Full: it will look. Closed: it has ended.
        let _ = self.changed.try_send(());
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relay answered one of the sockets: from now on its messages go this way.
    fn answered(&self, index: usize, via: Via) {
        let mut state = self.state();
        state.gate.answered(via);
        let Some(end) = state.ends.get_mut(index).filter(|end| end.via.is_none()) else { return };
        end.via = Some(via);
        end.held = None;
        if via == Via::Udp {
            end.outgoing = None;
        }
        self.turns.store(RELAYED_TURNS, Ordering::Relaxed);
        tracing::info!(?via, "the relay answered");
    }

    /// Where one of the engine's messages to the relay goes now.
    fn outgoing(&self, index: usize, message: &[u8]) -> Option<SocketAddr> {
        let mut state = self.state();
        let open = state.gate.is_open();
        let end = state.ends.get_mut(index)?;
        if end.via.is_none() {
            end.held = Some(message.to_vec());
        }
        if end.via != Some(Via::Udp)
            && let Some(outgoing) = &end.outgoing
        {
            // Full, or the stream has ended: lost, as datagrams may be.
            let _ = outgoing.try_send(message.to_vec());
        }
        self.udp.get().copied().filter(|_| open && end.via != Some(Via::Stream))
    }

    /// Sends the messages that waited for the gate.
    async fn release(&self) {
        if let (Host::Name(name), Some(port), None) = (&self.server.host, self.server.udp, self.udp.get()) {
            match aside::resolve(name, port).await {
                Ok(found) => {
                    if let Some(first) = found.iter().find(|at| at.is_ipv4()).or(found.first()) {
                        let _ = self.udp.set(*first);
                    }
                }
                Err(error) => tracing::debug!(%error, "the relay's name could not be looked up"),
            }
        }
        let Some(&to) = self.udp.get() else { return };
        let waiting: Vec<_> = {
            let state = self.state();
            let unanswered = state.ends.iter().filter(|end| end.via.is_none());
            unanswered.filter_map(|end| Some((Arc::clone(&end.socket), end.held.clone()?))).collect()
        };
        for (socket, message) in waiting {
            if to.is_ipv4() == socket.local_addr().is_ok_and(|at| at.is_ipv4()) {
                send(&*socket, to, &message).await;
            }
        }
    }

    /// Gives the stream to the first socket that has something to say: the queues that it serves.
    fn begin_stream(&self) -> Option<stream::Queues> {
        let mut state = self.state();
        if state.streaming.is_some() || !state.gate.wants_stream() {
            return None;
        }
        let index = state.ends.iter().position(|end| end.held.is_some())?;
        state.streaming = Some(index);
        let end = state.ends.get_mut(index)?;
        let (send, outgoing) = bounded(OUTGOING);
        // Empty, so there is room.
        let _ = send.try_send(end.held.clone()?);
        end.outgoing = Some(send);
        Some(stream::Queues { outgoing, incoming: end.incoming.clone(), waker: Arc::clone(&end.waker) })
    }
}

async fn send(socket: &dyn AsyncUdpSocket, destination: SocketAddr, contents: &[u8]) {
    let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
    std::future::poll_fn(|cx| {
        // No room, or no way: lost, as datagrams may be; the engine repeats it.
        let _ = socket.poll_send(cx, &transmit);
        std::task::Poll::Ready(())
    })
    .await;
}

/// Does what the gate says, until the connection has ended.
async fn attend(shared: Arc<Shared>, changes: Receiver<()>) {
    let mut carried = false;
    let mut open = false;
    // Closed with the connection: nothing is ever sent on it.
    let (over, ended) = bounded::<()>(1);
    loop {
        shared.state().gate.handle_timeout(Instant::now());
        if shared.state().gate.is_open() && !std::mem::replace(&mut open, true) {
            shared.release().await;
        }
        if !carried
            && let Some(queues) = shared.begin_stream()
            && let Some(stream) = shared.server.stream.clone()
        {
            carried = true;
            let (host, ended) = (shared.server.host.clone(), ended.clone());
            crate::executor::spawn(async move {
                let carry = stream::carry(&host, &stream, queues);
                let until = async {
                    let _ = ended.recv().await;
                    io::ErrorKind::ConnectionAborted.into()
                };
                let end = smol::future::or(carry, until).await;
                tracing::debug!(error = %end, "the stream to the relay has ended");
            })
            .detach();
        }
        let due = shared.state().gate.poll_timeout();
        let timer = async {
            match due {
                Some(at) => drop(smol::Timer::at(at).await),
                None => std::future::pending().await,
            }
            true
        };
        if !smol::future::or(async { changes.recv().await.is_ok() }, timer).await {
            over.close();
            return;
        }
    }
}
