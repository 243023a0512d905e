//! A relay with a virtual clock, and clients that speak TURN to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ring::hmac;

use crate::core::Now;
use crate::core::relay::credentials::{Account, Holder, Name, REALM, Secret, username};
use crate::core::relay::limits::RelayLimits;
use crate::core::relay::message::{Class, Method, Writer, attribute as a};
use crate::core::relay::turn::TurnSettings;
use crate::core::relay::{
    Action, AllocationId, Client, Event, Forward, HEADROOM, PeerPolicy, TAILROOM, Transport, Turn,
};

pub(super) const UNIX: u64 = 1_795_305_600;
/// Where this relay's sockets are.
pub(super) const RELAY: &str = "203.0.113.7";
pub(super) const RELAY_V6: &str = "2001:db8::7";
pub(super) const PEER: &str = "198.51.100.1:4000";

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn secret() -> Secret {
    Secret::new(b"a secret for tests")
}

pub(super) fn udp(text: &str) -> Client {
    Client { transport: Transport::Udp, address: address(text) }
}

pub(super) fn stream(number: u64) -> Client {
    Client { transport: Transport::Stream(number), address: address("192.0.2.1:999") }
}

/// What a client was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) class: u16,
    pub(super) method: u16,
    pub(super) attributes: BTreeMap<u16, Vec<u8>>,
    pub(super) bytes: Vec<u8>,
}

impl Reply {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
        assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len() - 20);
        let mut attributes = BTreeMap::new();
        let mut rest = &bytes[20..];
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            attributes.insert(u16::from_be_bytes([rest[0], rest[1]]), rest[4..4 + length].to_vec());
            rest = &rest[4 + length.next_multiple_of(4)..];
        }
        Self { class: kind & 0x110, method: kind & !0x110, attributes, bytes: bytes.to_vec() }
    }

    pub(super) fn is_success(&self) -> bool {
        self.class == Class::Success as u16
    }

    /// 0 for a success.
    pub(super) fn code(&self) -> u16 {
        self.attributes.get(&a::ERROR_CODE).map_or(0, |v| u16::from(v[2]) * 100 + u16::from(v[3]))
    }

    pub(super) fn address(&self, kind: u16) -> SocketAddr {
        let value = &self.attributes[&kind];
        let mask: Vec<u8> = self.bytes[4..20].to_vec();
        let port = u16::from_be_bytes([value[2] ^ mask[0], value[3] ^ mask[1]]);
        let plain: Vec<u8> = value[4..].iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
        let ip = match <[u8; 4]>::try_from(&plain[..]) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(&plain[..]).unwrap()),
        };
        SocketAddr::new(ip, port)
    }

    pub(super) fn lifetime(&self) -> u32 {
        u32::from_be_bytes(self.attributes[&a::LIFETIME][..].try_into().unwrap())
    }
}

/// What a client knows of itself.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) username: String,
    pub(super) key: hmac::Key,
}

pub(super) fn user_of(account: u64, holder: u64, expires: u64) -> User {
    let name = Name { account: Account(account), holder: Holder(holder) };
    let username = username(name, expires);
    let key = secret().integrity_key(&username);
    User { username, key }
}

pub(super) fn user(number: u64) -> User {
    user_of(number, number, UNIX + 7200)
}

