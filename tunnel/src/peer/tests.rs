//! Tests of whole connections, on loopback.

mod hostile;
mod loss;
mod open;
mod relay;
mod transfer;
mod wire;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::*;

/// Longer than anything here takes on a busy machine: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn config() -> PeerConfig {
    PeerConfig { local_addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], ..PeerConfig::default() }
}

/// A peer and its events.
struct End {
    peer: Peer,
    events: Receiver<PeerEvent>,
}

/// Waits for a result, not for ever.
async fn within<T>(what: &str, patience: Duration, result: impl Future<Output = T>) -> T {
    smol::future::or(async { Some(result.await) }, async {
        smol::Timer::after(patience).await;
        None
    })
    .await
    .unwrap_or_else(|| panic!("{what}: not within {patience:?}"))
}

impl End {
    /// The events up to `Opened` or `Lost`, which is returned.
    async fn outcome(&self) -> PeerEvent {
        within("an outcome", PATIENCE, async {
            loop {
                match self.events.recv().await {
                    Ok(event @ (PeerEvent::Opened | PeerEvent::Lost(_))) => return event,
                    Ok(_) => {}
                    Err(_) => panic!("the events ended"),
                }
            }
        })
        .await
    }

    async fn opened(&self) {
        assert_eq!(self.outcome().await, PeerEvent::Opened);
    }

    async fn lost(&self) -> LostReason {
        match self.outcome().await {
            PeerEvent::Lost(reason) => reason,
            event => panic!("{event:?} instead of a loss"),
        }
    }
}

/// An offer, its answer, and both ends, not yet connected.
async fn negotiate(near: PeerConfig, far: PeerConfig) -> (End, End, String) {
    let (peer, events, offer) = Peer::offer(near).await.unwrap();
    let near = End { peer, events };
    let (peer, events, answer) = Peer::answer(far, &offer).await.unwrap();
    (near, End { peer, events }, answer)
}

/// Two ends, open.
async fn pair() -> (End, End) {
    let (near, far, answer) = negotiate(config(), config()).await;
    near.peer.accept_answer(&answer).await.unwrap();
    near.opened().await;
    far.opened().await;
    (near, far)
}
