//! The TURN server: clients, their allocations, and what goes through.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use super::allocation::{Allocation, CHANNELS};
use super::credentials::{Account, Holder, Secret};
use super::flow::{Bandwidth, Flow};
use super::limits::{OPEN_WITHIN, RelayLimits, STREAM_WITHOUT_ALLOCATION};
use super::message::{self, Class, HEADER, Message, Method, SHORT_HEADER};
use super::nonce::Nonces;
use super::policy::PeerPolicy;
use crate::core::Now;
use crate::core::bucket::Buckets;
use crate::core::counters::RelayCounters;
use crate::core::network::Network;

/// Room that a packet needs before it: the head of a Data indication with an
/// IPv6 peer.
pub const HEADROOM: usize = HEADER + SHORT_HEADER + 20 + SHORT_HEADER;

/// Room that a packet needs behind it: padding.
pub const TAILROOM: usize = 3;

/// How a client speaks with the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// By datagrams.
    Udp,
    /// Over a TCP or TLS connection, numbered by the shell, never reused.
    Stream(u64),
}

/// Whom the relay serves: one end of what RFC 8656 calls a 5-tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client {
    /// How.
    pub transport: Transport,
    /// From where, as the socket gives it.
    pub address: SocketAddr,
}

impl Client {
    fn is_stream(self) -> bool {
        matches!(self.transport, Transport::Stream(_))
    }
}

/// One allocation, never reused within a run of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(pub u64);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A TCP or TLS connection turned out to speak TURN.
    StreamOpened(Client),
    /// It ended.
    StreamClosed(Client),
    /// An [`Action::Open`] has a socket; peers reach it here.
    Opened(AllocationId, SocketAddr),
    /// An [`Action::Open`] has none.
    OpenFailed(AllocationId),
    /// The farm of this account was revoked.
    Revoked(Account),
    /// Time went by.
    Timeout,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this to a client.
    Answer(Client, Vec<u8>),
    /// Bind a UDP socket; then [`Event::Opened`] or [`Event::OpenFailed`].
    Open(AllocationId, Place),
    /// Close an allocation's socket.
    Close(AllocationId),
    /// Close a client's connection, once what was sent is written.
    CloseStream(Client),
}

/// Where a relayed socket is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// At this address.
    pub ip: IpAddr,
    /// At an even port, else at any.
    pub even: bool,
}

/// Where what came in goes on to. Ranges are within the caller's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Forward {
    /// Nowhere; there may be actions.
    Nothing,
    /// To a peer, from an allocation's socket.
    ToPeer(AllocationId, SocketAddr, Range<usize>),
    /// To a client.
    ToClient(Client, Range<usize>),
}

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct TurnSettings {
    /// The limits.
    pub limits: RelayLimits,
    /// To whom is sent.
    pub policy: PeerPolicy,
    /// The addresses of relayed sockets as peers see them, at most one of
    /// each family.
    pub addresses: Vec<IpAddr>,
}

/// What one account used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Allocations that are open.
    pub allocations: usize,
    /// Bytes relayed since the start, both directions, without TURN's own.
    pub bytes: u64,
    flow: Flow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Allocation(AllocationId),
    Stream(Client),
}

/// The relay without its I/O. Maps with a hash are looked up in only.
#[derive(Debug)]
pub struct Turn {
    pub(super) settings: TurnSettings,
    pub(super) secret: Secret,
    pub(super) nonces: Nonces,
    pub(super) clients: HashMap<Client, AllocationId>,
    pub(super) allocations: HashMap<AllocationId, Allocation>,
    relayed: HashMap<SocketAddr, AllocationId>,
    accounts: BTreeMap<Account, Usage>,
    holders: BTreeMap<Holder, usize>,
    pub(super) revoked: BTreeSet<Account>,
    /// Connections without an allocation, with their deadlines.
    streams: HashMap<Client, Instant>,
    timers: BTreeSet<(Instant, Timer)>,
    total: Flow,
    pub(super) requests: Buckets<Network>,
    pub(super) counters: RelayCounters,
    pub(super) actions: VecDeque<Action>,
    next: u64,
    /// Counts Data indications, whose transactions nobody answers.
    indications: u64,
}

