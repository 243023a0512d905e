use std::time::Instant;

use super::{wire::Wire, *};

const SOON: Duration = Duration::from_secs(1);

async fn ends(peer: &Peer) {
    for channel in Channel::ALL {
        assert_eq!(within("the end", SOON, peer.recv(channel)).await, None);
    }
}

#[test]
fn a_peer_that_closes_is_noticed_at_once() {
    smol::block_on(async {
        let (near, far) = pair().await;
        let waiting = crate::executor::spawn({
            let peer = far.peer.clone();
            async move { peer.recv(Channel::Data).await }
        });
        near.peer.close().await;
        let lost = within("the loss", SOON, far.lost()).await;
        assert_eq!(lost, LostReason::ClosedByPeer);
        assert_eq!(within("the reader's end", SOON, waiting).await, None);
        ends(&far.peer).await;
        let error = far.peer.send(Channel::Control, Bytes::new()).await;
        assert_eq!(error, Err(PeerError::Lost(LostReason::ClosedByPeer)));
        assert!(!far.peer.is_open());
        // Nothing follows the loss.
        assert!(within("the end of events", SOON, far.events.recv()).await.is_err());
    });
}

#[test]
fn what_was_sent_before_a_close_arrives() {
    smol::block_on(async {
        let (near, far) = pair().await;
        near.peer.send(Channel::Control, Bytes::from_static(b"goodbye")).await.unwrap();
        near.peer.close().await;
        let message = within("the goodbye", SOON, far.peer.recv(Channel::Control)).await;
        assert_eq!(message, Some(Bytes::from_static(b"goodbye")));
        ends(&far.peer).await;
    });
}

#[test]
fn dropping_the_last_handle_closes() {
    smol::block_on(async {
        let (near, far) = pair().await;
        let other = near.peer.clone();
        drop(near);
        other.send(Channel::Control, Bytes::from_static(b"still here")).await.unwrap();
        assert!(within("a message", SOON, far.peer.recv(Channel::Control)).await.is_some());
        drop(other);
        let lost = within("the loss", SOON, far.lost()).await;
        assert_eq!(lost, LostReason::ClosedByPeer);
    });
}

#[test]
fn closing_is_idempotent_and_ends_the_events() {
    smol::block_on(async {
        let (near, _far) = pair().await;
        let closing = |_| near.peer.close();
        within("closing", SOON, futures_util::future::join_all((0..3).map(closing))).await;
        within("closing again", SOON, near.peer.close()).await;
        assert_eq!(near.peer.lost(), Some(LostReason::ClosedHere));
        ends(&near.peer).await;
        while let Ok(event) = near.events.recv().await {
            assert!(!matches!(event, PeerEvent::Lost(_)), "{event:?} although it was closed here");
        }
    });
}

#[test]
fn a_peer_that_vanishes_is_noticed_by_its_silence() {
    smol::block_on(async {
        let wire = Wire::new().await;
        let (near, far) = wire.pair(config()).await;
        let start = Instant::now();
        wire.cut();
        for end in [near, far] {
            assert_eq!(end.lost().await, LostReason::Unreachable);
            // 2 s until the path counts as broken and 4 s more, and a check every 0.5 s.
            assert!(start.elapsed() > Duration::from_secs(5), "after {:?}", start.elapsed());
            ends(&end.peer).await;
        }
    });
}

#[test]
fn a_sender_waits_for_a_silent_peer_until_the_connection_ends() {
    smol::block_on(async {
        let wire = Wire::new().await;
        let (near, _far) = wire.pair(config()).await;
        wire.cut();
        let peer = near.peer.clone();
        let sending = crate::executor::spawn(async move {
            let mut sent = 0;
            loop {
                match peer.send(Channel::Data, Bytes::from(vec![0; 32 << 10])).await {
                    Ok(()) => sent += 1,
                    Err(error) => return (sent, error),
                }
            }
        });
        // When a message has no room, another has not either, and neither have more pings.
        let full = async |channel, length| {
            while near.peer.try_send(channel, Bytes::from(vec![0; length])).await != Err(PeerError::Full) {
                smol::future::yield_now().await;
            }
        };
        within("the window is full", PATIENCE, full(Channel::Data, 32 << 10)).await;
        within("there is no room for pings", PATIENCE, full(Channel::Ping, 32)).await;
        within("closing", SOON, near.peer.close()).await;
        let (sent, error) = within("the sender's end", SOON, sending).await;
        assert_eq!(error, PeerError::Lost(LostReason::ClosedHere));
        assert!(sent < 100, "{sent} messages for a silent peer");
    });
}
