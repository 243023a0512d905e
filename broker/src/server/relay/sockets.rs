//! Where relayed sockets are bound, and under which address peers know them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use nix::sys::socket::{setsockopt, sockopt};
use ring::rand::{SecureRandom, SystemRandom};

use super::RelayOptions;
use crate::core::relay::Place;

/// Ports that are tried before an allocation fails: with half of the range
/// taken, one in a million fails.
const PORT_TRIES: u32 = 20;

/// An address of the public internet, to ask the kernel from where it would
/// send there; nothing is sent. One kept for documentation: nobody's.
const SOMEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// No address is usable.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// One from the config can't be one.
    #[error("[relay] addresses has {0}: give at most one IPv4 and one IPv6 address, as peers see them")]
    Unusable(IpAddr),
    /// None was found.
    #[error(
        "the relay finds no address of this machine: give it as [relay] addresses, or restart the broker when there is one"
    )]
    None,
}

/// The ports of relayed sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of ports from 1024 on: write it as 49152-65535");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |text: &str| text.trim().parse().map_err(|_| wrong());
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first < 1024 || range.first > range.last {
            return Err(wrong());
        }
        Ok(range)
    }
}

/// Binds relayed sockets.
#[derive(Debug)]
pub(super) struct Binder {
    spots: Vec<Spot>,
    ports: Option<PortRange>,
}

#[derive(Debug, Clone, Copy)]
struct Spot {
    /// As peers see it.
    public: IpAddr,
    /// Where it is bound: the same, or any, where a router translates it.
    local: IpAddr,
}

impl Binder {
    /// `listening` is where devices reach the broker.
    pub(super) fn new(options: &RelayOptions, listening: Option<SocketAddr>) -> Result<Self, AddressError> {
        let addresses = if options.addresses.is_empty() {
            let found = found(listening.map(|address| address.ip()));
            if found.is_empty() {
                return Err(AddressError::None);
            }
            found
        } else {
            options.addresses.clone()
        };
        let mut spots: Vec<Spot> = Vec::new();
        for public in addresses {
            let again = spots.iter().any(|spot| spot.public.is_ipv4() == public.is_ipv4());
            if again || public.is_unspecified() || public.is_multicast() || public != public.to_canonical() {
                return Err(AddressError::Unusable(public));
            }
            let here = UdpSocket::bind((public, 0)).is_ok();
            let local = if here { public } else { unspecified(public) };
            spots.push(Spot { public, local });
        }
        Ok(Self { spots, ports: options.ports })
    }

    /// Its addresses as peers see them.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.spots.iter().map(|spot| spot.public).collect()
    }

    /// All addresses of this machine now, and those under which it is known.
    pub(super) fn own(&self) -> BTreeSet<IpAddr> {
        let mut own: BTreeSet<IpAddr> = self.addresses().into_iter().collect();
        match nix::ifaddrs::getifaddrs() {
            Ok(interfaces) => own.extend(interfaces.filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
            })),
            Err(error) => tracing::warn!(%error, "this machine's addresses are not known to the relay"),
        }
        own
    }

    /// A socket of this public address, and where peers reach it.
    pub(super) fn bind(&self, place: Place) -> io::Result<(UdpSocket, SocketAddr)> {
        let spot = self.spots.iter().find(|spot| spot.public == place.ip);
        let local = spot.ok_or(io::ErrorKind::AddrNotAvailable)?.local;
        let mut error = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORT_TRIES {
            let socket = match UdpSocket::bind((local, self.port(place.even)?)) {
                Ok(socket) => socket,
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                    error = e;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let port = socket.local_addr()?.port();
            if place.even && port % 2 == 1 {
                continue;
            }
            socket.set_nonblocking(true)?;
            return Ok((socket, SocketAddr::new(place.ip, port)));
        }
        Err(error)
    }

    /// One that nobody guesses (RFC 8656 section 7.2); 0 leaves it to the
    /// kernel, which does the same.
    fn port(&self, even: bool) -> io::Result<u16> {
        let Some(range) = self.ports else { return Ok(0) };
        let mut random = [0; 4];
        SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
        let count = u32::from(range.last - range.first) + 1;
        let port = range.first + (u32::from_le_bytes(random) % count) as u16;
        Ok(if even && port > range.first { port & !1 } else { port })
    }
}

/// Where devices reach the broker; if that is anywhere, from where the kernel
/// sends to the internet.
fn found(listening: Option<IpAddr>) -> Vec<IpAddr> {
    if let Some(ip) = listening.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_unspecified()) {
        return vec![ip];
    }
    let source = |somewhere: IpAddr| {
        let socket = UdpSocket::bind((unspecified(somewhere), 0)).ok()?;
        socket.connect((somewhere, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    };
    SOMEWHERE.into_iter().filter_map(source).collect()
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Lets the kernel hold more for a socket, as far as it allows.
pub(super) fn widen(socket: &UdpSocket, bytes: usize) {
    let set = setsockopt(socket, sockopt::RcvBuf, &bytes)
        .and_then(|()| setsockopt(socket, sockopt::SndBuf, &bytes));
    if let Err(error) = set {
        tracing::debug!(%error, "a socket keeps its buffers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports_are_read() {
        assert_eq!("49152-65535".parse(), Ok(PortRange { first: 49_152, last: 65_535 }));
        for bad in ["", "5000", "80-90", "6000-5000", "1-99999", "a-b"] {
            assert!(bad.parse::<PortRange>().unwrap_err().contains("49152-65535"), "{bad}");
        }
    }

    #[test]
    fn sockets_are_where_the_config_says() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let options = RelayOptions { addresses: vec![local], ..RelayOptions::default() };
        let (_, relayed) =
            Binder::new(&options, None).unwrap().bind(Place { ip: local, even: false }).unwrap();
        assert_eq!(relayed.ip(), local);
        let free = relayed.port();
        let ports = format!("{free}-{free}").parse().ok();
        let (socket, relayed) = Binder::new(&RelayOptions { ports, ..options }, None)
            .unwrap()
            .bind(Place { ip: local, even: false })
            .unwrap();
        assert_eq!((relayed.port(), socket.local_addr().unwrap()), (free, relayed));
    }

    #[test]
    fn a_translated_address_is_bound_anywhere_and_known_as_itself() {
        let public: IpAddr = "203.0.113.7".parse().unwrap();
        let options = RelayOptions { addresses: vec![public], ..RelayOptions::default() };
        let binder = Binder::new(&options, None).unwrap();
        let (socket, relayed) = binder.bind(Place { ip: public, even: true }).unwrap();
        assert_eq!((relayed.ip(), relayed.port() % 2), (public, 0));
        assert!(socket.local_addr().unwrap().ip().is_unspecified());
        assert!(binder.own().contains(&public) && binder.own().contains(&"127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn addresses_that_no_peer_could_use_are_refused() {
        for bad in [&["0.0.0.0"][..], &["224.0.0.1"], &["::ffff:10.0.0.1"], &["10.0.0.1", "10.0.0.2"]] {
            let addresses = bad.iter().map(|ip| ip.parse().unwrap()).collect();
            let options = RelayOptions { addresses, ..RelayOptions::default() };
            assert!(matches!(Binder::new(&options, None), Err(AddressError::Unusable(_))), "{bad:?}");
        }
    }
}
