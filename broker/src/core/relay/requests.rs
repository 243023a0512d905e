//! Requests of clients: who asks, and what is answered.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ring::hmac;

use super::allocation::{Allocation, Opening, Refused};
use super::credentials::{Name, REALM, read_username};
use super::limits::{ALLOCATION_LASTS, LIFETIME, LONGEST_LIFETIME};
use super::message::{Class, Message, Method, Writer, attribute};
use super::turn::{Action, AllocationId, Client, Place, Turn, is_channel};
use crate::core::Now;
use crate::core::network::Network;

/// UDP's protocol number, the only transport that is allocated.
const UDP: u8 = 17;

/// Why a request is not done (RFC 8489 section 14.8, RFC 8656 section 19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    BadRequest,
    Unauthorized,
    Forbidden,
    AllocationMismatch,
    StaleNonce,
    FamilyNotSupported,
    WrongCredentials,
    TransportNotSupported,
    PeerFamilyMismatch,
    QuotaReached,
    InsufficientCapacity,
}

impl Answer {
    fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::AllocationMismatch => 437,
            Self::StaleNonce => 438,
            Self::FamilyNotSupported => 440,
            Self::WrongCredentials => 441,
            Self::TransportNotSupported => 442,
            Self::PeerFamilyMismatch => 443,
            Self::QuotaReached => 486,
            Self::InsufficientCapacity => 508,
        }
    }

    /// The attribute, without a reason phrase: short where anyone can ask.
    fn attribute(self) -> [u8; 4] {
        [0, 0, (self.code() / 100) as u8, (self.code() % 100) as u8]
    }
}

/// Somebody with a valid credential.
struct Asker<'a> {
    client: Client,
    name: Name,
    key: hmac::Key,
    message: &'a Message<'a>,
}

impl Turn {
    /// Answers a request, or lets it fall where too many come from there.
    pub(super) fn request(&mut self, client: Client, message: &Message<'_>, now: Now) {
        let network = Network::of_datagram(client.address.ip());
        if !self.requests.take(network, now.instant) {
            self.counters.limit_relay_requests += 1;
            return;
        }
        let (method, transaction) = (message.method, message.transaction);
        if method == Method::Binding {
            // Over a stream; datagrams are answered by the STUN responder.
            let answer = Writer::new(method, Class::Success, transaction)
                .with_address(attribute::XOR_MAPPED_ADDRESS, client.address)
                .finish(None);
            return self.actions.push_back(Action::Answer(client, answer));
        }
        let (name, key) = match self.authenticate(client, message, now) {
            Ok(found) => found,
            Err(answer) => return self.challenge(client, answer, message, now.instant),
        };
        let asker = Asker { client, name, key, message };
        if !message.unknown.is_empty() {
            let list: Vec<u8> = message.unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
            let answer = Writer::new(method, Class::Error, transaction)
                .with(attribute::ERROR_CODE, &[0, 0, 4, 20])
                .with(attribute::UNKNOWN_ATTRIBUTES, &list)
                .finish(Some(&asker.key));
            return self.actions.push_back(Action::Answer(client, answer));
        }
        let done = match method {
            Method::Allocate => self.allocate(&asker, now.instant),
            Method::Refresh => self.refresh(&asker, now.instant),
            Method::CreatePermission => self.create_permission(&asker, now.instant),
            Method::ChannelBind => self.channel_bind(&asker, now.instant),
            Method::Binding | Method::Send | Method::Data => Err(Answer::BadRequest),
        };
        match done {
            Ok(Some(answer)) => self.actions.push_back(Action::Answer(client, answer)),
            // Answered once the socket is there.
            Ok(None) => {}
            Err(answer) => {
                if matches!(answer, Answer::QuotaReached | Answer::InsufficientCapacity) {
                    self.counters.limit_relay_quota += 1;
                }
                let answer = Writer::new(method, Class::Error, transaction)
                    .with(attribute::ERROR_CODE, &answer.attribute())
                    .finish(Some(&asker.key));
                self.actions.push_back(Action::Answer(client, answer));
            }
        }
    }

    /// The long-term mechanism (RFC 8489 section 9.2.4).
    fn authenticate(
        &mut self,
        client: Client,
        message: &Message<'_>,
        now: Now,
    ) -> Result<(Name, hmac::Key), Answer> {
        if !message.has_integrity() {
            return Err(Answer::Unauthorized);
        }
        let (Some(username), Some(_), Some(nonce)) = (message.username, message.realm, message.nonce) else {
            return Err(Answer::BadRequest);
        };
        if !self.nonces.is_fresh(nonce, canonical(client.address), now.instant) {
            return Err(Answer::StaleNonce);
        }
        let refused = |counter: &mut u64| {
            *counter += 1;
            Answer::Unauthorized
        };
        let Some((name, expires)) = read_username(username) else {
            return Err(refused(&mut self.counters.relay_bad_credentials));
        };
        let key = self.secret.integrity_key(username);
        if !message.verify(&key) {
            return Err(refused(&mut self.counters.relay_bad_credentials));
        }
        if self.revoked.contains(&name.account) {
            self.counters.relay_revoked += 1;
            return Err(Answer::Forbidden);
        }
        // What was opened with them may be used on, see `ALLOCATION_LASTS`.
        let goes_on = message.method != Method::Allocate
            && self.of(client).is_some_and(|(_, allocation)| allocation.name == name);
        if now.unix >= expires && !goes_on {
            return Err(refused(&mut self.counters.relay_expired_credentials));
        }
        Ok((name, key))
    }

