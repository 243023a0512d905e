//! Letting connections in.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::admission::{Admission, Ticket};
use super::reactor::{Alarm, Listener, Stream};
use super::thread::Door;

/// Rest after an error of accept: it is about used up file descriptors, which
/// come back when connections end.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Connections accepted before other tasks get their turn.
const ACCEPT_BATCH: u32 = 32;

/// Lets connections in, each served by a task of its own.
pub(super) async fn accept<F>(
    mut listener: Listener,
    admission: Admission,
    trusted_proxies: Vec<IpAddr>,
    door: Door,
    serve: impl Fn(Stream, SocketAddr, Ticket) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut count = 0u32;
    let mut told = 0;
    loop {
        count = count.wrapping_add(1);
        if count.is_multiple_of(ACCEPT_BATCH) {
            smol::future::yield_now().await;
        }
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; if this stays, raise the limit of open files");
                Alarm::after(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let is_proxy = trusted_proxies.contains(&peer.ip());
        let Some(ticket) = admission.enter(peer.ip(), is_proxy, Instant::now()) else {
            // Doubling: a flood must not fill the log.
            let refused = admission.refused();
            if refused >= told * 2 {
                told = refused.max(1);
                tracing::warn!(refused, "sockets turned away: too many are open");
            }
            continue;
        };
        door.spawn(serve(stream, peer, ticket)).detach();
    }
}
