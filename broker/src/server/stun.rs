//! Answers STUN binding requests, so that devices learn their public address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use farm_protocol::stun::{MAX_PACKET, answer};
use smol::Timer;
use smol::net::UdpSocket;

use crate::core::bucket::{Buckets, Rate};
use crate::core::network::Network;

/// Requests from one network (see [`Network::of_datagram`]). A probe every
/// 20 s of 2000 devices behind one carrier's NAT; sources can be forged, and
/// answers are at most 2.2 times as long as requests.
const REQUESTS: Rate = Rate::per_second(300, 100);

/// Networks that are remembered.
const NETWORKS: usize = 8192;

/// Datagrams after which other tasks get their turn.
const BATCH: u32 = 64;

/// Rest after an error, so that one that stays does not take the processor.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// The answer to a datagram, if it gets one.
fn respond(
    buckets: &mut Buckets<Network>,
    packet: &[u8],
    source: SocketAddr,
    now: Instant,
) -> Option<Vec<u8>> {
    let response = answer(packet, source)?;
    let allowed = buckets.take(Network::of_datagram(source.ip()), now);
    allowed.then_some(response)
}

/// Answers for ever.
pub(super) async fn serve(socket: UdpSocket) {
    let mut buckets = Buckets::new(REQUESTS, NETWORKS);
    let mut packet = [0; MAX_PACKET + 1];
    let mut count = 0u32;
    loop {
        count = count.wrapping_add(1);
        if count.is_multiple_of(BATCH) {
            smol::future::yield_now().await;
        }
        let Ok((length, source)) = socket.recv_from(&mut packet).await else {
            // About an earlier answer (ICMP), as a rule.
            Timer::after(AFTER_ERROR).await;
            continue;
        };
        if let Some(response) = respond(&mut buckets, &packet[..length], source, Instant::now())
            && let Err(error) = socket.send_to(&response, source).await
        {
            tracing::debug!(%error, "a STUN answer was not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farm_protocol::stun::{binding_request, mapped_address};

    #[test]
    fn answers_are_limited_per_network() {
        let (now, mut buckets) = (Instant::now(), Buckets::new(REQUESTS, NETWORKS));
        let request = binding_request(&[7; 12]);
        let mut ask = |source: &str| respond(&mut buckets, &request, source.parse().unwrap(), now);
        let answered = (0..1000).filter(|n| ask(&format!("192.0.2.{}:4000", n % 250)).is_some()).count();
        assert_eq!(answered, REQUESTS.burst as usize);
        let other = ask("[2001:db8::1]:4000").unwrap();
        assert_eq!(mapped_address(&other, &[7; 12]), Some("[2001:db8::1]:4000".parse().unwrap()));
    }

    #[test]
    fn what_is_no_request_costs_nobody_anything() {
        let (now, mut buckets) = (Instant::now(), Buckets::new(REQUESTS, NETWORKS));
        let source = "192.0.2.1:4000".parse().unwrap();
        assert_eq!(respond(&mut buckets, b"hello", source, now), None);
        assert!(buckets.is_empty());
    }
}
