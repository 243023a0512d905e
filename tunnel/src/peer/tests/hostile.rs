use proptest::prelude::*;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};
use webrtc::peer_connection::{PeerConnectionBuilder, PeerConnectionEventHandler};

use super::*;

#[test]
fn a_description_that_is_none_is_refused() {
    smol::block_on(async {
        for sdp in ["", "v=0", "\0", &"a=\r\n".repeat(MAX_SDP), "{\"type\":\"offer\"}"] {
            let result = Peer::answer(config(), sdp).await;
            assert!(matches!(result, Err(PeerError::Description(_))), "{sdp:.40}");
        }
        let (peer, _events, offer) = Peer::offer(config()).await.unwrap();
        assert!(matches!(peer.accept_answer("v=0").await, Err(PeerError::Description(_))));
        // An offer is no answer: who would be the DTLS client?
        assert!(peer.accept_answer(&offer).await.is_err());
    });
}

#[test]
fn there_is_one_answer() {
    smol::block_on(async {
        let (near, _far, answer) = negotiate(config(), config()).await;
        near.peer.accept_answer(&answer).await.unwrap();
        assert_eq!(near.peer.accept_answer(&answer).await, Err(PeerError::Answered));
    });
}

#[test]
fn another_certificate_than_the_described_one_is_refused() {
    smol::block_on(async {
        let (near, far, answer) = negotiate(config(), config()).await;
        let at = answer.find("sha-256 ").unwrap() + "sha-256 ".len();
        let digit = if answer.as_bytes()[at] == b'0' { "1" } else { "0" };
        let mut forged = answer;
        forged.replace_range(at..=at, digit);
        near.peer.accept_answer(&forged).await.unwrap();
        assert_eq!(near.lost().await, LostReason::Handshake);
        assert!(!far.peer.is_open());
    });
}

#[test]
fn candidates_are_counted() {
    smol::block_on(async {
        let (peer, _events, _) = Peer::offer(config()).await.unwrap();
        let candidate = |number| format!("candidate:1 1 udp 1 127.0.0.1 {number} typ host");
        for number in 1..=MAX_CANDIDATES {
            peer.add_candidate(&candidate(number)).await.unwrap();
        }
        let one_more = peer.add_candidate(&candidate(MAX_CANDIDATES + 1)).await;
        assert_eq!(one_more, Err(PeerError::TooManyCandidates));
        assert!(matches!(peer.add_candidate("candidate:x").await, Err(PeerError::Candidate(_))));
    });
}

struct Silent;
impl PeerConnectionEventHandler for Silent {}

/// A peer made of the engine alone: it keeps none of our rules. Channels by their ids, open.
async fn stranger(
    near: &Peer,
    offer: &str,
    ids: &[u16],
) -> (Arc<dyn PeerConnection>, Vec<Arc<dyn DataChannel>>) {
    let connection = PeerConnectionBuilder::new()
        .with_setting_engine(settings::engine(&config()))
        .with_runtime(Arc::new(runtime::DriverRuntime::plain()))
        .with_handler(Arc::new(Silent))
        .with_udp_addrs(config().local_addresses)
        .build()
        .await
        .unwrap();
    let mut channels = Vec::new();
    for &id in ids {
        let init = RTCDataChannelInit { negotiated: Some(id), ..RTCDataChannelInit::default() };
        channels.push(connection.create_data_channel("", Some(init)).await.unwrap());
    }
    let offer = RTCSessionDescription::offer(offer.to_owned()).unwrap();
    connection.set_remote_description(offer).await.unwrap();
    let answer = connection.create_answer(None).await.unwrap();
    connection.set_local_description(answer).await.unwrap();
    let answer = within("a candidate", PATIENCE, async {
        loop {
            let sdp = connection.local_description().await.unwrap().sdp;
            if sdp.contains("a=candidate:") {
                return sdp;
            }
            smol::future::yield_now().await;
        }
    })
    .await;
    near.accept_answer(&answer).await.unwrap();
    for channel in &channels {
        let event = within("an open channel", PATIENCE, channel.poll()).await;
        assert!(matches!(event, Some(DataChannelEvent::OnOpen)), "{event:?}");
    }
    (Arc::new(connection), channels)
}

#[test]
fn a_peer_that_breaks_the_rules_is_cut_off() {
    smol::block_on(async {
        for case in ["a long message", "a channel of its own", "a word to the keeper"] {
            let (peer, events, offer) = Peer::offer(config()).await.unwrap();
            let near = End { peer, events };
            let (connection, channels) = stranger(&near.peer, &offer, &[0, 1, 2, 1023]).await;
            near.opened().await;
            let long = bytes::BytesMut::zeroed(MAX_MESSAGE + 1);
            match case {
                "a long message" => channels[2].send(long).await.unwrap(),
                "a channel of its own" => {
                    connection.create_data_channel("mine", None).await.unwrap();
                }
                _ => channels[3].send(bytes::BytesMut::zeroed(1)).await.unwrap(),
            }
            let reading = near.peer.clone();
            let reading = crate::executor::spawn(async move { reading.recv(Channel::Data).await });
            let lost = near.lost().await;
            assert!(matches!(lost, LostReason::Violation(_)), "{case}: {lost:?}");
            assert_eq!(within("the reader's end", PATIENCE, reading).await, None, "{case}");
            let _ = connection.close().await;
        }
    });
}

#[test]
fn a_peer_that_closes_one_channel_has_closed_all() {
    smol::block_on(async {
        let (peer, events, offer) = Peer::offer(config()).await.unwrap();
        let near = End { peer, events };
        let (connection, channels) = stranger(&near.peer, &offer, &[0, 1, 2]).await;
        near.opened().await;
        channels[0].close().await.unwrap();
        assert_eq!(within("the end", PATIENCE, near.peer.recv(Channel::Control)).await, None);
        assert_eq!(near.lost().await, LostReason::ClosedByPeer);
        let _ = connection.close().await;
    });
}

/// One real offer for all cases.
fn offer() -> String {
    static OFFER: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let make = || smol::block_on(async { Peer::offer(config()).await.unwrap().2 });
    OFFER.get_or_init(make).clone()
}

proptest! {
    // Each case makes a connection, a few ms.
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The engine's own parsers, behind ours: whatever passes ours must not make them panic.
    #[test]
    fn a_damaged_offer_is_answered_or_refused(
        line in any::<prop::sample::Index>(),
        kind in 0..4,
        text in "[ -~]{0,30}",
        at in any::<prop::sample::Index>(),
    ) {
        let offer = offer();
        let mut lines: Vec<String> = offer.lines().map(str::to_owned).collect();
        let index = line.index(lines.len());
        match kind {
            0 => drop(lines.remove(index)),
            1 => lines.insert(index, lines[index].clone()),
            2 => {
                let at = at.index(lines[index].len() + 1);
                lines[index].truncate(at);
                lines[index].push_str(&text);
            }
            _ => {
                let end = lines[index].find(':').map_or(2, |colon| colon + 1);
                lines[index].truncate(end);
                lines[index].push_str(&text);
            }
        }
        let damaged: String = lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect();
        smol::block_on(async {
            if let Ok((peer, _events, _)) = Peer::answer(config(), &damaged).await {
                peer.close().await;
                // The engine, not a panic of its task, has ended it.
                assert_eq!(peer.lost(), Some(LostReason::ClosedHere), "{damaged}");
            }
        });
    }
}
