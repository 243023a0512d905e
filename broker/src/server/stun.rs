//! Answers STUN binding requests, so that devices learn their public address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use farm_protocol::stun::answer;

use super::tally::Tally;
use crate::core::Limits;
use crate::core::bucket::{Bucket, Buckets, Rate};
use crate::core::network::Network;

/// Networks that are remembered.
const NETWORKS: usize = 8192;

/// Who is answered.
pub(super) struct Desk {
    per_network: Buckets<Network>,
    rate: Rate,
    all: Bucket,
    tally: Arc<Tally>,
}

impl Desk {
    pub(super) fn new(limits: &Limits, tally: Arc<Tally>) -> Self {
        let per_network = Buckets::new(limits.stun_per_network, NETWORKS);
        Self { per_network, rate: limits.stun, all: Bucket::default(), tally }
    }

    /// The answer to a datagram, if it gets one.
    pub(super) fn respond(&mut self, packet: &[u8], source: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        let Some(response) = answer(packet, source) else {
            self.tally.stun_ignored.up();
            return None;
        };
        // The one network first: it must not use up what is for all.
        let allowed =
            self.per_network.take(Network::of_datagram(source.ip()), now) && self.all.take(self.rate, 1, now);
        let count = if allowed { &self.tally.stun_answered } else { &self.tally.limit_stun };
        count.up();
        allowed.then_some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farm_protocol::stun::{binding_request, mapped_address};

    fn desk() -> Desk {
        Desk::new(&Limits::default(), Arc::default())
    }

    #[test]
    fn answers_are_limited_per_network() {
        let (now, mut desk) = (Instant::now(), desk());
        let request = binding_request(&[7; 12]);
        let mut ask = |source: &str| desk.respond(&request, source.parse().unwrap(), now);
        let answered = (0..1000).filter(|n| ask(&format!("192.0.2.{}:4000", n % 250)).is_some()).count();
        let most = Limits::default().stun_per_network.burst as usize;
        assert_eq!(answered, most);
        let other = ask("[2001:db8::1]:4000").unwrap();
        assert_eq!(mapped_address(&other, &[7; 12]), Some("[2001:db8::1]:4000".parse().unwrap()));
        assert_eq!(desk.tally.stun_answered.get(), most as u64 + 1);
        assert_eq!(desk.tally.limit_stun.get(), 1000 - most as u64);
    }

    #[test]
    fn answers_are_limited_altogether() {
        let limits = Limits { stun: Rate::per_second(1000, 500), ..Limits::default() };
        let (now, mut desk) = (Instant::now(), Desk::new(&limits, Arc::default()));
        let request = binding_request(&[7; 12]);
        let forged = (0..60_000u32).filter(|n| {
            let source = SocketAddr::from((std::net::Ipv4Addr::from(n * 256), 4000));
            desk.respond(&request, source, now).is_some()
        });
        assert_eq!(forged.count(), 1000);
    }

    #[test]
    fn what_is_no_request_costs_nobody_anything() {
        let (now, mut desk) = (Instant::now(), desk());
        let source = "192.0.2.1:4000".parse().unwrap();
        assert_eq!(desk.respond(b"hello", source, now), None);
        assert!(desk.per_network.is_empty());
        assert_eq!(desk.tally.stun_ignored.get(), 1);
    }
}
