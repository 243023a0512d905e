//! A broker's URL.

use std::fmt;
use std::str::FromStr;

/// Where a broker is, from a `wss://` or `ws://` URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BrokerAddress {
    /// Whether TLS is used.
    pub secure: bool,
    /// Host name or address, lower case, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A URL that is not a broker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "broker URL {url:?}: {problem}; it looks like wss://broker.example.org or wss://broker.example.org:8443"
)]
pub struct AddressError {
    url: String,
    problem: &'static str,
}

impl BrokerAddress {
    /// Host and, where it is not the scheme's own, port: what the device signs
    /// as the broker's name, and the HTTP `Host`.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl FromStr for BrokerAddress {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Self, AddressError> {
        let fail = |problem| AddressError { url: url.chars().take(200).collect(), problem };
        let (secure, rest) = if let Some(rest) = url.strip_prefix("wss://") {
            (true, rest)
        } else if let Some(rest) = url.strip_prefix("ws://") {
            (false, rest)
        } else {
            return Err(fail("it must begin with wss:// (or ws:// in a lab)"));
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@', ' ']) {
            return Err(fail("only a host and a port may follow the scheme"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, tail) =
                    bracketed.split_once(']').ok_or_else(|| fail("a bracket is not closed"))?;
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(fail("brackets are for IPv6 addresses"));
                }
                (host, tail.strip_prefix(':').or((!tail.is_empty()).then_some("bad")))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() || host.len() > 253 {
            return Err(fail("the host is missing or too long"));
        }
        let number = match port {
            Some(text) => text
                .parse()
                .ok()
                .filter(|p| *p != 0)
                .ok_or_else(|| fail("the port is not a number from 1 to 65535"))?,
            None => default_port(secure),
        };
        Ok(Self { secure, host: host.to_ascii_lowercase(), port: number })
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Most brokers in one list: an invitation with all of them still fits a QR
/// code that a phone reads from a terminal.
pub const MAX_BROKERS: usize = 8;

/// The brokers of one cluster, in the order in which they are tried; written
/// as one URL, or as several with commas between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Brokers(Vec<BrokerAddress>);

impl Brokers {
    /// `None` for none, or more than [`MAX_BROKERS`].
    pub fn new(brokers: Vec<BrokerAddress>) -> Option<Self> {
        (1..=MAX_BROKERS).contains(&brokers.len()).then_some(Self(brokers))
    }

    /// The first one.
    pub fn first(&self) -> &BrokerAddress {
        &self.0[0]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &BrokerAddress> {
        self.0.iter()
    }
}

impl From<BrokerAddress> for Brokers {
    fn from(broker: BrokerAddress) -> Self {
        Self(vec![broker])
    }
}

impl FromStr for Brokers {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let brokers = text.split(',').map(|url| url.trim().parse()).collect::<Result<Vec<_>, _>>()?;
        let fail = || AddressError { url: text.chars().take(200).collect(), problem: "too many brokers" };
        Self::new(brokers).ok_or_else(fail)
    }
}

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, broker) in self.0.iter().enumerate() {
            write!(f, "{}{broker}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_brokers_round_trips_and_is_bounded() {
        let one: Brokers = "wss://b.example.org".parse().unwrap();
        assert_eq!(one.iter().count(), 1);
        let two: Brokers = "wss://b1.example.org, ws://127.0.0.1:9000".parse().unwrap();
        assert_eq!(two.to_string(), "wss://b1.example.org,ws://127.0.0.1:9000");
        assert_eq!(two.to_string().parse::<Brokers>().unwrap(), two);
        assert_eq!(two.first().host, "b1.example.org");
        for bad in ["", ",", "wss://a,", "wss://a,https://b"] {
            assert!(bad.parse::<Brokers>().is_err(), "{bad}");
        }
        let many = ["wss://b.example.org"; MAX_BROKERS + 1].join(",");
        assert!(many.parse::<Brokers>().unwrap_err().to_string().contains("too many"));
    }

    #[test]
    fn urls_are_read() {
        for (url, host, port, authority) in [
            ("wss://Broker.example.org", "broker.example.org", 443, "broker.example.org"),
            ("wss://b.example.org:8443/", "b.example.org", 8443, "b.example.org:8443"),
            ("ws://127.0.0.1:9000", "127.0.0.1", 9000, "127.0.0.1:9000"),
            ("ws://[::1]:9000", "::1", 9000, "[::1]:9000"),
            ("wss://b.example.org:443", "b.example.org", 443, "b.example.org"),
        ] {
            let address: BrokerAddress = url.parse().unwrap();
            assert_eq!(
                (address.host.as_str(), address.port, address.authority().as_str()),
                (host, port, authority)
            );
        }
    }

    #[test]
    fn typos_are_named() {
        for bad in [
            "",
            "broker.example.org",
            "https://b",
            "wss://",
            "wss://b:0",
            "wss://b:x",
            "wss://b/path",
            "wss://[::1",
            "wss://[b]:1",
            "wss://[::1]x",
        ] {
            assert!(bad.parse::<BrokerAddress>().is_err(), "{bad}");
        }
    }
}
