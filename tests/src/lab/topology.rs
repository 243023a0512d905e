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
}

/// The way that packets are expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// From router to router.
    Direct,
    /// Through a relay.
    Relayed,
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

/// Whether the broker offers a relay. Topologies that need one wait for it.
const RELAY: bool = false;

/// Every topology of the lab, those that wait for the relay included.
pub const TOPOLOGIES: &[Topology] = &[
    topology("nat", Nat::Preserving, Nat::Preserving, Route::Direct),
    Topology { uplink: Some(LTE), ..topology("lte", Nat::Preserving, Nat::Preserving, Route::Direct) },
    topology("open", Nat::Open, Nat::Open, Route::Direct),
    topology("symmetric-open", Nat::Symmetric, Nat::Open, Route::Direct),
    topology("symmetric-cone", Nat::Symmetric, Nat::Cone, Route::Direct),
    topology("symmetric-nat", Nat::Symmetric, Nat::Preserving, Route::Relayed),
    topology("symmetric", Nat::Symmetric, Nat::Symmetric, Route::Relayed),
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

    /// Whether a tunnel can come up in it today.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.route == Route::Direct || RELAY
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
    fn a_symmetric_nat_needs_somebody_open_at_the_other_end() {
        for topology in TOPOLOGIES {
            let closed = |nat| matches!(nat, Nat::Preserving | Nat::Symmetric);
            let symmetric = |nat| nat == Nat::Symmetric;
            let hopeless = (symmetric(topology.farm) && closed(topology.phone))
                || (symmetric(topology.phone) && closed(topology.farm));
            assert_eq!(topology.route == Route::Relayed, hopeless, "{topology}");
            assert_eq!(Topology::named(topology.name), Some(topology));
        }
    }
}
