//! The relay around its core: sockets, streams, deadlines. Decides nothing.

mod sockets;
mod stream;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_channel::{Receiver, Sender};
use smol::future::or;

use super::actor::now;
use super::datagrams::Watched;
use super::reactor::Alarm;
use super::thread::Door;
use crate::core::counters::RelayCounters;
use crate::core::relay::limits::MAX_PACKET;
use crate::core::relay::turn::{TurnSettings, Usage};
use crate::core::relay::{
    Account, Action, AllocationId, Client, Event, Forward, HEADROOM, PeerPolicy, Place, RelayLimits, Secret,
    TAILROOM, Transport, Turn,
};
pub use sockets::{AddressError, PortRange};
pub(super) use stream::{Begun, is_turn};

/// Packets that wait for one client's connection, at most. More are dropped,
/// as a full router would.
const STREAM_QUEUE: usize = 64;

/// What the kernel holds of datagrams that wait, in bytes, where it allows so
/// much: all clients share one socket, and come in bursts.
const DATAGRAM_BUFFER: usize = 1024 * 1024;

/// What the operator decides about the relay.
#[derive(Clone, Default)]
pub struct RelayOptions {
    /// What credentials are made with, where several brokers share it; `None`:
    /// one of this broker's own, kept in its state.
    pub secret: Option<String>,
    /// Its addresses as peers see them; empty: where devices reach the broker.
    pub addresses: Vec<IpAddr>,
    /// Ports of relayed sockets; `None`: the kernel chooses.
    pub ports: Option<PortRange>,
    /// Peers that are allowed although they are not on the public internet.
    pub allow_peers: Vec<crate::core::relay::policy::Block>,
    /// The limits.
    pub limits: RelayLimits,
}

/// A packet with the room around it that the core needs.
pub(super) type Packet = [u8; HEADROOM + MAX_PACKET + 1 + TAILROOM];

/// Where in a [`Packet`] is received. One byte more than is relayed: a longer
/// datagram is told by it.
pub(super) const RECEIVED: Range<usize> = HEADROOM..HEADROOM + MAX_PACKET + 1;

/// The relay. Shared by all that serve it.
pub(super) struct Relay {
    state: Mutex<State>,
    /// Where clients speak by datagrams.
    datagrams: Option<Arc<UdpSocket>>,
    binder: sockets::Binder,
    watched: Arc<Watched>,
    door: Door,
    next_stream: AtomicU64,
    /// Says that a deadline became due earlier.
    wake: Sender<()>,
    woken: Receiver<()>,
}

struct State {
    turn: Turn,
    sockets: HashMap<AllocationId, Arc<UdpSocket>>,
    streams: HashMap<Client, Sender<Vec<u8>>>,
    stream_full: u64,
    /// The deadline that is waited for.
    due: Option<Instant>,
    closed: bool,
}

impl Relay {
    /// A relay for clients of this socket and of the streams that it is given;
    /// whoever watches its sockets calls [`Self::receive`].
    ///
    /// # Errors
    /// No address for relayed sockets is usable.
    pub(super) fn new(
        options: RelayOptions,
        secret: Secret,
        seed: &[u8; 32],
        datagrams: Option<Arc<UdpSocket>>,
        listening: Vec<SocketAddr>,
        watched: Arc<Watched>,
        door: Door,
    ) -> Result<Arc<Self>, AddressError> {
        let first = datagrams.as_ref().and_then(|socket| socket.local_addr().ok());
        let binder = sockets::Binder::new(&options, first.or(listening.first().copied()))?;
        let settings = TurnSettings {
            limits: options.limits,
            policy: PeerPolicy {
                allowed: options.allow_peers,
                own: binder.own(),
                listening: listening.into_iter().collect(),
            },
            addresses: binder.addresses(),
        };
        if let Some(socket) = &datagrams {
            sockets::widen(socket, DATAGRAM_BUFFER);
        }
        let (wake, woken) = async_channel::bounded(1);
        let state = State {
            turn: Turn::new(settings, secret, seed, now()),
            sockets: HashMap::new(),
            streams: HashMap::new(),
            stream_full: 0,
            due: None,
            closed: false,
        };
        Ok(Arc::new(Self {
            state: Mutex::new(state),
            datagrams,
            binder,
            watched,
            door,
            next_stream: AtomicU64::new(1),
            wake,
            woken,
        }))
    }

