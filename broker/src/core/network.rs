//! Networks as limits count them: what one customer typically holds.

use std::net::IpAddr;

/// A block of addresses that is counted as one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(u128);

impl Network {
    /// For connections: one IPv4 address, or an IPv6 /64 (one link, RFC 4291
    /// section 2.5.1, where a host picks as many addresses as it likes).
    pub fn of_client(ip: IpAddr) -> Self {
        Self::masked(ip, 32, 64)
    }

    /// For datagrams with a source that anyone can forge: an IPv4 /24 or an
    /// IPv6 /56, so that a forger can't make the broker answer every address
    /// of a victim's network in turn.
    pub fn of_datagram(ip: IpAddr) -> Self {
        Self::masked(ip, 24, 56)
    }

    fn masked(ip: IpAddr, v4_bits: u32, v6_bits: u32) -> Self {
        let (bits, prefix) = match ip.to_canonical() {
            IpAddr::V4(ip) => (u128::from(ip.to_ipv6_mapped()), 96 + v4_bits),
            IpAddr::V6(ip) => (u128::from(ip), v6_bits),
        };
        Self(bits & (u128::MAX << (128 - prefix)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Network {
        Network::of_client(text.parse().unwrap())
    }

    fn datagram(text: &str) -> Network {
        Network::of_datagram(text.parse().unwrap())
    }

    #[test]
    fn what_one_customer_holds_is_one_network() {
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::2:3:4:5"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(datagram("192.0.2.1"), datagram("192.0.2.200"));
        assert_ne!(datagram("192.0.2.1"), datagram("192.0.3.1"));
        assert_eq!(datagram("2001:db8::1"), datagram("2001:db8:0:ff::1"));
        assert_ne!(client("0.0.0.0"), client("::"));
    }
}
