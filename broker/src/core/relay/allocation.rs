//! One allocation: a relayed address, and what its device did with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ring::hmac;

use super::credentials::Name;
use super::flow::Flow;
use super::limits::{CHANNEL_LASTS, PERMISSION_LASTS, RelayLimits};
use super::message::TransactionId;
use super::turn::Client;

/// Numbers that a channel may have (RFC 8656 section 12; the upper ones by
/// RFC 5766, which `webrtc` and coturn still use).
pub(super) const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x7fff;

#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) client: Client,
    pub(super) name: Name,
    /// Of the request that opened it: the same again is answered alike.
    pub(super) transaction: TransactionId,
    /// Which family its address has.
    pub(super) is_v6: bool,
    /// Where peers reach it; `None` until the shell has a socket.
    pub(super) relayed: Option<SocketAddr>,
    /// When it ends unless refreshed.
    pub(super) expires: Instant,
    /// When it ends even so.
    pub(super) ends: Instant,
    pub(super) flow: Flow,
    /// What its answer still needs, until it is given.
    pub(super) opening: Option<Opening>,
    permissions: BTreeMap<IpAddr, Instant>,
    channels: BTreeMap<u16, Channel>,
    numbers: BTreeMap<SocketAddr, u16>,
}

/// An allocation that waits for its socket.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) lifetime: Duration,
    pub(super) key: hmac::Key,
}

#[derive(Debug, Clone, Copy)]
struct Channel {
    peer: SocketAddr,
    expires: Instant,
}

/// Why a peer was not let in, or got no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are too many already.
    Full,
    /// The number has another peer, or the peer another number.
    Bound,
}

impl Allocation {
    pub(super) fn new(
        client: Client,
        name: Name,
        transaction: TransactionId,
        is_v6: bool,
        (expires, ends): (Instant, Instant),
    ) -> Self {
        Self {
            client,
            name,
            transaction,
            is_v6,
            relayed: None,
            expires,
            ends,
            flow: Flow::default(),
            opening: None,
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// Whether this host's packets come in and may be answered.
    pub(super) fn permits(&self, ip: IpAddr, now: Instant) -> bool {
        self.permissions.get(&ip).is_some_and(|expires| now < *expires)
    }

    /// Lets these hosts in, all or none.
    pub(super) fn permit(
        &mut self,
        ips: impl Iterator<Item = IpAddr> + Clone,
        limits: &RelayLimits,
        now: Instant,
    ) -> Result<(), Refused> {
        self.permissions.retain(|_, expires| now < *expires);
        let new = ips.clone().filter(|ip| !self.permissions.contains_key(ip)).count();
        if self.permissions.len() + new > limits.permissions {
            return Err(Refused::Full);
        }
        self.permissions.extend(ips.map(|ip| (ip, now + PERMISSION_LASTS)));
        Ok(())
    }

    /// Gives a peer a number, or prolongs it, and lets its host in.
    pub(super) fn bind(
        &mut self,
        number: u16,
        peer: SocketAddr,
        limits: &RelayLimits,
        now: Instant,
    ) -> Result<(), Refused> {
        let gone: Vec<u16> =
            self.channels.iter().filter(|(_, c)| now >= c.expires).map(|(number, _)| *number).collect();
        for number in gone {
            if let Some(channel) = self.channels.remove(&number) {
                self.numbers.remove(&channel.peer);
            }
        }
        let is_bound = self.channels.get(&number).is_some_and(|channel| channel.peer != peer)
            || self.numbers.get(&peer).is_some_and(|other| *other != number);
        if is_bound {
            return Err(Refused::Bound);
        }
        if self.channels.len() >= limits.channels && !self.channels.contains_key(&number) {
            return Err(Refused::Full);
        }
        self.permit(std::iter::once(peer.ip()), limits, now)?;
        self.channels.insert(number, Channel { peer, expires: now + CHANNEL_LASTS });
        self.numbers.insert(peer, number);
        Ok(())
    }

    /// The peer that has this number.
    pub(super) fn peer_of(&self, number: u16, now: Instant) -> Option<SocketAddr> {
        self.channels.get(&number).filter(|channel| now < channel.expires).map(|channel| channel.peer)
    }

    /// The number that this peer has.
    pub(super) fn number_of(&self, peer: SocketAddr, now: Instant) -> Option<u16> {
        let number = self.numbers.get(&peer)?;
        self.peer_of(*number, now).map(|_| *number)
    }
}