    /// Answers whoever did not show a valid credential; with no more than 56
    /// bytes, at most 2.8 times what was asked with.
    fn challenge(&mut self, client: Client, answer: Answer, message: &Message<'_>, now: Instant) {
        let mut writer = Writer::new(message.method, Class::Error, message.transaction)
            .with(attribute::ERROR_CODE, &answer.attribute());
        if matches!(answer, Answer::Unauthorized | Answer::StaleNonce) {
            self.counters.relay_challenges += 1;
            let nonce = self.nonces.make(canonical(client.address), now);
            writer = writer.with(attribute::REALM, REALM.as_bytes()).with(attribute::NONCE, nonce.as_bytes());
        }
        self.actions.push_back(Action::Answer(client, writer.finish(None)));
    }

    fn of(&self, client: Client) -> Option<(AllocationId, &Allocation)> {
        let id = *self.clients.get(&client)?;
        Some((id, self.allocations.get(&id)?))
    }

    /// The asker's allocation.
    fn own(&self, asker: &Asker<'_>) -> Result<(AllocationId, &Allocation), Answer> {
        let (id, allocation) = self.of(asker.client).ok_or(Answer::AllocationMismatch)?;
        // Newer credentials of the same holder are as good as the first ones.
        if allocation.name == asker.name { Ok((id, allocation)) } else { Err(Answer::WrongCredentials) }
    }

    fn allocate(&mut self, asker: &Asker<'_>, now: Instant) -> Result<Option<Vec<u8>>, Answer> {
        let Asker { client, name, message, .. } = asker;
        if let Some((id, existing)) = self.of(*client) {
            if existing.name != *name {
                return Err(Answer::AllocationMismatch);
            }
            if existing.transaction == message.transaction {
                // The answer was lost, or is about to be sent.
                return Ok(self.allocation_answer(id, &asker.key, now));
            }
            // The device forgot it, as one that was restarted does: a port
            // that is used again must not wait for the old one to expire.
            self.release(id);
            self.watch_stream(*client, now);
        }
        match message.transport {
            Some(UDP) => {}
            Some(_) => return Err(Answer::TransportNotSupported),
            None => return Err(Answer::BadRequest),
        }
        // A pair of ports is for protocols of another time.
        if message.even_port == Some(true) {
            return Err(Answer::InsufficientCapacity);
        }
        let is_v6 = match message.family {
            None | Some(1) => false,
            Some(2) => true,
            Some(_) => return Err(Answer::FamilyNotSupported),
        };
        let ip = self.settings.addresses.iter().copied().find(|ip| ip.is_ipv6() == is_v6);
        let ip = ip.ok_or(Answer::FamilyNotSupported)?;
        let limits = &self.settings.limits;
        let (of_account, of_holder) = self.held(name.account, name.holder);
        if of_account >= limits.allocations_per_farm || of_holder >= limits.allocations_per_device {
            return Err(Answer::QuotaReached);
        }
        if self.allocations() >= limits.allocations {
            return Err(Answer::InsufficientCapacity);
        }
        let lifetime = lifetime(message.lifetime);
        let times = (now + lifetime, now + ALLOCATION_LASTS);
        let mut allocation = Allocation::new(*client, *name, message.transaction, is_v6, times);
        allocation.opening = Some(Opening { lifetime, key: asker.key.clone() });
        self.begin(allocation, Place { ip, even: message.even_port.is_some() }, now);
        Ok(None)
    }

    /// An allocation has its socket: tells its device.
    pub(super) fn allocated(&mut self, id: AllocationId, now: Instant) {
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        let Some(opening) = allocation.opening.take() else {
            return;
        };
        let client = allocation.client;
        self.expire_at(id, now + opening.lifetime);
        if let Some(answer) = self.allocation_answer(id, &opening.key, now) {
            self.actions.push_back(Action::Answer(client, answer));
        }
    }