    /// Its addresses as peers see them.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.binder.addresses()
    }

    /// Keeps the deadlines, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let due = self.lock().turn.poll_timeout();
            let woken = async {
                // Never closed while `self` holds the other end.
                let _told = self.woken.recv().await;
                false
            };
            let timed_out = match due {
                Some((at, _)) => {
                    or(woken, async {
                        Alarm::at(at).await;
                        true
                    })
                    .await
                }
                None => woken.await,
            };
            if timed_out {
                self.handle(Event::Timeout);
            }
        }
    }

    /// Ends all that it serves.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let (sockets, streams) = (std::mem::take(&mut state.sockets), std::mem::take(&mut state.streams));
        drop(state);
        drop((sockets, streams));
    }

    /// What happened so far.
    pub(super) fn counters(&self) -> RelayCounters {
        let state = self.lock();
        RelayCounters { relay_stream_full: state.stream_full, ..state.turn.counters() }
    }

    /// How many allocations are open.
    pub(super) fn allocations(&self) -> usize {
        self.lock().turn.allocations()
    }

    /// What an account used.
    pub(super) fn usage(&self, account: Account) -> Usage {
        self.lock().turn.usage(account)
    }

    /// Other limits from now on; allocations that are open stay.
    pub(super) fn set_limits(&self, limits: RelayLimits) {
        self.lock().turn.set_limits(limits);
    }

    /// Ends all that an account has, and refuses it from now on.
    pub(super) fn revoke(self: &Arc<Self>, account: Account) {
        self.handle(Event::Revoked(account));
    }

    /// Takes a datagram that came from a client: the first `length` bytes of
    /// [`RECEIVED`].
    pub(super) fn datagram(self: &Arc<Self>, source: SocketAddr, packet: &mut Packet, length: usize) {
        if length > MAX_PACKET {
            return;
        }
        let client = Client { transport: Transport::Udp, address: source };
        self.client_sent(client, packet, HEADROOM..HEADROOM + length);
    }

    /// Takes a datagram that has come to an allocation's socket from a peer.
    pub(super) fn receive(&self, id: AllocationId, packet: &mut Packet) {
        let Some(socket) = self.lock().sockets.get(&id).cloned() else { return };
        match socket.recv_from(&mut packet[RECEIVED]) {
            Ok((length, peer)) if length <= MAX_PACKET => {
                self.peer_sent(id, peer, packet, HEADROOM..HEADROOM + length);
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // About an earlier datagram (ICMP); each is told once.
            Err(error) => tracing::debug!(%error, "a datagram did not arrive"),
        }
    }

    fn client_sent(self: &Arc<Self>, client: Client, buffer: &mut [u8], packet: Range<usize>) {
        let mut state = self.lock();
        let forward = state.turn.client_sent(client, buffer, packet, now());
        self.forward(&mut state, forward, buffer);
        self.act(&mut state);
    }

    fn peer_sent(&self, id: AllocationId, peer: SocketAddr, buffer: &mut [u8], packet: Range<usize>) {
        let mut state = self.lock();
        let forward = state.turn.peer_sent(id, peer, buffer, packet, now());
        self.forward(&mut state, forward, buffer);
    }

    fn handle(self: &Arc<Self>, event: Event) {
        let mut state = self.lock();
        state.turn.handle(event, now());
        self.act(&mut state);
    }

    fn forward(&self, state: &mut State, forward: Forward, buffer: &[u8]) {
        match forward {
            Forward::Nothing => {}
            Forward::ToPeer(id, peer, range) => {
                if let Some(socket) = state.sockets.get(&id) {
                    note(socket.send_to(&buffer[range], peer).map(drop));
                }
            }
            Forward::ToClient(client, range) => self.send_to_client(state, client, &buffer[range]),
        }
    }

    fn send_to_client(&self, state: &mut State, client: Client, bytes: &[u8]) {
        match client.transport {
            Transport::Udp => {
                if let Some(socket) = &self.datagrams {
                    note(socket.send_to(bytes, client.address).map(drop));
                }
            }
            Transport::Stream(_) => {
                let queue = state.streams.get(&client);
                if queue.is_some_and(|queue| queue.try_send(bytes.to_vec()).is_err()) {
                    state.stream_full += 1;
                }
            }
        }
    }

    /// Does what the core asks.
    fn act(self: &Arc<Self>, state: &mut State) {
        while let Some(action) = state.turn.poll_action() {
            match action {
                Action::Answer(client, bytes) => self.send_to_client(state, client, &bytes),
                Action::Open(id, place) => {
                    let event = match self.open(state, id, place) {
                        Ok(relayed) => Event::Opened(id, relayed),
                        Err(error) => {
                            tracing::warn!(%error, "no socket for the relay");
                            Event::OpenFailed(id)
                        }
                    };
                    state.turn.handle(event, now());
                }
                Action::Close(id) => drop(state.sockets.remove(&id)),
                // The writer ends when it has written what waits.
                Action::CloseStream(client) => drop(state.streams.remove(&client)),
            }
        }
        let due = state.turn.poll_timeout().map(|(at, _)| at);
        if due != state.due {
            state.due = due;
            // Full: it is about to look.
            let _full = self.wake.try_send(());
        }
    }

    fn open(&self, state: &mut State, id: AllocationId, place: Place) -> std::io::Result<SocketAddr> {
        if state.closed {
            return Err(std::io::Error::other("the broker is ending"));
        }
        let (socket, relayed) = self.binder.bind(place)?;
        state.turn.set_own(self.binder.own());
        self.watched.add(&socket, id)?;
        state.sockets.insert(id, Arc::new(socket));
        Ok(relayed)
    }

    fn stream_number(&self) -> u64 {
        self.next_stream.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A datagram that is not sent is lost, as on any way; repeated at debug only,
/// because a client decides how often.
fn note(sent: std::io::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "a datagram was not relayed");
    }
}
