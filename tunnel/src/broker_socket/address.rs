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

#[cfg(test)]
mod tests {
    use super::*;

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
