//! The network of a lab: farm – router – internet – router – phone.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use super::dns::Dns;
use super::link::Link;
use super::namespace::Namespace;
use super::{LabError, Nat, Shape, Topology};

/// The broker's address in the internet (a documentation prefix, RFC 5737).
const BROKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The resolver's.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// The broker's port, TCP and (for STUN) UDP.
const BROKER_PORT: u16 = 8443;
/// The broker's name.
pub(super) const BROKER_NAME: &str = "broker.lab";

/// Tells the labs of this process apart.
static LABS: AtomicU32 = AtomicU32::new(0);

/// One side of the internet: a host behind its router.
struct Side {
    host: Namespace,
    router: Namespace,
    nat: Nat,
    /// The first three bytes of the network at home: `10.1.0`.
    home: &'static str,
    /// The last byte of the host's address there.
    host_byte: u8,
    /// The first three bytes of the provider's network: `198.51.100`.
    outside: &'static str,
    /// The last byte of the router's address there.
    router_byte: u8,
    /// How often its NAT was given other ports.
    renewals: u16,
}

/// Which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Farm,
    Phone,
}

impl End {
    /// The internet's interface towards it.
    pub(super) fn interface(self) -> &'static str {
        match self {
            Self::Farm => "farm",
            Self::Phone => "phone",
        }
    }
}

/// All of it; taken away when dropped.
pub(super) struct Network {
    // First, so that their threads leave the namespaces before those go.
    _dns: Dns,
    _uplink: Option<Link>,
    internet: Namespace,
    farm: Side,
    phone: Side,
}

impl Network {
    /// Lays it out.
    pub(super) fn lay(topology: &Topology) -> Result<Self, LabError> {
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let make = |host: &str| Namespace::make(&Namespace::name_for(lab, host));
        let internet = make("net")?;
        internet.forward()?;
        for address in [BROKER, RESOLVER] {
            internet.ip(&format!("addr add {address}/32 dev lo"))?;
        }
        // What a provider does with addresses that nobody has.
        internet.ip("route add blackhole 10.0.0.0/8")?;
        internet.nft(
            "add table ip faults; add chain ip faults cut; \
             add chain ip faults forward { type filter hook forward priority 0; }; \
             add chain ip faults input { type filter hook input priority 0; }; \
             add chain ip faults output { type filter hook output priority 0; }; \
             add rule ip faults forward jump cut; add rule ip faults input jump cut; \
             add rule ip faults output jump cut",
        )?;
        let side = |end: End, nat, home, outside, shape| -> Result<(Side, Option<Link>), LabError> {
            let (host, router) = match end {
                End::Farm => ("farm", "farmrouter"),
                End::Phone => ("phone", "phonerouter"),
            };
            let side = Side {
                host: make(host)?,
                router: make(router)?,
                nat,
                home,
                host_byte: 2,
                outside,
                router_byte: 2,
                renewals: 0,
            };
            let link = side.lay(&internet, end.interface(), shape)?;
            Ok((side, link))
        };
        let (farm, _) = side(End::Farm, topology.farm, "10.1.0", "198.51.100", None)?;
        let (phone, uplink) = side(End::Phone, topology.phone, "10.2.0", "203.0.113", topology.uplink)?;
        let dns = Dns::start(&internet, SocketAddr::from((RESOLVER, 53)), BROKER_NAME, BROKER)?;
        Ok(Self { _dns: dns, _uplink: uplink, internet, farm, phone })
    }

    /// The host at one end.
    pub(super) fn host(&self, end: End) -> &Namespace {
        &self.side(end).host
    }

    /// The internet, where the broker is.
    pub(super) fn internet(&self) -> &Namespace {
        &self.internet
    }

    /// Where the broker listens.
    pub(super) fn broker(&self) -> SocketAddr {
        SocketAddr::from((BROKER, BROKER_PORT))
    }

    /// The broker's config file: its relay sends to the addresses of this
    /// network, which are no public ones.
    pub(super) fn broker_config(&self) -> String {
        let block = |prefix: &str| format!("\"{prefix}.0/24\"");
        let blocks = [self.farm.outside, self.phone.outside, self.farm.home, self.phone.home].map(block);
        format!("[relay]\nallow_peers = [{}]\n", blocks.join(", "))
    }

    fn side(&self, end: End) -> &Side {
        match end {
            End::Farm => &self.farm,
            End::Phone => &self.phone,
        }
    }

    fn side_mut(&mut self, end: End) -> &mut Side {
        match end {
            End::Farm => &mut self.farm,
            End::Phone => &mut self.phone,
        }
    }

    /// Makes the internet drop what these nftables matches say, and nothing
    /// else; with none it is whole again.
    pub(super) fn drop_packets(&self, matches: &[String]) -> Result<(), LabError> {
        let mut script = "flush chain ip faults cut".to_owned();
        for one in matches {
            script += &format!("; add rule ip faults cut {one} drop");
        }
        self.internet.nft(&script)
    }

    /// Takes the cable out of a host, as a power cut at its switch does.
    pub(super) fn unplug(&self, end: End) -> Result<(), LabError> {
        self.host(end).ip("link set eth0 down")
    }

    /// Puts it back; the host has its address and its route again.
    pub(super) fn plug(&self, end: End) -> Result<(), LabError> {
        let side = self.side(end);
        side.host.ip("link set eth0 up")?;
        side.host.ip(&format!("route replace default via {}.1", side.home))
    }

