//! A wire between two peers that can be cut without either being told.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use smol::net::UdpSocket;

use super::*;

/// Stands between the peers: each sees its own socket here as the other.
pub(super) struct Wire {
    near: Arc<Socket>,
    far: Arc<Socket>,
    cut: Arc<AtomicBool>,
}

struct Socket {
    socket: UdpSocket,
    peer: OnceLock<SocketAddr>,
}

impl Wire {
    pub(super) async fn new() -> Self {
        let socket = async || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            Arc::new(Socket { socket, peer: OnceLock::new() })
        };
        let wire = Self { near: socket().await, far: socket().await, cut: Arc::default() };
        for (from, to) in [(&wire.near, &wire.far), (&wire.far, &wire.near)] {
            let (from, to, cut) = (Arc::clone(from), Arc::clone(to), Arc::clone(&wire.cut));
            crate::executor::spawn(async move {
                let mut buffer = [0; 2048];
                while let Ok((length, _)) = from.socket.recv_from(&mut buffer).await {
                    if cut.load(Ordering::Relaxed) {
                        continue;
                    }
                    if let Some(peer) = to.peer.get() {
                        let _ = to.socket.send_to(&buffer[..length], peer).await;
                    }
                }
            })
            .detach();
        }
        wire
    }

    /// From now on nothing arrives, and nobody says so.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Two ends with this wire between them, open.
    pub(super) async fn pair(&self, config: PeerConfig) -> (End, End) {
        let (peer, events, offer) = Peer::offer(config.clone()).await.unwrap();
        let near = End { peer, events };
        let offer = swap(&offer, &self.near, &self.far);
        let (peer, events, answer) = Peer::answer(config, &offer).await.unwrap();
        let far = End { peer, events };
        near.peer.accept_answer(&swap(&answer, &self.far, &self.near)).await.unwrap();
        near.opened().await;
        far.opened().await;
        (near, far)
    }
}

/// Notes the address of the peer that wrote `sdp`, and puts the wire's in its place.
fn swap(sdp: &str, own: &Socket, other: &Socket) -> String {
    let line = sdp.lines().find(|line| line.starts_with("a=candidate:")).unwrap();
    let port = line.split(' ').nth(5).unwrap();
    own.peer.set(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()))).unwrap();
    let ours = other.socket.local_addr().unwrap().port();
    sdp.replace(&format!(" {port} typ"), &format!(" {ours} typ"))
}
