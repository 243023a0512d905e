//! ICE candidates as text (RFC 8839, section 5.1), read strictly: they come from the network.

use std::net::{IpAddr, SocketAddr};

/// Longest candidate accepted, in bytes. Browsers write about 150.
pub const MAX_CANDIDATE: usize = 512;

/// Why a candidate was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CandidateError {
    /// Longer than [`MAX_CANDIDATE`].
    #[error("an ICE candidate of {0} bytes, the limit is {MAX_CANDIDATE}")]
    TooLong(usize),
    /// Not a candidate line; names the first field that is wrong or missing.
    #[error("an ICE candidate with a malformed {0}")]
    Malformed(&'static str),
}

/// A remote candidate after reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Candidate {
    /// One to give to the ICE agent, rebuilt from its parsed fields as `candidate:...`, so that
    /// the agent's own parser never meets what the peer wrote.
    Usable(String),
    /// Well-formed and of no use here; says why.
    Useless(&'static str),
}

/// Reads one candidate, with or without the `a=` of an SDP line and the `candidate:` prefix.
///
/// The useless ones: TCP (ours would dial the peer's choice of address), host names (mDNS names
/// hide a browser's address; it is learned from the browser's own checks), another component
/// than 1 (everything is multiplexed), and addresses that name no single host.
pub(super) fn read(text: &str) -> Result<Candidate, CandidateError> {
    if text.len() > MAX_CANDIDATE {
        return Err(CandidateError::TooLong(text.len()));
    }
    let text = text.trim();
    let text = text.strip_prefix("a=").unwrap_or(text);
    let text = text.strip_prefix("candidate:").unwrap_or(text);
    if text.is_empty() {
        return Ok(Candidate::Useless("the end of candidates"));
    }

    let mut fields = text.split_ascii_whitespace();
    let mut field = |name| fields.next().ok_or(CandidateError::Malformed(name));
    let foundation = field("foundation")?;
    let component = field("component")?;
    let transport = field("transport")?;
    let priority = field("priority")?;
    let address = field("address")?;
    let port = field("port")?;
    let typ = field("typ")?;
    let kind = field("type")?;

    let ice_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if foundation.len() > 32 || !foundation.bytes().all(ice_char) {
        return Err(CandidateError::Malformed("foundation"));
    }
    let component: u16 = number(component, "component")?;
    let priority: u32 = number(priority, "priority")?;
    let port: u16 = number(port, "port")?;
    if typ != "typ" || !matches!(kind, "host" | "srflx" | "prflx" | "relay") {
        return Err(CandidateError::Malformed("type"));
    }
    if !transport.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(CandidateError::Malformed("transport"));
    }

    if !transport.eq_ignore_ascii_case("udp") {
        return Ok(Candidate::Useless("not UDP"));
    }
    if component != 1 {
        return Ok(Candidate::Useless("not component 1"));
    }
    let Ok(address) = address.parse::<IpAddr>() else {
        return match is_host_name(address) {
            true => Ok(Candidate::Useless("a host name")),
            false => Err(CandidateError::Malformed("address")),
        };
    };
    if port == 0 || !names_one_host(address) {
        return Ok(Candidate::Useless("not one host's address"));
    }
    Ok(Candidate::Usable(format!("candidate:{foundation} 1 udp {priority} {address} {port} typ {kind}")))
}

/// The address of a usable candidate that is a relay's.
pub(super) fn relay_address(usable: &str) -> Option<SocketAddr> {
    let mut fields = usable.strip_suffix(" typ relay")?.rsplit(' ');
    let port = fields.next()?.parse().ok()?;
    Some(SocketAddr::new(fields.next()?.parse().ok()?, port))
}

/// The canonical form of one of our own candidates, to tell whether two are the same; None for one
/// not worth telling: a wildcard socket (bound when there is no usable interface) yields a
/// candidate whose address no peer can dial.
pub(super) fn canonical(text: &str) -> Option<String> {
    match read(text) {
        Ok(Candidate::Usable(line)) => Some(line),
        _ => None,
    }
}

fn number<T: std::str::FromStr>(text: &str, name: &'static str) -> Result<T, CandidateError> {
    // `parse` alone would take "+7".
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CandidateError::Malformed(name));
    }
    text.parse().map_err(|_| CandidateError::Malformed(name))
}

fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.contains('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

fn names_one_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        // Link-local: without its zone, which a candidate cannot carry, it reaches nobody.
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOST: &str = "candidate:1 1 udp 2130706431 192.0.2.7 50000 typ host";

    #[test]
    fn a_candidate_is_rebuilt_from_its_fields() {
        for text in [
            HOST.to_owned(),
            format!("a={HOST}"),
            HOST.trim_start_matches("candidate:").to_owned(),
            format!("{HOST} generation 0 ufrag abcd network-cost 999\r\n"),
            HOST.replace("udp", "UDP"),
        ] {
            assert_eq!(read(&text), Ok(Candidate::Usable(HOST.to_owned())), "{text}");
        }
        let reflexive = "candidate:3 1 udp 1694498815 2001:db8::1 4 typ srflx raddr :: rport 0";
        assert_eq!(
            read(reflexive),
            Ok(Candidate::Usable("candidate:3 1 udp 1694498815 2001:db8::1 4 typ srflx".to_owned()))
        );
    }

    #[test]
    fn a_relay_is_known_by_its_address() {
        assert_eq!(relay_address(HOST), None);
        let relay = HOST.replace("host", "relay raddr 10.0.0.1 rport 7");
        let Ok(Candidate::Usable(line)) = read(&relay) else { panic!("{relay}") };
        assert_eq!(relay_address(&line), Some("192.0.2.7:50000".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_used_is_passed_over() {
        for text in [
            "",
            "candidate:",
            "candidate:1 1 tcp 1 192.0.2.7 9 typ host tcptype active",
            "candidate:1 2 udp 1 192.0.2.7 50000 typ host",
            "candidate:1 1 udp 1 6dd1e9a0-5a0f-4b0e-9f0c-1c1c0c0c0c0c.local 50000 typ host",
            "candidate:1 1 udp 1 0.0.0.0 50000 typ host",
            "candidate:1 1 udp 1 224.0.0.1 50000 typ host",
            "candidate:1 1 udp 1 fe80::1 50000 typ host",
            "candidate:1 1 udp 1 192.0.2.7 0 typ host",
        ] {
            assert!(matches!(read(text), Ok(Candidate::Useless(_))), "{text}");
        }
    }

    #[test]
    fn garbage_is_named() {
        for (text, name) in [
            ("candidate:1 1 udp", "priority"),
            ("candidate:1 +1 udp 1 192.0.2.7 1 typ host", "component"),
            ("candidate:1 1 udp 99999999999 192.0.2.7 1 typ host", "priority"),
            ("candidate:1 1 udp 1 192.0.2.7 70000 typ host", "port"),
            ("candidate:1 1 udp 1 300.1.2 1 typ host", "address"),
            ("candidate:1 1 udp 1 192.0.2.7 1 typ magic", "type"),
            ("candidate:{} 1 udp 1 192.0.2.7 1 typ host", "foundation"),
        ] {
            let result = read(text);
            if name == "address" {
                // Three numbers and dots read as a host name; that is of no use either.
                assert!(matches!(result, Ok(Candidate::Useless(_))), "{text}");
            } else {
                assert_eq!(result, Err(CandidateError::Malformed(name)), "{text}");
            }
        }
        assert_eq!(read("candidate:1 1 udp 1 ::g 1 typ host"), Err(CandidateError::Malformed("address")));
        let long = "x".repeat(MAX_CANDIDATE + 1);
        assert_eq!(read(&long), Err(CandidateError::TooLong(long.len())));
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_is_idempotent(text in ".{0,600}") {
            if let Ok(Candidate::Usable(line)) = read(&text) {
                prop_assert_eq!(read(&line), Ok(Candidate::Usable(line.clone())));
            }
        }

        #[test]
        fn so_with_fields_that_nearly_fit(
            fields in prop::collection::vec("(candidate:)?[a-z0-9+/:.]{0,12}|1|udp|typ|host", 0..12)
        ) {
            if let Ok(Candidate::Usable(line)) = read(&fields.join(" ")) {
                prop_assert_eq!(read(&line), Ok(Candidate::Usable(line.clone())));
            }
        }
    }
}
