//! A wire between two peers on loopback, with a delay, a bandwidth and a bounded queue.

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use smol::net::UdpSocket;

/// How much the wire's queue holds before it drops, as time at its bandwidth: what a modem does.
const QUEUE: Duration = Duration::from_millis(150);

/// What the wire is like.
#[derive(Clone, Copy)]
pub(crate) struct Quality {
    pub(crate) one_way: Duration,
    pub(crate) bytes_per_second: f64,
    /// One packet in this many is lost; 0 is none.
    pub(crate) loss: u64,
}

/// One end of the wire: a socket that is the *other* peer as far as this peer can tell.
struct End {
    socket: UdpSocket,
    peer: OnceLock<SocketAddr>,
}

/// The wire; it works until the process ends.
pub(crate) struct Wire {
    near: Arc<End>,
    far: Arc<End>,
}

impl Wire {
    pub(crate) async fn new(quality: Quality) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let near = Arc::new(End::new().await?);
        let far = Arc::new(End::new().await?);
        smol::spawn(carry(Arc::clone(&near), Arc::clone(&far), quality)).detach();
        smol::spawn(carry(Arc::clone(&far), Arc::clone(&near), quality)).detach();
        Ok(Self { near, far })
    }

    /// The near peer's description as the far one shall see it.
    pub(crate) fn to_far(&self, sdp: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
        swap(sdp, &self.near, &self.far)
    }

    /// The far peer's description as the near one shall see it.
    pub(crate) fn to_near(&self, sdp: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
        swap(sdp, &self.far, &self.near)
    }
}

impl End {
    async fn new() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        // What the wire drops is decided below, not by the kernel.
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &(8 << 20)))?;
        Ok(Self { socket, peer: OnceLock::new() })
    }
}

/// Notes the address of the peer that wrote `sdp`, and names the wire's end in its place.
fn swap(sdp: &str, own: &End, other: &End) -> Result<String, Box<dyn Error + Send + Sync>> {
    let line = sdp.lines().find(|line| line.starts_with("a=candidate:")).ok_or("no candidate")?;
    let port = line.split_whitespace().nth(5).ok_or("no port")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    own.peer.set(address).map_err(|_| "a second description")?;
    let ours = other.socket.local_addr()?.port();
    Ok(sdp.replace(&format!(" {port} typ"), &format!(" {ours} typ")))
}

async fn carry(from: Arc<End>, to: Arc<End>, quality: Quality) {
    let (queue, queued) = async_channel::unbounded::<(Instant, Vec<u8>)>();
    smol::spawn(async move {
        while let Ok((at, packet)) = queued.recv().await {
            smol::Timer::at(at).await;
            if let Some(peer) = to.peer.get() {
                // A peer that is gone refuses packets; so be it.
                let _ = to.socket.send_to(&packet, peer).await;
            }
        }
    })
    .detach();
    let mut buffer = [0; 2048];
    let mut free = Instant::now();
    // Not in step with anything, and the same in every run (Knuth's multiplicative generator).
    let mut random: u64 = 1;
    loop {
        let Ok((length, _)) = from.socket.recv_from(&mut buffer).await else { continue };
        let now = Instant::now();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if free > now + QUEUE || (quality.loss > 0 && (random >> 33).is_multiple_of(quality.loss)) {
            continue;
        }
        free = free.max(now) + Duration::from_secs_f64(length as f64 / quality.bytes_per_second);
        if queue.try_send((free + quality.one_way, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}