pub(super) struct World {
    pub(super) turn: Turn,
    start: Instant,
    pub(super) passed: Duration,
    pub(super) open: BTreeMap<AllocationId, SocketAddr>,
    pub(super) closed_streams: Vec<Client>,
    pub(super) sockets_left: usize,
    transaction: u64,
    nonces: BTreeMap<Client, Vec<u8>>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(RelayLimits::default(), PeerPolicy::default())
    }

    pub(super) fn with(limits: RelayLimits, policy: PeerPolicy) -> Self {
        let own = [RELAY.parse().unwrap(), RELAY_V6.parse().unwrap()];
        let policy = PeerPolicy { own: own.into(), ..policy };
        let settings = TurnSettings { limits, policy, addresses: own.to_vec() };
        let start = Instant::now();
        Self {
            turn: Turn::new(settings, secret(), &[7; 32], Now { instant: start, unix: UNIX }),
            start,
            passed: Duration::ZERO,
            open: BTreeMap::new(),
            closed_streams: Vec::new(),
            sockets_left: usize::MAX,
            transaction: 0,
            nonces: BTreeMap::new(),
        }
    }

    pub(super) fn now(&self) -> Now {
        Now { instant: self.start + self.passed, unix: UNIX + self.passed.as_secs() }
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn pass(&mut self, seconds: u64) {
        let until = self.passed + Duration::from_secs(seconds);
        while let Some((at, why)) = self.turn.poll_timeout()
            && at <= self.start + until
        {
            self.passed = at - self.start;
            self.turn.handle(Event::Timeout, self.now());
            let _ = self.act();
            let next = self.turn.poll_timeout();
            assert!(next.is_none_or(|(next, _)| next > at), "stuck at a deadline: {why}");
        }
        self.passed = until;
    }

    pub(super) fn event(&mut self, event: Event) -> Vec<(Client, Reply)> {
        self.turn.handle(event, self.now());
        self.act()
    }

    /// Does what the relay asks; gives what clients are told.
    fn act(&mut self) -> Vec<(Client, Reply)> {
        let mut replies = Vec::new();
        while let Some(action) = self.turn.poll_action() {
            match action {
                Action::Answer(client, bytes) => replies.push((client, Reply::read(&bytes))),
                Action::Open(id, _) if self.sockets_left == 0 => {
                    self.turn.handle(Event::OpenFailed(id), self.now());
                }
                Action::Open(id, place) => {
                    self.sockets_left -= 1;
                    let relayed =
                        SocketAddr::new(place.ip, 50_000 + 2 * id.0 as u16 + u16::from(!place.even));
                    assert!(self.open.insert(id, relayed).is_none());
                    self.turn.handle(Event::Opened(id, relayed), self.now());
                }
                // One that never opened is closed, too.
                Action::Close(id) => drop(self.open.remove(&id)),
                Action::CloseStream(client) => self.closed_streams.push(client),
            }
        }
        replies
    }

    /// Sends raw bytes as a client; gives what comes of it.
    pub(super) fn send(&mut self, client: Client, bytes: &[u8]) -> (Option<Sent>, Vec<Reply>) {
        let mut buffer = vec![0xee; HEADROOM + bytes.len() + TAILROOM];
        buffer[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
        let now = self.now();
        let forward = self.turn.client_sent(client, &mut buffer, HEADROOM..HEADROOM + bytes.len(), now);
        let sent = Sent::of(forward, &buffer);
        let replies = self.act();
        assert!(replies.iter().all(|(to, _)| *to == client), "an answer to somebody else: {replies:?}");
        (sent, replies.into_iter().map(|(_, reply)| reply).collect())
    }

    /// A peer's packet comes to an allocation's socket.
    pub(super) fn peer_sends(&mut self, id: AllocationId, peer: &str, data: &[u8]) -> Option<Sent> {
        let mut buffer = vec![0xee; HEADROOM + data.len() + TAILROOM];
        buffer[HEADROOM..HEADROOM + data.len()].copy_from_slice(data);
        let (now, range) = (self.now(), HEADROOM..HEADROOM + data.len());
        let forward = self.turn.peer_sent(id, address(peer), &mut buffer, range, now);
        Sent::of(forward, &buffer)
    }

    pub(super) fn transaction(&mut self) -> [u8; 12] {
        self.transaction += 1;
        let mut transaction = [0x5a; 12];
        transaction[..8].copy_from_slice(&self.transaction.to_be_bytes());
        transaction
    }

    /// A request as a client of the long-term mechanism makes it: asks for a
    /// nonce first, or again where it is stale.
    pub(super) fn ask(
        &mut self,
        client: Client,
        user: &User,
        method: Method,
        fill: impl Fn(Writer) -> Writer,
    ) -> Reply {
        for _ in 0..3 {
            let transaction = self.transaction();
            let mut writer = fill(Writer::new(method, Class::Request, transaction));
            let nonce = self.nonces.get(&client).cloned();
            if let Some(nonce) = &nonce {
                writer = writer
                    .with(a::USERNAME, user.username.as_bytes())
                    .with(a::REALM, REALM.as_bytes())
                    .with(a::NONCE, nonce);
            }
            let bytes = writer.finish(nonce.is_some().then_some(&user.key));
            let (_, mut replies) = self.send(client, &bytes);
            let reply = replies.pop().expect("an answer");
            assert!(replies.is_empty());
            let again = reply.code() == 438 || (reply.code() == 401 && nonce.is_none());
            if !again {
                return reply;
            }
            self.nonces.insert(client, reply.attributes[&a::NONCE].clone());
        }
        panic!("no nonce is good enough");
    }

    pub(super) fn allocate(&mut self, client: Client, user: &User) -> Reply {
        self.ask(client, user, Method::Allocate, |w| w.with(a::REQUESTED_TRANSPORT, &[17, 0, 0, 0]))
    }

    /// An allocation that must succeed: its id and address.
    pub(super) fn allocated(&mut self, client: Client, user: &User) -> (AllocationId, SocketAddr) {
        let reply = self.allocate(client, user);
        assert!(reply.is_success(), "{}", reply.code());
        let relayed = reply.address(a::XOR_RELAYED_ADDRESS);
        let id = self.open.iter().find(|(_, at)| **at == relayed).map(|(id, _)| *id);
        (id.expect("the socket is open"), relayed)
    }

    pub(super) fn permit(&mut self, client: Client, user: &User, peer: &str) -> Reply {
        let peer = address(peer);
        self.ask(client, user, Method::CreatePermission, |w| w.with_address(a::XOR_PEER_ADDRESS, peer))
    }

    pub(super) fn bind(&mut self, client: Client, user: &User, number: u16, peer: &str) -> Reply {
        let peer = address(peer);
        self.ask(client, user, Method::ChannelBind, |w| {
            let [high, low] = number.to_be_bytes();
            w.with(a::CHANNEL_NUMBER, &[high, low, 0, 0]).with_address(a::XOR_PEER_ADDRESS, peer)
        })
    }

    pub(super) fn refresh(&mut self, client: Client, user: &User, lifetime: u32) -> Reply {
        self.ask(client, user, Method::Refresh, |w| w.with(a::LIFETIME, &lifetime.to_be_bytes()))
    }

    /// A Send indication.
    pub(super) fn send_to(&mut self, client: Client, peer: &str, data: &[u8]) -> Option<Sent> {
        let transaction = self.transaction();
        let bytes = Writer::new(Method::Send, Class::Indication, transaction)
            .with_address(a::XOR_PEER_ADDRESS, address(peer))
            .with(a::DATA, data)
            .finish(None);
        let (sent, replies) = self.send(client, &bytes);
        assert!(replies.is_empty());
        sent
    }

    /// ChannelData.
    pub(super) fn send_on(&mut self, client: Client, number: u16, data: &[u8]) -> Option<Sent> {
        let mut bytes = [&number.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat();
        if matches!(client.transport, Transport::Stream(_)) {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        self.send(client, &bytes).0
    }
}

/// Where something went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    ToPeer(AllocationId, SocketAddr, Vec<u8>),
    ToClient(Client, Vec<u8>),
}

impl Sent {
    fn of(forward: Forward, buffer: &[u8]) -> Option<Self> {
        match forward {
            Forward::Nothing => None,
            Forward::ToPeer(id, peer, range) => Some(Self::ToPeer(id, peer, buffer[range].to_vec())),
            Forward::ToClient(client, range) => Some(Self::ToClient(client, buffer[range].to_vec())),
        }
    }

    /// What a client would read as data: from which peer, or on which channel.
    pub(super) fn data(&self) -> (Result<SocketAddr, u16>, Vec<u8>) {
        let Self::ToClient(_, bytes) = self else { panic!("to a peer: {self:?}") };
        let number = u16::from_be_bytes([bytes[0], bytes[1]]);
        if number >= 0x4000 {
            let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            return (Err(number), bytes[4..4 + length].to_vec());
        }
        let reply = Reply::read(bytes);
        assert_eq!((reply.class, reply.method), (Class::Indication as u16, Method::Data as u16));
        (Ok(reply.address(a::XOR_PEER_ADDRESS)), reply.attributes[&a::DATA].clone())
    }
}