    /// Gives a host another address, as a new lease does; the old one is gone.
    pub(super) fn change_local_address(&mut self, end: End) -> Result<(), LabError> {
        let side = self.side_mut(end);
        let old = side.host_byte;
        side.host_byte = next(old);
        let (home, new) = (side.home, side.host_byte);
        side.host.ip(&format!("addr del {home}.{old}/24 dev eth0"))?;
        side.host.ip(&format!("addr add {home}.{new}/24 dev eth0"))?;
        side.host.ip(&format!("route replace default via {home}.1"))
    }

    /// Gives a router another public address and new mappings; the host behind
    /// it sees nothing of that.
    pub(super) fn change_public_address(&mut self, end: End) -> Result<(), LabError> {
        let side = self.side_mut(end);
        let old = side.router_byte;
        side.router_byte = next(old);
        let (outside, new) = (side.outside, side.router_byte);
        side.router.ip(&format!("addr del {outside}.{old}/24 dev wan"))?;
        side.router.ip(&format!("addr add {outside}.{new}/24 dev wan"))?;
        side.router.ip(&format!("route replace default via {outside}.1"))?;
        side.router.forget_connections()
    }

    /// A router forgets its mappings, as a reboot does, and gives other ports
    /// from now on.
    pub(super) fn forget_mappings(&mut self, end: End) -> Result<(), LabError> {
        let side = self.side_mut(end);
        side.renewals += 1;
        if side.nat != Nat::Symmetric {
            // A range without `random`: one port for all destinations of a
            // socket, as before, but another one than it has had.
            let first = 20_000 + 2_000 * (side.renewals % 20);
            side.router.nft(&format!(
                "flush chain ip nat post; \
                 add rule ip nat post oifname wan meta l4proto udp masquerade to :{first}-{}; \
                 add rule ip nat post oifname wan masquerade",
                first + 1_999
            ))?;
        }
        side.router.forget_connections()
    }
}

/// The next address of a host or router in its /24, never the gateway's.
fn next(byte: u8) -> u8 {
    if byte >= 250 { 2 } else { byte + 1 }
}

impl Side {
    fn lay(
        &self,
        internet: &Namespace,
        interface: &str,
        shape: Option<Shape>,
    ) -> Result<Option<Link>, LabError> {
        let Self { host, router, home, outside, host_byte, router_byte, .. } = self;
        cable(host, "eth0", router, "lan")?;
        let link = match shape {
            Some(shape) => Some(Link::join((router, "wan"), (internet, interface), shape)?),
            None => {
                cable(router, "wan", internet, interface)?;
                None
            }
        };
        host.ip(&format!("addr add {home}.{host_byte}/24 dev eth0"))?;
        host.ip(&format!("route add default via {home}.1"))?;
        host.etc("resolv.conf", &format!("nameserver {RESOLVER}\n"))?;
        router.ip(&format!("addr add {home}.1/24 dev lan"))?;
        router.ip(&format!("addr add {outside}.{router_byte}/24 dev wan"))?;
        router.ip(&format!("route add default via {outside}.1"))?;
        router.forward()?;
        internet.ip(&format!("addr add {outside}.1/24 dev {interface}"))?;
        if self.nat == Nat::Open {
            internet.ip(&format!("route add {home}.0/24 via {outside}.{router_byte}"))?;
        }
        if let Some(script) = self.rules() {
            router.nft(&script)?;
        }
        Ok(link)
    }

    /// A home router's rules.
    fn rules(&self) -> Option<String> {
        let masquerade = match self.nat {
            Nat::Open => return None,
            Nat::Preserving | Nat::Cone | Nat::NoUdp => "masquerade",
            Nat::Symmetric => "masquerade random,fully-random",
        };
        let mut script = format!(
            "add table ip nat; \
             add chain ip nat post {{ type nat hook postrouting priority 100; }}; \
             add rule ip nat post oifname wan {masquerade}; \
             add table ip guard; \
             add chain ip guard input {{ type filter hook input priority 0; }}; \
             add chain ip guard forward {{ type filter hook forward priority 0; }}"
        );
        // Also towards itself: else an early inbound packet makes an entry that
        // takes the port from the mapping that punching needs.
        for chain in ["input", "forward"] {
            script += &format!("; add rule ip guard {chain} iifname wan ct state established,related accept");
            if self.nat == Nat::Cone {
                script += &format!("; add rule ip guard {chain} iifname wan ct status dnat accept");
            }
            script += &format!("; add rule ip guard {chain} iifname wan drop");
        }
        if self.nat == Nat::NoUdp {
            // In silence, which is what takes longest to find out.
            script += "; add rule ip guard forward iifname lan udp dport != 53 drop";
        }
        if self.nat == Nat::Cone {
            script += &format!(
                "; add chain ip nat pre {{ type nat hook prerouting priority -100; }}; \
                 add rule ip nat pre iifname wan meta l4proto udp dnat to {}.{}",
                self.home, self.host_byte
            );
        }
        Some(script)
    }
}

/// A cable between two namespaces, both ends up.
fn cable(one: &Namespace, first: &str, other: &Namespace, second: &str) -> Result<(), LabError> {
    one.ip(&format!("link add {first} type veth peer name {second} netns {}", other.name()))?;
    one.ip(&format!("link set {first} up"))?;
    other.ip(&format!("link set {second} up"))
}
