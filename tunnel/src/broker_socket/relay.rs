//! The relay that the broker named last, for as long as its credentials are good:
//! also while the broker is away.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use farm_protocol::relay::Relay;

use super::dial::Dialer;
use crate::peer::{RelayHost, RelayServer, RelayStream};

/// Credentials are not used for the last of their time: the request takes a
/// while, and the relay's clock may be a little ahead.
const SPENT_EARLY: Duration = Duration::from_secs(10);

/// A relay, and until when it may be asked.
#[derive(Debug, Clone)]
pub(super) struct Held {
    relay: Relay,
    until: Instant,
}

impl Held {
    /// `None` for one that is of no use.
    pub(super) fn new(relay: Relay, now: Instant) -> Option<Self> {
        if !relay.host_is_usable() {
            tracing::warn!("the broker names a relay by what is no host name: it is not used");
            return None;
        }
        let lifetime = Duration::from_secs(u64::from(relay.seconds)).checked_sub(SPENT_EARLY)?;
        Some(Self { relay, until: now + lifetime })
    }

    fn at(&self, now: Instant) -> Option<&Relay> {
        (now < self.until).then_some(&self.relay)
    }
}

impl Dialer {
    /// Takes what the broker says of its relay. It replaces the one before.
    pub(super) fn hold_relay(&self, relay: Relay) {
        let held = Held::new(relay, Instant::now()).map(|held| (self.aimed_at(), held));
        *self.relay.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// The relay that may be asked now.
    pub fn relay(&self) -> Option<RelayServer> {
        let held = self.relay.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (by, held) = held?;
        // The broker that named it may be gone, and another one be in use.
        self.meaning(by).server(held.at(Instant::now())?)
    }

    fn server(&self, relay: &Relay) -> Option<RelayServer> {
        let host = match &relay.host {
            Some(host) => {
                host.parse::<IpAddr>().map_or_else(|_| RelayHost::Name(host.clone()), RelayHost::Address)
            }
            None => RelayHost::Address(self.remembered()?.ip()),
        };
        let name = || relay.host.clone().unwrap_or_else(|| self.broker().host.clone());
        // Where it speaks both, nobody needs to see who meets whom.
        let stream = match (relay.tls, relay.tcp) {
            (Some(port), _) => Some(RelayStream { port, tls: Some((self.trust().clone(), name())) }),
            (None, Some(port)) => Some(RelayStream { port, tls: None }),
            (None, None) => None,
        };
        (relay.udp.is_some() || stream.is_some()).then(|| RelayServer {
            host,
            udp: relay.udp,
            stream,
            username: relay.username.clone(),
            credential: relay.credential.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker_socket::Trust;

    fn relay() -> Relay {
        Relay {
            host: None,
            udp: Some(3478),
            tcp: Some(80),
            tls: Some(443),
            username: "1:a".to_owned(),
            credential: "secret".to_owned(),
            seconds: 600,
        }
    }

    fn dialer() -> Dialer {
        let broker = "wss://broker.example.org".parse().unwrap();
        Dialer::new(broker, Trust::public().unwrap(), Some("192.0.2.10:443".parse().unwrap()))
    }

    #[test]
    fn a_relay_is_asked_until_shortly_before_its_credentials_expire() {
        let now = Instant::now();
        let held = Held::new(relay(), now).unwrap();
        let end = Duration::from_secs(600) - SPENT_EARLY;
        assert!(held.at(now + end - Duration::from_secs(1)).is_some());
        assert!(held.at(now + end).is_none());
        assert!(Held::new(Relay { seconds: 5, ..relay() }, now).is_none());
        assert!(Held::new(Relay { host: Some("a/b".to_owned()), ..relay() }, now).is_none());
    }

    #[test]
    fn without_a_host_it_is_where_the_broker_was_reached() {
        let dialer = dialer();
        assert!(dialer.relay().is_none());
        dialer.hold_relay(relay());
        let server = dialer.relay().unwrap();
        assert_eq!((server.host, server.udp), (RelayHost::Address([192, 0, 2, 10].into()), Some(3478)));
        let stream = server.stream.unwrap();
        assert_eq!((stream.port, stream.tls.unwrap().1), (443, "broker.example.org".to_owned()));
        dialer.hold_relay(Relay { seconds: 0, ..relay() });
        assert!(dialer.relay().is_none(), "the newest counts");
    }

    #[test]
    fn with_a_host_it_is_there_and_tls_goes_before_plain_tcp() {
        let dialer = dialer();
        let elsewhere = |host: &str| Relay { host: Some(host.to_owned()), tls: None, ..relay() };
        dialer.hold_relay(elsewhere("turn.example.org"));
        let server = dialer.relay().unwrap();
        assert_eq!(server.host, RelayHost::Name("turn.example.org".to_owned()));
        assert!(server.stream.is_some_and(|stream| stream.port == 80 && stream.tls.is_none()));
        dialer.hold_relay(elsewhere("2001:db8::7"));
        assert!(matches!(dialer.relay().unwrap().host, RelayHost::Address(IpAddr::V6(_))));
        dialer.hold_relay(Relay { udp: None, tcp: None, tls: None, ..relay() });
        assert!(dialer.relay().is_none(), "it speaks nothing");
    }
}
