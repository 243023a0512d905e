//! The virtual network: hosts behind routers, and what becomes of a packet.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::rng::Rng;

/// A machine: 0 is the broker's.
pub type HostId = usize;

/// The broker's machine.
pub const BROKER: HostId = 0;

/// From this loss on, packets are sent more than once (`peer::redundancy`).
const LOSSY: f64 = 0.05;

/// So often.
const COPIES: u32 = 3;

/// How a host's router maps addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// None: the host has a public address.
    Open,
    /// It keeps ports: a mapping that it forgot comes back the same.
    Preserving,
    /// A forgotten mapping comes back as another one.
    Random,
}

/// A machine and its way to the internet.
#[derive(Debug, Clone)]
pub struct Host {
    /// It has power.
    pub powered: bool,
    /// Power cuts and broker restarts so far: a connection of a former boot is unknown.
    pub boots: u32,
    /// Its uplink works.
    pub link: bool,
    /// What it sends leaves.
    pub out_ok: bool,
    /// What is sent to it arrives.
    pub in_ok: bool,
    /// Share of packets lost each way.
    pub loss: f64,
    /// One way to the middle of the internet.
    pub latency: Duration,
    /// More of it, at most.
    pub jitter: Duration,
    /// Bytes per second of its uplink.
    pub rate: u64,
    /// Counts its local addresses.
    pub address: u32,
    /// Counts its router's public addresses.
    pub public: u32,
    /// Counts its router's port mappings.
    pub mapping: u32,
    /// Its router.
    pub nat: Nat,
    /// A TCP connection with a vanished mapping is reset instead of left in silence.
    pub resets: bool,
    /// Hosts that it can't reach and that can't reach it.
    pub cut_off: BTreeSet<HostId>,
}

impl Host {
    /// A host on a good network.
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            powered: true,
            boots: 0,
            link: true,
            out_ok: true,
            in_ok: true,
            loss: if rng.chance(0.3) { 0.01 } else { 0.0 },
            latency: rng.ms(1, 60),
            jitter: rng.ms(0, 10),
            rate: rng.range(250_000, 5_000_000),
            address: 0,
            public: 0,
            mapping: 0,
            nat: rng.pick(&[Nat::Preserving, Nat::Preserving, Nat::Random, Nat::Open]),
            resets: rng.chance(0.5),
            cut_off: BTreeSet::new(),
        }
    }

    /// Back to a network without faults; what changed stays changed.
    pub fn heal(&mut self) {
        (self.link, self.out_ok, self.in_ok) = (true, true, true);
        self.loss = self.loss.min(0.01);
        self.latency = self.latency.min(Duration::from_millis(60));
        self.cut_off.clear();
    }
}

/// One end of a connection, as it was when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The machine.
    pub host: HostId,
    boots: u32,
    address: u32,
    public: u32,
    mapping: u32,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after this time.
    Arrives(Duration),
    /// It is lost.
    Lost,
    /// The other end answers that there is no such connection (TCP only).
    Reset,
}

/// All hosts.
#[derive(Debug, Default)]
pub struct Net {
    /// By [`HostId`].
    pub hosts: Vec<Host>,
    /// Both ends of a carrier send their packets more than once where many are
    /// lost, as the product's own do; a browser does not.
    pub repeats: bool,
}

impl Net {
    /// A new endpoint on a host.
    pub fn endpoint(&self, host: HostId) -> Endpoint {
        let h = &self.hosts[host];
        Endpoint { host, boots: h.boots, address: h.address, public: h.public, mapping: h.mapping }
    }

    /// The endpoint's machine lost power or its process died since.
    pub fn is_gone(&self, end: &Endpoint) -> bool {
        let host = &self.hosts[end.host];
        !host.powered || host.boots != end.boots
    }

    /// The endpoint's local address is no longer the host's.
    pub fn is_stranded(&self, end: &Endpoint) -> bool {
        let host = &self.hosts[end.host];
        host.address != end.address || !host.link
    }

    /// The public address of a host, as a STUN server sees it.
    pub fn reflexive(&self, host: HostId) -> SocketAddr {
        let h = &self.hosts[host];
        let ip = Ipv4Addr::new(203, h.public as u8, (h.public >> 8) as u8, host as u8 + 1);
        SocketAddr::V4(SocketAddrV4::new(ip, 20_000 + (h.mapping % 40_000) as u16))
    }

    /// Whether a packet could pass, apart from chance.
    pub fn connects(&self, from: &Endpoint, to: &Endpoint) -> bool {
        self.verdict(from, to) == Verdict::Passes
    }

    /// Whether packets pass in both directions, apart from chance.
    pub fn connects_both_ways(&self, a: &Endpoint, b: &Endpoint) -> bool {
        self.connects(a, b) && self.connects(b, a)
    }

    /// What becomes of one packet that is sent now. `tcp`: the other end would reset.
    pub fn fate(&self, from: &Endpoint, to: &Endpoint, tcp: bool, rng: &mut Rng) -> Fate {
        let (a, b) = (&self.hosts[from.host], &self.hosts[to.host]);
        match self.verdict(from, to) {
            Verdict::Stopped => Fate::Lost,
            Verdict::Unknown if tcp && (a.resets || b.resets) => Fate::Reset,
            Verdict::Unknown => Fate::Lost,
            Verdict::Passes => {
                let times = if tcp { 1 } else { self.times(from, to) };
                let lost = (0..times).all(|_| rng.chance(a.loss) || rng.chance(b.loss));
                if lost { Fate::Lost } else { Fate::Arrives(self.delay(from.host, to.host, rng)) }
            }
        }
    }

    /// How often a carrier's packet is sent: what the engine's sockets do is
    /// simulated without the second that they take to notice.
    pub fn times(&self, from: &Endpoint, to: &Endpoint) -> u32 {
        let loss = self.hosts[from.host].loss.max(self.hosts[to.host].loss);
        if self.repeats && loss >= LOSSY { COPIES } else { 1 }
    }

    /// How long a packet takes.
    pub fn delay(&self, from: HostId, to: HostId, rng: &mut Rng) -> Duration {
        let (a, b) = (&self.hosts[from], &self.hosts[to]);
        a.latency + b.latency + rng.between(Duration::ZERO, a.jitter + b.jitter)
    }

    fn verdict(&self, from: &Endpoint, to: &Endpoint) -> Verdict {
        let (a, b) = (&self.hosts[from.host], &self.hosts[to.host]);
        let stopped = self.is_gone(from)
            || a.address != from.address
            || !(a.link && a.out_ok && b.powered && b.link && b.in_ok)
            || a.cut_off.contains(&to.host)
            || b.cut_off.contains(&from.host)
            // To an address or mapping that is no longer there.
            || (b.address, b.public, b.mapping) != (to.address, to.public, to.mapping);
        if stopped {
            Verdict::Stopped
        } else if b.boots != to.boots || (a.public, a.mapping) != (from.public, from.mapping) {
            // It arrives, but nobody there knows this connection.
            Verdict::Unknown
        } else {
            Verdict::Passes
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passes,
    Unknown,
    Stopped,
}
