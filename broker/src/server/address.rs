//! Where a connection really comes from.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address: the peer's, or what a trusted proxy says. Read from
/// the right, since everything left of the first untrusted address was
/// written by that one. Port 0 where the proxy does not tell it.
pub(super) fn client_address(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> SocketAddr {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let is_trusted = |address: SocketAddr| trusted.contains(&address.ip());
    if !is_trusted(peer) {
        return peer;
    }
    let values: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let mut client = peer;
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        let Some(address) = parse(hop.trim()) else {
            break;
        };
        client = address;
        if !is_trusted(client) {
            break;
        }
    }
    client
}

fn parse(hop: &str) -> Option<SocketAddr> {
    let address: SocketAddr = hop.parse().ok().or_else(|| {
        let ip = hop.trim_matches(['[', ']']).parse().ok()?;
        Some(SocketAddr::new(ip, 0))
    })?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted: Vec<IpAddr> = trusted.iter().map(|ip| ip.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_header_counts_only_from_a_trusted_proxy() {
        let spoofed = ["198.51.100.1"];
        assert_eq!(client("192.0.2.1:5", &spoofed, &[]), "192.0.2.1:5");
        assert_eq!(client("192.0.2.1:5", &spoofed, &["127.0.0.1"]), "192.0.2.1:5");
        assert_eq!(client("127.0.0.1:5", &spoofed, &["127.0.0.1"]), "198.51.100.1:0");
        assert_eq!(client("127.0.0.1:5", &[], &["127.0.0.1"]), "127.0.0.1:5");
        assert_eq!(client("[::ffff:127.0.0.1]:5", &spoofed, &["127.0.0.1"]), "198.51.100.1:0");
    }

    #[test]
    fn what_a_client_wrote_itself_does_not_count() {
        let trusted = ["127.0.0.1", "10.0.0.2"];
        let both = ["6.6.6.6, 198.51.100.1", "10.0.0.2"];
        assert_eq!(client("127.0.0.1:5", &both, &trusted), "198.51.100.1:0");
        assert_eq!(client("127.0.0.1:5", &["6.6.6.6, rubbish"], &trusted), "127.0.0.1:5");
        let port = ["[2001:db8::1]:4000"];
        assert_eq!(client("127.0.0.1:5", &port, &trusted), "[2001:db8::1]:4000");
        assert_eq!(client("127.0.0.1:5", &["2001:db8::1"], &trusted), "[2001:db8::1]:0");
    }
}
