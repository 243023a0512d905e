//! To whom the relay sends: never into the network that it stands in.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A block of addresses, `IP/PREFIX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    ip: IpAddr,
    prefix: u8,
}

impl Block {
    /// Whether it holds the address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(block), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                (u32::from(block) ^ u32::from(ip)) & mask == 0
            }
            (IpAddr::V6(block), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                (u128::from(block) ^ u128::from(ip)) & mask == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no block of addresses: write it as 10.0.0.0/8 or fd00::/8");
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        if prefix > most {
            return Err(wrong());
        }
        Ok(Self { ip, prefix })
    }
}

/// Which peers a device may have its packets sent to.
#[derive(Debug, Clone, Default)]
pub struct PeerPolicy {
    /// Blocks that are allowed although they are refused otherwise: for labs
    /// and demonstrations.
    pub allowed: Vec<Block>,
    /// The addresses of this machine and those under which it is known.
    pub own: BTreeSet<IpAddr>,
    /// Where this broker listens; refused even within an allowed block.
    pub listening: BTreeSet<SocketAddr>,
}

impl PeerPolicy {
    /// Whether anything may be sent to this host.
    pub fn allows_host(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.allowed.iter().any(|block| block.contains(ip)) || (is_public(ip) && !self.own.contains(&ip))
    }

    /// Whether anything may be sent there.
    pub fn allows(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        peer.port() != 0 && self.allows_host(ip) && !self.is_listening(ip, peer.port())
    }

    /// This broker's own ports, at every address that is this machine's.
    fn is_listening(&self, ip: IpAddr, port: u16) -> bool {
        let is_ours = self.own.contains(&ip) || ip.is_loopback();
        self.listening.iter().any(|at| at.port() == port && (is_ours || at.ip() == ip))
    }
}

/// Whether an address is one of the public internet's hosts (the registries of
/// RFC 6890 and its successors). The blocks kept for documentation count as
/// public: nobody has them, and tests do.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let refused = match a {
        0 | 10 | 127 => true,
        // Shared by carriers (RFC 6598).
        100 => (64..128).contains(&b),
        169 => b == 254,
        172 => (16..32).contains(&b),
        192 => b == 168 || (b == 0 && c == 0) || (b == 88 && c == 99),
        // Benchmarks (RFC 2544).
        198 => b == 18 || b == 19,
        // Multicast, reserved, broadcast.
        224.. => true,
        _ => false,
    };
    !refused
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let embedded =
        |high: u16, low: u16| is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match (a, b) {
        // NAT64 (RFC 6052) leads into IPv4, private addresses included.
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => embedded(g, h),
        // Teredo, and what is used inside of one network (ORCHID, benchmarks).
        (0x2001, 0..0x0200) => false,
        // 6to4.
        (0x2002, _) => embedded(b, c),
        // Today's global unicast; all else is loopback, local, multicast or
        // not given to anybody.
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> PeerPolicy {
        PeerPolicy {
            allowed: Vec::new(),
            own: BTreeSet::from(["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]),
            listening: BTreeSet::from(["0.0.0.0:443".parse().unwrap(), "127.0.0.1:9464".parse().unwrap()]),
        }
    }

    #[test]
    fn only_the_public_internet_and_not_ourselves() {
        for good in [
            "198.51.100.1:5",
            "8.8.8.8:53",
            "100.63.0.1:1",
            "172.32.0.1:1",
            "[2a00::1]:9",
            "[64:ff9b::808:808]:1",
        ] {
            assert!(policy().allows(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "0.0.0.0:1",
            "0.1.2.3:1",
            "10.1.2.3:1",
            "100.64.0.1:1",
            "127.0.0.1:22",
            "127.9.9.9:1",
            "169.254.169.254:80",
            "172.16.0.1:1",
            "172.31.255.255:1",
            "192.0.0.8:1",
            "192.88.99.1:1",
            "192.168.0.1:1",
            "198.18.0.1:1",
            "224.0.0.251:5353",
            "239.1.1.1:1",
            "255.255.255.255:1",
            "8.8.8.8:0",
            "203.0.113.7:9999",
            "203.0.113.7:443",
            "[::]:1",
            "[::1]:1",
            "[::ffff:10.0.0.1]:1",
            "[::ffff:127.0.0.1]:1",
            "[::10.0.0.1]:1",
            "[64:ff9b::a00:1]:1",
            "[64:ff9b:1::1]:1",
            "[2001::1]:1",
            "[2001:20::1]:1",
            "[2002:a00:1::1]:1",
            "[fc00::1]:1",
            "[fd12::1]:1",
            "[fe80::1]:1",
            "[fec0::1]:1",
            "[ff02::1]:1",
            "[2001:db8::7]:1",
            "[100::1]:1",
        ] {
            assert!(!policy().allows(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn what_a_lab_allows_leaves_our_own_ports_refused() {
        let mut policy = policy();
        policy.allowed = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        assert!(policy.allows("127.0.0.1:5000".parse().unwrap()));
        assert!(policy.allows("10.1.2.3:1".parse().unwrap()));
        for bad in ["127.0.0.1:443", "127.0.0.2:443", "127.0.0.1:9464", "192.168.0.1:1", "11.0.0.1:0"] {
            assert!(!policy.allows(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn blocks_are_read_with_their_prefix() {
        let block: Block = "fd00::/8".parse().unwrap();
        assert!(block.contains("fd12::1".parse().unwrap()) && !block.contains("fe80::1".parse().unwrap()));
        let all: Block = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("1.2.3.4".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129", "/"] {
            assert!(bad.parse::<Block>().unwrap_err().contains("10.0.0.0/8"), "{bad}");
        }
    }
}
