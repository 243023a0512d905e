//! STUN and TURN servers by address: the connection's driver would stand still while a name is
//! looked up (its timers, its sockets, everything), so names are resolved before it starts.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{IceServer, PeerError};
use crate::aside;

/// How long to wait for the name service. A lookup answered by a resolver nearby takes 1-50 ms;
/// what is later than this costs the connection its server, not its time.
const RESOLVE_WITHIN: Duration = Duration::from_millis(250);

/// How long an answer is used without asking again: reconnecting after a fault should not wait
/// for the name service, which often is what the fault took away.
const FRESH_FOR: Duration = Duration::from_secs(300);

/// Names remembered; a session has a handful of servers.
const MAX_NAMES: usize = 16;

/// Default port of STUN and TURN over UDP (RFC 8489, section 14.2).
const DEFAULT_PORT: u16 = 3478;

struct Answer {
    addresses: Vec<IpAddr>,
    at: Instant,
}

static ANSWERS: Mutex<BTreeMap<String, Answer>> = Mutex::new(BTreeMap::new());

/// What an ICE server URL says (RFC 7064, RFC 7065).
#[derive(Debug, PartialEq, Eq)]
struct ServerUrl<'a> {
    scheme: &'a str,
    host: &'a str,
    port: u16,
}

/// The servers with every host name replaced by its addresses, one of each family. A server whose
/// name is not known in time is left out; so are transports other than UDP, which the engine does
/// not have but a list shared with browsers may name.
pub(super) async fn resolve(servers: &[IceServer]) -> Result<Vec<IceServer>, PeerError> {
    let mut resolved = Vec::with_capacity(servers.len());
    for server in servers {
        let mut urls = Vec::with_capacity(server.urls.len());
        for url in &server.urls {
            let Some(parsed) =
                parse(url).map_err(|reason| PeerError::IceServer { url: url.clone(), reason })?
            else {
                tracing::debug!(%url, "ICE server passed over: only UDP is supported");
                continue;
            };
            for address in addresses(parsed.host).await {
                let at = SocketAddr::new(address, parsed.port);
                urls.push(format!("{}:{at}", parsed.scheme));
            }
        }
        if !urls.is_empty() {
            resolved.push(IceServer { urls, ..server.clone() });
        }
    }
    Ok(resolved)
}

/// Reads a URL; `Ok(None)` for one that is valid but not over UDP.
fn parse(url: &str) -> Result<Option<ServerUrl<'_>>, &'static str> {
    let (scheme, rest) = url.split_once(':').ok_or("it has no scheme")?;
    let (authority, query) = match rest.split_once('?') {
        Some((authority, query)) => (authority, Some(query)),
        None => (rest, None),
    };
    let udp = match scheme {
        "stun" => true,
        "turn" => query.is_none_or(|query| query == "transport=udp"),
        "stuns" | "turns" => false,
        _ => return Err("its scheme is neither stun: nor turn:"),
    };
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']').ok_or("its bracket is not closed")?;
        (host, port.strip_prefix(':'))
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() || host.contains('/') || host.contains('@') {
        return Err("its host is malformed");
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| "its port is not a number")?,
        None => DEFAULT_PORT,
    };
    Ok(udp.then_some(ServerUrl { scheme, host, port }))
}

/// The addresses of a host: at most one IPv4 and one IPv6 address, none when unknown.
async fn addresses(host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    if let Some(addresses) = remembered(host, Some(FRESH_FOR)) {
        return addresses;
    }
    let looked_up = smol::future::or(async { aside::resolve(host, 0).await.ok() }, async {
        smol::Timer::after(RESOLVE_WITHIN).await;
        None
    })
    .await;
    match looked_up {
        Some(found) => {
            let first = |v4| found.iter().map(SocketAddr::ip).find(|ip| ip.is_ipv4() == v4);
            let addresses: Vec<IpAddr> = [first(true), first(false)].into_iter().flatten().collect();
            remember(host, &addresses);
            addresses
        }
        None => {
            let old = remembered(host, None).unwrap_or_default();
            tracing::debug!(host, known = !old.is_empty(), "the name service did not answer");
            old
        }
    }
}

fn remembered(host: &str, fresh_for: Option<Duration>) -> Option<Vec<IpAddr>> {
    let answers = ANSWERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let answer = answers.get(host)?;
    fresh_for.is_none_or(|fresh_for| answer.at.elapsed() < fresh_for).then(|| answer.addresses.clone())
}

fn remember(host: &str, addresses: &[IpAddr]) {
    if addresses.is_empty() {
        return;
    }
    let mut answers = ANSWERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if answers.len() >= MAX_NAMES && !answers.contains_key(host) {
        let oldest = answers.iter().min_by_key(|(_, answer)| answer.at).map(|(name, _)| name.clone());
        if let Some(oldest) = oldest {
            answers.remove(&oldest);
        }
    }
    answers.insert(host.to_owned(), Answer { addresses: addresses.to_vec(), at: Instant::now() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_read() {
        let url = |scheme, host, port| Ok(Some(ServerUrl { scheme, host, port }));
        for (text, expected) in [
            ("stun:broker.example.org", url("stun", "broker.example.org", 3478)),
            ("stun:192.0.2.1:99", url("stun", "192.0.2.1", 99)),
            ("turn:[2001:db8::1]:7?transport=udp", url("turn", "2001:db8::1", 7)),
            ("turn:[2001:db8::1]", url("turn", "2001:db8::1", 3478)),
            ("turn:a.example?transport=tcp", Ok(None)),
            ("turns:a.example", Ok(None)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        for text in ["", "stun", "http://a", "stun:", "stun:a:b", "stun:[::1", "stun:u@h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_become_one_address_of_each_family() {
        let server = |urls: &[&str]| IceServer {
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            username: "user".to_owned(),
            credential: "secret".to_owned(),
        };
        remember("two.example", &["192.0.2.9".parse().unwrap(), "2001:db8::9".parse().unwrap()]);
        let servers = [
            server(&["stun:127.0.0.1:1", "stuns:127.0.0.1"]),
            server(&["turn:two.example:2"]),
            server(&["turn:127.0.0.1?transport=tcp"]),
        ];
        let resolved = smol::future::block_on(resolve(&servers)).unwrap();
        assert_eq!(
            resolved,
            [server(&["stun:127.0.0.1:1"]), server(&["turn:192.0.2.9:2", "turn:[2001:db8::9]:2"]),]
        );
    }

    #[test]
    fn a_malformed_url_is_an_error() {
        let server = IceServer { urls: vec!["ftp:x".to_owned()], ..IceServer::default() };
        let error = smol::future::block_on(resolve(&[server])).unwrap_err();
        assert!(error.to_string().contains("ftp:x"), "{error}");
    }

    #[test]
    fn old_answers_make_room() {
        for number in 0..2 * MAX_NAMES {
            remember(&format!("host{number}.example"), &["192.0.2.1".parse().unwrap()]);
        }
        let last = format!("host{}.example", 2 * MAX_NAMES - 1);
        assert!(remembered(&last, Some(FRESH_FOR)).is_some());
        assert!(ANSWERS.lock().unwrap().len() <= MAX_NAMES);
    }

    proptest! {
        #[test]
        fn reading_a_url_never_panics(url in ".{0,80}") {
            let _ = parse(&url);
        }
    }
}
