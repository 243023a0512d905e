//! Where a device may have its packets relayed, and what it proves itself
//! with there: TURN (RFC 8656) with credentials that expire.
//!
//! A relay carries what is encrypted end to end; it is trusted no more than
//! the broker that names it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded_text;

/// Longest name of a host, in bytes (RFC 1035 section 2.3.4, without the dot
/// of the root).
pub const MAX_HOST: usize = 253;

/// Longest user name and longest credential, in bytes: an expiry, a pseudonym
/// and a MAC of any relay in use fit several times.
pub const MAX_CREDENTIAL: usize = 128;

/// A relay and what to say there. Absent ports are transports that it does
/// not speak.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Its host: a name, or an address without brackets, at most
    /// [`MAX_HOST`] bytes. `None`: the host by which the device called the
    /// broker. The broker's word: to be checked before it becomes part of a
    /// URL, see [`Relay::host_is_usable`].
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded_text::optional::<_, 1, MAX_HOST>"
    )]
    pub host: Option<String>,
    /// The port of TURN over UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<u16>,
    /// The port of TURN over plain TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<u16>,
    /// The port of TURN over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<u16>,
    /// The user name, 1 to [`MAX_CREDENTIAL`] bytes; opaque to the device.
    #[serde(deserialize_with = "bounded_text::required::<_, 1, MAX_CREDENTIAL>")]
    pub username: String,
    /// The password that goes with it, 1 to [`MAX_CREDENTIAL`] bytes.
    #[serde(deserialize_with = "bounded_text::required::<_, 1, MAX_CREDENTIAL>")]
    pub credential: String,
    /// How long both are good for, in seconds from when they were sent. What
    /// was allocated with them lives on; a new allocation needs new ones.
    pub seconds: u32,
}

impl Relay {
    /// Whether `host` is absent, or nothing but a host name or an IP address:
    /// nothing in it can end the host's part of a URL.
    pub fn host_is_usable(&self) -> bool {
        self.host.as_deref().is_none_or(|host| {
            (1..=MAX_HOST).contains(&host.len())
                && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'_'))
        })
    }
}

/// Without the credential: it must not get into a log.
impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, udp, tcp, tls, username, credential: _, seconds } = self;
        f.debug_struct("Relay")
            .field("host", host)
            .field("udp", udp)
            .field("tcp", tcp)
            .field("tls", tls)
            .field("username", username)
            .field("seconds", seconds)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(host: Option<&str>) -> Relay {
        Relay {
            host: host.map(str::to_owned),
            udp: Some(3478),
            tcp: None,
            tls: None,
            username: "1:a".to_owned(),
            credential: "secret".to_owned(),
            seconds: 60,
        }
    }

    #[test]
    fn a_host_ends_no_url() {
        for good in [None, Some("turn.example.org"), Some("192.0.2.1"), Some("2001:db8::1")] {
            assert!(relay(good).host_is_usable(), "{good:?}");
        }
        for bad in ["", "a/b", "a?b", "a@b", "a b", "[::1]", "пример", &"x".repeat(MAX_HOST + 1)] {
            assert!(!relay(Some(bad)).host_is_usable(), "{bad}");
        }
    }

    #[test]
    fn the_credential_stays_out_of_logs() {
        let shown = format!("{:?}", relay(None));
        assert!(!shown.contains("secret") && shown.contains("1:a"), "{shown}");
    }
}