    fn allocation_answer(&self, id: AllocationId, key: &hmac::Key, now: Instant) -> Option<Vec<u8>> {
        let allocation = self.allocations.get(&id)?;
        let left = allocation.expires.saturating_duration_since(now).as_secs() as u32;
        let answer = Writer::new(Method::Allocate, Class::Success, allocation.transaction)
            .with_address(attribute::XOR_RELAYED_ADDRESS, allocation.relayed?)
            .with(attribute::LIFETIME, &left.to_be_bytes())
            .with_address(attribute::XOR_MAPPED_ADDRESS, allocation.client.address);
        Some(answer.finish(Some(key)))
    }

    fn refresh(&mut self, asker: &Asker<'_>, now: Instant) -> Result<Option<Vec<u8>>, Answer> {
        let (id, allocation) = self.own(asker)?;
        if asker.message.family.is_some_and(|family| (family == 2) != allocation.is_v6) {
            return Err(Answer::PeerFamilyMismatch);
        }
        let granted = if asker.message.lifetime == Some(0) {
            Duration::ZERO
        } else {
            lifetime(asker.message.lifetime).min(allocation.ends.saturating_duration_since(now))
        };
        if granted.is_zero() {
            self.release(id);
            self.watch_stream(asker.client, now);
        } else {
            self.expire_at(id, now + granted);
        }
        let seconds = granted.as_secs() as u32;
        Ok(Some(success(asker, |writer| writer.with(attribute::LIFETIME, &seconds.to_be_bytes()))))
    }

    fn create_permission(&mut self, asker: &Asker<'_>, now: Instant) -> Result<Option<Vec<u8>>, Answer> {
        let (id, _) = self.own(asker)?;
        let peers = &asker.message.peers;
        if peers.is_empty() {
            return Err(Answer::BadRequest);
        }
        for peer in peers {
            self.check_peer(id, peer.ip(), None)?;
        }
        let limits = &self.settings.limits;
        let allocation = self.allocations.get_mut(&id).ok_or(Answer::AllocationMismatch)?;
        allocation.permit(peers.iter().map(|peer| peer.ip()), limits, now).map_err(refusal)?;
        Ok(Some(success(asker, |writer| writer)))
    }

    fn channel_bind(&mut self, asker: &Asker<'_>, now: Instant) -> Result<Option<Vec<u8>>, Answer> {
        let (id, _) = self.own(asker)?;
        let number = asker.message.channel.filter(|number| is_channel(*number));
        let (Some(number), [peer]) = (number, &asker.message.peers[..]) else {
            return Err(Answer::BadRequest);
        };
        self.check_peer(id, peer.ip(), Some(*peer))?;
        let limits = &self.settings.limits;
        let allocation = self.allocations.get_mut(&id).ok_or(Answer::AllocationMismatch)?;
        allocation.bind(number, *peer, limits, now).map_err(refusal)?;
        Ok(Some(success(asker, |writer| writer)))
    }

    /// Whether an allocation may have this peer. An address of the relay's
    /// own may: which of its ports, is looked at with each packet.
    fn check_peer(&mut self, id: AllocationId, ip: IpAddr, peer: Option<SocketAddr>) -> Result<(), Answer> {
        let is_v6 = self.allocations.get(&id).is_some_and(|allocation| allocation.is_v6);
        // An IPv4 address in IPv6's clothes belongs to no allocation.
        if ip.is_ipv6() != is_v6 || ip != ip.to_canonical() {
            return Err(Answer::PeerFamilyMismatch);
        }
        let policy = &self.settings.policy;
        let allowed = peer.map_or_else(|| policy.allows_host(ip), |peer| policy.allows(peer));
        if allowed || self.is_relayed_host(ip) {
            return Ok(());
        }
        self.counters.relay_peer_refused += 1;
        Err(Answer::Forbidden)
    }

    /// An allocation that got no socket: tells its device.
    pub(super) fn not_allocated(&mut self, allocation: &Allocation) {
        let key = allocation.opening.as_ref().map(|opening| &opening.key);
        let answer = Writer::new(Method::Allocate, Class::Error, allocation.transaction)
            .with(attribute::ERROR_CODE, &Answer::InsufficientCapacity.attribute())
            .finish(key);
        self.actions.push_back(Action::Answer(allocation.client, answer));
    }
}

fn success(asker: &Asker<'_>, fill: impl FnOnce(Writer) -> Writer) -> Vec<u8> {
    let writer = Writer::new(asker.message.method, Class::Success, asker.message.transaction);
    fill(writer).finish(Some(&asker.key))
}

fn refusal(refused: Refused) -> Answer {
    match refused {
        Refused::Full => Answer::InsufficientCapacity,
        Refused::Bound => Answer::BadRequest,
    }
}

/// What is granted of the lifetime that is asked for.
fn lifetime(asked: Option<u32>) -> Duration {
    asked.map_or(LIFETIME, |seconds| Duration::from_secs(seconds.into())).clamp(LIFETIME, LONGEST_LIFETIME)
}

/// As a nonce names a client.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