impl Turn {
    /// A relay without allocations. `seed` is fresh randomness, for nonces.
    pub fn new(settings: TurnSettings, secret: Secret, seed: &[u8; 32], now: Now) -> Self {
        let requests = Buckets::new(settings.limits.requests, settings.limits.networks);
        Self {
            settings,
            secret,
            nonces: Nonces::new(seed, now.instant),
            clients: HashMap::new(),
            allocations: HashMap::new(),
            relayed: HashMap::new(),
            accounts: BTreeMap::new(),
            holders: BTreeMap::new(),
            revoked: BTreeSet::new(),
            streams: HashMap::new(),
            timers: BTreeSet::new(),
            total: Flow::default(),
            requests,
            counters: RelayCounters::default(),
            actions: VecDeque::new(),
            next: 1,
            indications: 0,
        }
    }

    /// Takes in what happened. `now` must not go back.
    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::StreamOpened(client) => self.watch_stream(client, now.instant),
            Event::StreamClosed(client) => {
                self.unwatch_stream(client);
                if let Some(id) = self.clients.get(&client).copied() {
                    self.release(id);
                }
            }
            Event::Opened(id, relayed) => self.opened(id, relayed, now.instant),
            Event::OpenFailed(id) => self.open_failed(id, now.instant),
            Event::Revoked(account) => self.revoke(account, now.instant),
            Event::Timeout => self.run_due(now.instant),
        }
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Timeout`] is due, and for what.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.first().map(|(at, timer)| match timer {
            Timer::Allocation(_) => (*at, "an allocation expires"),
            Timer::Stream(_) => (*at, "a connection has no allocation"),
        })
    }

    /// Takes a packet from a client, or a frame of its stream: the bytes
    /// `packet` of `buffer`, with [`HEADROOM`] before and [`TAILROOM`] behind.
    pub fn client_sent(
        &mut self,
        client: Client,
        buffer: &mut [u8],
        packet: Range<usize>,
        now: Now,
    ) -> Forward {
        let bytes = &buffer[packet.clone()];
        let sent = match bytes.first().map(|first| first >> 6) {
            Some(0) => {
                let Some(message) = Message::read(bytes) else {
                    self.malformed(client);
                    return Forward::Nothing;
                };
                match (message.class, message.method) {
                    (Class::Request, _) => {
                        self.request(client, &message, now);
                        None
                    }
                    (Class::Indication, Method::Send) if message.unknown.is_empty() => {
                        message.peers.first().copied().zip(message.data)
                    }
                    // A keepalive, or somebody's idea of an answer.
                    _ => None,
                }
                .map(|(peer, data)| (self.clients.get(&client).copied(), peer, data))
                .and_then(|(id, peer, data)| Some((self.counted(id)?, peer, data)))
            }
            Some(1) => {
                let sent = message::read_channel(bytes).and_then(|(number, data)| {
                    let id = *self.clients.get(&client)?;
                    let peer = self.allocations.get(&id)?.peer_of(number, now.instant)?;
                    Some((id, peer, data))
                });
                self.counted(sent)
            }
            _ => {
                self.malformed(client);
                None
            }
        };
        let Some((id, peer, data)) = sent else {
            return Forward::Nothing;
        };
        let data = packet.start + data.start..packet.start + data.end;
        self.send_to_peer(id, peer, buffer, data, now.instant)
    }

    /// Takes a packet from a peer, which came to an allocation's socket. The
    /// buffer as with [`Turn::client_sent`].
    pub fn peer_sent(
        &mut self,
        id: AllocationId,
        peer: SocketAddr,
        buffer: &mut [u8],
        packet: Range<usize>,
        now: Now,
    ) -> Forward {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        self.send_to_client(id, peer, buffer, packet, now.instant)
    }

    /// Takes the addresses of this machine, which may change while it runs.
    pub fn set_own(&mut self, own: BTreeSet<IpAddr>) {
        self.settings.policy.own = own;
    }

    /// Takes other limits, but for the rate of requests and how many networks
    /// are remembered for it.
    pub fn set_limits(&mut self, limits: RelayLimits) {
        self.settings.limits = limits;
    }

    /// What happened so far.
    pub fn counters(&self) -> RelayCounters {
        self.counters
    }

    /// How many allocations are open.
    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }

    /// Whether this client has one.
    pub fn has_allocation(&self, client: Client) -> bool {
        self.clients.contains_key(&client)
    }

    /// What an account used.
    pub fn usage(&self, account: Account) -> Usage {
        self.accounts.get(&account).copied().unwrap_or_default()
    }

    /// What all used, by account.
    pub fn usages(&self) -> impl Iterator<Item = (Account, Usage)> {
        self.accounts.iter().map(|(account, usage)| (*account, *usage))
    }

    #[cfg(test)]
    pub(super) fn requests_remembered(&self) -> usize {
        self.requests.len()
    }

    fn send_to_peer(
        &mut self,
        id: AllocationId,
        peer: SocketAddr,
        buffer: &mut [u8],
        data: Range<usize>,
        now: Instant,
    ) -> Forward {
        let Some(allocation) = self.allocations.get(&id) else {
            return Forward::Nothing;
        };
        let Some(own) = allocation.relayed.filter(|_| allocation.permits(peer.ip(), now)) else {
            self.counters.relay_not_permitted += 1;
            return Forward::Nothing;
        };
        // Another allocation of this relay: handed over here, so that it works
        // whatever the policy and the machine's routes say of our own address.
        let within = self.relayed.get(&peer).copied();
        if within.is_none() && !self.settings.policy.allows(peer) {
            self.counters.relay_peer_refused += 1;
            return Forward::Nothing;
        }
        if !self.meter(id, data.len() as u64, now) {
            return Forward::Nothing;
        }
        match within {
            Some(other) => self.send_to_client(other, own, buffer, data, now),
            None => Forward::ToPeer(id, peer, data),
        }
    }

    fn send_to_client(
        &mut self,
        id: AllocationId,
        peer: SocketAddr,
        buffer: &mut [u8],
        data: Range<usize>,
        now: Instant,
    ) -> Forward {
        let Some(allocation) = self.allocations.get(&id) else {
            return Forward::Nothing;
        };
        if !allocation.permits(peer.ip(), now) {
            self.counters.relay_not_permitted += 1;
            return Forward::Nothing;
        }
        let (client, number) = (allocation.client, allocation.number_of(peer, now));
        if !self.meter(id, data.len() as u64, now) {
            return Forward::Nothing;
        }
        let range = match number {
            Some(number) => message::frame_channel(buffer, data, number, client.is_stream()),
            None => {
                self.indications += 1;
                let mut transaction = [0; 12];
                transaction[4..].copy_from_slice(&self.indications.to_be_bytes());
                message::frame_indication(buffer, data, peer, transaction)
            }
        };
        Forward::ToClient(client, range)
    }

    /// What a client sent, counted where it has no allocation or channel for it.
    fn counted<T>(&mut self, sent: Option<T>) -> Option<T> {
        self.counters.relay_unbound += u64::from(sent.is_none());
        sent
    }

    /// Noise. A stream that has it won't come to its senses.
    fn malformed(&mut self, client: Client) {
        self.counters.relay_malformed += 1;
        if client.is_stream() {
            self.unwatch_stream(client);
            self.actions.push_back(Action::CloseStream(client));
        }
    }

    /// Counts bytes of an allocation, or `false` where one of the three
    /// bandwidths that they need is used up: none is taken from then.
    fn meter(&mut self, id: AllocationId, bytes: u64, now: Instant) -> bool {
        let limits = &self.settings.limits;
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return false;
        };
        let usage = self.accounts.entry(allocation.name.account).or_default();
        // An empty datagram costs a packet as well.
        let cost = bytes.max(1);
        let after = |flow: &Flow, bandwidth: Bandwidth| flow.after(bandwidth, cost, now);
        let Some(own) = after(&allocation.flow, limits.allocation) else {
            self.counters.limit_relay_bandwidth_allocation += 1;
            return false;
        };
        let Some(farm) = after(&usage.flow, limits.farm) else {
            self.counters.limit_relay_bandwidth_farm += 1;
            return false;
        };
        let Some(total) = after(&self.total, limits.total) else {
            self.counters.limit_relay_bandwidth_total += 1;
            return false;
        };
        (allocation.flow, usage.flow, self.total) = (own, farm, total);
        usage.bytes += bytes;
        self.counters.relayed_bytes += bytes;
        self.counters.relayed_packets += 1;
        true
    }

    /// Makes an allocation whose socket the shell is about to open.
    pub(super) fn begin(&mut self, mut allocation: Allocation, place: Place, now: Instant) {
        let id = AllocationId(self.next);
        self.next += 1;
        let (client, name) = (allocation.client, allocation.name);
        self.unwatch_stream(client);
        self.accounts.entry(name.account).or_default().allocations += 1;
        *self.holders.entry(name.holder).or_default() += 1;
        self.timers.insert((now + OPEN_WITHIN, Timer::Allocation(id)));
        self.clients.insert(client, id);
        allocation.expires = now + OPEN_WITHIN;
        self.allocations.insert(id, allocation);
        self.actions.push_back(Action::Open(id, place));
    }

    /// Sets when an allocation ends unless refreshed.
    pub(super) fn expire_at(&mut self, id: AllocationId, at: Instant) {
        if let Some(allocation) = self.allocations.get_mut(&id) {
            self.timers.remove(&(allocation.expires, Timer::Allocation(id)));
            allocation.expires = at;
            self.timers.insert((at, Timer::Allocation(id)));
        }
    }

    /// How many allocations an account and a holder have.
    pub(super) fn held(&self, account: Account, holder: Holder) -> (usize, usize) {
        let of_holder = self.holders.get(&holder).copied().unwrap_or(0);
        (self.usage(account).allocations, of_holder)
    }

    /// Whether this is an address of relayed sockets.
    pub(super) fn is_relayed_host(&self, ip: IpAddr) -> bool {
        self.settings.addresses.contains(&ip)
    }

    /// Ends an allocation.
    pub(super) fn release(&mut self, id: AllocationId) -> Option<Allocation> {
        let allocation = self.allocations.remove(&id)?;
        self.timers.remove(&(allocation.expires, Timer::Allocation(id)));
        self.clients.remove(&allocation.client);
        if let Some(relayed) = allocation.relayed {
            self.relayed.remove(&relayed);
        }
        if let Some(usage) = self.accounts.get_mut(&allocation.name.account) {
            usage.allocations -= 1;
        }
        if let Some(held) = self.holders.get_mut(&allocation.name.holder) {
            *held -= 1;
            if *held == 0 {
                self.holders.remove(&allocation.name.holder);
            }
        }
        self.actions.push_back(Action::Close(id));
        Some(allocation)
    }

    fn opened(&mut self, id: AllocationId, relayed: SocketAddr, now: Instant) {
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        allocation.relayed = Some(relayed);
        self.relayed.insert(relayed, id);
        self.counters.relay_allocations += 1;
        self.allocated(id, now);
    }

    fn open_failed(&mut self, id: AllocationId, now: Instant) {
        self.counters.relay_sockets_failed += 1;
        if let Some(allocation) = self.release(id) {
            self.watch_stream(allocation.client, now);
            self.not_allocated(&allocation);
        }
    }

    fn run_due(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Allocation(id) => {
                    self.counters.relay_expired += 1;
                    if let Some(allocation) = self.release(id) {
                        self.watch_stream(allocation.client, now);
                    }
                }
                Timer::Stream(client) => {
                    self.streams.remove(&client);
                    self.counters.relay_idle_streams += 1;
                    self.actions.push_back(Action::CloseStream(client));
                }
            }
        }
    }

    /// A connection has no allocation, from now on.
    pub(super) fn watch_stream(&mut self, client: Client, now: Instant) {
        if client.is_stream() {
            self.unwatch_stream(client);
            let until = now + STREAM_WITHOUT_ALLOCATION;
            self.streams.insert(client, until);
            self.timers.insert((until, Timer::Stream(client)));
        }
    }

    fn unwatch_stream(&mut self, client: Client) {
        if let Some(until) = self.streams.remove(&client) {
            self.timers.remove(&(until, Timer::Stream(client)));
        }
    }
}

/// Whether a channel may have this number.
pub(super) fn is_channel(number: u16) -> bool {
    CHANNELS.contains(&number)
}
