//! What lies between a farm and a phone, as data.

use std::fmt;

use super::link::{LTE, Shape};

/// What a router does to the addresses of those behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Nothing: it only forwards.
    Open,
    /// The port stays the same, and whoever was spoken to may answer (RFC 4787:
    /// endpoint-independent mapping, address-and-port-dependent filtering).
    Preserving,
    /// The port stays the same, and anybody may answer (endpoint-independent
    /// filtering), as a "full cone" does.
    Cone,
    /// Another random port for each destination (address-and-port-dependent
    /// mapping).
    Symmetric,
    /// Port-preserving, and no UDP passes but questions to the resolver, as
    /// behind a company's firewall.
    NoUdp,
}

impl Nat {
    /// For tables.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::Preserving => "port-preserving",
            Self::Cone => "full cone",
            Self::Symmetric => "symmetric",
            Self::NoUdp => "UDP blocked",
        }
    }
}

/// The way that packets are expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// From router to router.
    Direct,
    /// Through a relay that both ends reach by UDP.
    Relayed,
    /// Through a relay that one end reaches by TCP only.
    RelayedByTcp,
}

impl Route {
    /// The one that two routers leave.
    #[must_use]
    pub fn between(farm: Nat, phone: Nat) -> Self {
        let either = |test: fn(Nat, Nat) -> bool| test(farm, phone) || test(phone, farm);
        if either(|a, _| a == Nat::NoUdp) {
            Self::RelayedByTcp
        } else if either(|a, b| a == Nat::Symmetric && matches!(b, Nat::Preserving | Nat::Symmetric)) {
            // Each mapping has another port than the one that the other end was told.
            Self::Relayed
        } else {
            Self::Direct
        }
    }

    /// For tables.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
            Self::RelayedByTcp => "relayed by TCP",
        }
    }
}

/// Two routers with the internet between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Its name on the command line.
    pub name: &'static str,
    /// The farm's router.
    pub farm: Nat,
    /// The phone's router.
    pub phone: Nat,
    /// The way that is possible.
    pub route: Route,
    /// What the phone's uplink does to packets; the machine's own speed if nothing.
    pub uplink: Option<Shape>,
}

/// Every topology of the lab.
pub const TOPOLOGIES: &[Topology] = &[
    topology("nat", Nat::Preserving, Nat::Preserving, Route::Direct),
    Topology { uplink: Some(LTE), ..topology("lte", Nat::Preserving, Nat::Preserving, Route::Direct) },
    topology("open", Nat::Open, Nat::Open, Route::Direct),
    topology("symmetric-open", Nat::Symmetric, Nat::Open, Route::Direct),
    topology("symmetric-cone", Nat::Symmetric, Nat::Cone, Route::Direct),
    topology("symmetric-nat", Nat::Symmetric, Nat::Preserving, Route::Relayed),
    topology("symmetric", Nat::Symmetric, Nat::Symmetric, Route::Relayed),
    topology("no-udp-nat", Nat::NoUdp, Nat::Preserving, Route::RelayedByTcp),
    topology("no-udp", Nat::NoUdp, Nat::NoUdp, Route::RelayedByTcp),
];

const fn topology(name: &'static str, farm: Nat, phone: Nat, route: Route) -> Topology {
    Topology { name, farm, phone, route, uplink: None }
}

impl Topology {
    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TOPOLOGIES.iter().find(|topology| topology.name == name)
    }

    /// Whether times are judged: the goals are for round trips below 1 ms.
    #[must_use]
    pub fn is_fast(&self) -> bool {
        self.uplink.is_none()
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_what_the_routers_leave() {
        for topology in TOPOLOGIES {
            assert_eq!(topology.route, Route::between(topology.farm, topology.phone), "{topology}");
            assert_eq!(Topology::named(topology.name), Some(topology));
        }
    }
}
