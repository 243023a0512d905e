//! Whose pages may speak to the broker. A browser names the page's origin and
//! can't be made to lie about it; programs name none. No cookie and no address
//! is a permission here, every device proves its key, so this keeps pages of
//! strangers from using their visitors as attackers, and a farm's own pages
//! from speaking past the app.

use std::collections::BTreeSet;

use hyper::HeaderMap;
use hyper::header::{HOST, ORIGIN};

/// Stands for every origin.
pub(super) const ANY: &str = "*";

/// Hosts of the visitor's own machine: a program that serves pages there could
/// do without a browser as well. Not `*.localhost`, where farm pages are shown.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Whether a WebSocket may be opened by whoever sent these headers. `own` are
/// origins of the app besides the host that is called itself.
pub(super) fn may_connect(headers: &HeaderMap, own: &BTreeSet<String>) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (origin, another) = (origins.next(), origins.next());
    let Some(origin) = origin else { return true };
    let Some(origin) = origin.to_str().ok().filter(|_| another.is_none()) else { return false };
    let origin = origin.to_ascii_lowercase();
    if own.contains(&origin) || own.contains(ANY) {
        return true;
    }
    let Some(authority) = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://")) else {
        return false;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority)) || is_loopback(authority)
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    };
    LOOPBACK.contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(origins: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "broker.example.org".parse().unwrap());
        for origin in origins {
            headers.append(ORIGIN, origin.parse().unwrap());
        }
        may_connect(&headers, &BTreeSet::from(["https://app.example.net".to_owned()]))
    }

    #[test]
    fn programs_and_pages_of_the_app_may() {
        for origin in [
            "https://broker.example.org",
            "https://Broker.example.org",
            "https://app.example.net",
            "http://localhost:8443",
            "http://127.0.0.1",
            "http://[::1]:5173",
        ] {
            assert!(may(&[origin]), "{origin}");
        }
        assert!(may(&[]), "a program");
    }

    #[test]
    fn pages_of_others_may_not() {
        for origin in [
            "https://evil.example",
            "https://broker.example.org.evil.example",
            "https://evil.example/broker.example.org",
            "https://broker.example.org:8443",
            "https://greenhouse--north.broker.example.org",
            "http://greenhouse--north.localhost:8443",
            "http://localhost.evil.example",
            "null",
            "",
            "file://",
        ] {
            assert!(!may(&[origin]), "{origin}");
        }
        assert!(!may(&["https://broker.example.org", "https://evil.example"]));
    }

    #[test]
    fn an_operator_may_let_everybody() {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, "https://evil.example".parse().unwrap());
        assert!(may_connect(&headers, &BTreeSet::from([ANY.to_owned()])));
    }
}
