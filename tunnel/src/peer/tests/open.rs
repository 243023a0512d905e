use std::time::Instant;

use super::*;

/// The regression test of the driver's runtime: without it every open has two pauses of 200 ms.
#[test]
fn a_connection_opens_within_100_ms() {
    smol::block_on(async {
        let mut slowest = Duration::ZERO;
        // A busy machine may spoil one attempt, a missing turn of the driver spoils all.
        for _ in 0..3 {
            let mut times = Vec::new();
            for _ in 0..20 {
                let start = Instant::now();
                let (near, far) = pair().await;
                times.push(start.elapsed());
                near.peer.close().await;
                far.peer.close().await;
            }
            times.sort();
            slowest = times[18];
            if slowest < Duration::from_millis(100) {
                return;
            }
        }
        panic!("19 of 20 connections open within {slowest:?}");
    });
}

#[test]
fn the_first_descriptions_name_all_candidates_of_a_host() {
    smol::block_on(async {
        let (near, far, answer) = negotiate(config(), config()).await;
        assert!(answer.contains("127.0.0.1"), "{answer}");
        near.peer.accept_answer(&answer).await.unwrap();
        for end in [&near, &far] {
            let mut events = Vec::new();
            while !matches!(events.last(), Some(PeerEvent::Opened)) {
                events.push(within("the next event", PATIENCE, end.events.recv()).await.unwrap());
            }
            let candidates = events.iter().filter(|event| matches!(event, PeerEvent::Candidate(_))).count();
            assert_eq!(candidates, 0, "{events:?}");
            assert!(events.contains(&PeerEvent::GatheringDone), "{events:?}");
        }
    });
}

#[test]
fn candidates_may_come_before_and_without_the_description() {
    smol::block_on(async {
        let (peer, events, offer) = Peer::offer(config()).await.unwrap();
        let near = End { peer, events };
        let (peer, events, answer) = Peer::answer(config(), &without_candidates(&offer)).await.unwrap();
        let far = End { peer, events };
        for line in candidates(&answer) {
            near.peer.add_candidate(line).await.unwrap();
        }
        near.peer.accept_answer(&without_candidates(&answer)).await.unwrap();
        for line in candidates(&offer) {
            far.peer.add_candidate(line).await.unwrap();
        }
        near.peer.add_candidate("").await.unwrap();
        near.opened().await;
        far.opened().await;
    });
}

fn candidates(sdp: &str) -> impl Iterator<Item = &str> {
    sdp.lines().filter(|line| line.starts_with("a=candidate:"))
}

fn without_candidates(sdp: &str) -> String {
    let lines = sdp.lines().filter(|line| !line.contains("candidate"));
    lines.flat_map(|line| [line, "\r\n"]).collect()
}

#[test]
fn the_path_is_known_once_open() {
    smol::block_on(async {
        let (near, far, answer) = negotiate(config(), config()).await;
        assert_eq!(near.peer.path().await, None);
        near.peer.accept_answer(&answer).await.unwrap();
        near.opened().await;
        far.opened().await;
        let (ours, theirs) = (near.peer.path().await.unwrap(), far.peer.path().await.unwrap());
        assert_eq!(ours.kind, PathKind::Direct);
        assert_eq!((ours.local, ours.remote), (theirs.remote, theirs.local));
        assert!(ours.local.ip().is_loopback());
    });
}

#[test]
fn ipv6_does_as_well() {
    smol::block_on(async {
        let local = "[::1]:0".parse().unwrap();
        if std::net::UdpSocket::bind(local).is_err() {
            eprintln!("this machine has no IPv6");
            return;
        }
        let v6 = PeerConfig { local_addresses: vec![local], ..config() };
        let (near, far, answer) = negotiate(v6.clone(), v6).await;
        near.peer.accept_answer(&answer).await.unwrap();
        near.opened().await;
        far.opened().await;
        assert!(near.peer.path().await.unwrap().remote.is_ipv6());
    });
}

#[test]
fn nothing_is_sent_before_it_is_open() {
    smol::block_on(async {
        let (peer, _events, _) = Peer::offer(config()).await.unwrap();
        let message = Bytes::from_static(b"early");
        for channel in Channel::ALL {
            assert_eq!(peer.send(channel, message.clone()).await, Err(PeerError::NotOpen));
            assert_eq!(peer.try_send(channel, message.clone()).await, Err(PeerError::NotOpen));
        }
        assert!(!peer.is_open());
    });
}

#[test]
fn an_offer_that_is_never_answered_has_a_deadline() {
    smol::block_on(async {
        let hasty = PeerConfig { open_within: Duration::from_millis(50), ..config() };
        let (peer, events, _) = Peer::offer(hasty).await.unwrap();
        let end = End { peer, events };
        assert_eq!(end.lost().await, LostReason::NeverOpened);
    });
}

#[test]
fn connections_leave_nothing_behind() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    smol::block_on(async {
        drop(pair().await);
        // Other tests of this process open some too, so the lowest count after is what tells.
        let before = descriptors();
        for cycle in 0..200 {
            let (near, far) = pair().await;
            // Both ways to end one.
            if cycle % 2 == 0 {
                near.peer.close().await;
            }
            drop((near, far));
        }
        within("the descriptors are given back", PATIENCE, async {
            while descriptors() > before + 20 {
                smol::Timer::after(Duration::from_millis(50)).await;
            }
        })
        .await;
    });
}
