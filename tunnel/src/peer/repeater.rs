//! Sockets that send copies as [`Redundancy`] says, for all of a connection's sockets together.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_channel::{Receiver, Sender, bounded};
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::redundancy::{Pace, Redundancy};

/// Copies that wait for their time; their bytes are bounded by the budget for copies. An opening
/// has about 20 packets, each with three of them.
const WAITING: usize = 128;

/// What is known of a path's loss, for the connections that follow each other on it. Clones share
/// it.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownLoss(Arc<Mutex<Option<Instant>>>);

impl KnownLoss {
    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's copies. Clones share them.
#[derive(Clone)]
pub(super) struct Repeater {
    redundancy: Arc<Mutex<Redundancy>>,
    known: KnownLoss,
    later: Sender<Later>,
}

/// A copy that waits for its time.
struct Later {
    at: Instant,
    /// Made while the connection opened, and of no use after.
    opening: bool,
    socket: Arc<dyn AsyncUdpSocket>,
    destination: SocketAddr,
    contents: Arc<[u8]>,
    segment_size: Option<usize>,
}

impl Repeater {
    /// For a new connection.
    pub(super) fn new(known: KnownLoss) -> Self {
        let redundancy = Arc::new(Mutex::new(Redundancy::new(*known.until(), Instant::now())));
        let (later, waiting) = bounded(WAITING);
        // Ends with the last sender: that of the driver's last socket, or of the connection.
        crate::executor::spawn(send_later(waiting, Arc::clone(&redundancy))).detach();
        Self { redundancy, known, later }
    }

    /// The connection's channels are open.
    pub(super) fn opened(&self) {
        self.redundancy().opened();
    }

    /// When a message of the data channel may be sent.
    pub(super) fn pace(&self, outstanding: usize, bytes: usize) -> Pace {
        self.redundancy().pace(outstanding, bytes, Instant::now())
    }

    /// A socket of the connection's.
    pub(super) fn wrap(&self, socket: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(RepeatingSocket { socket, repeater: self.clone() })
    }

    fn redundancy(&self) -> MutexGuard<'_, Redundancy> {
        lock(&self.redundancy)
    }

    fn received(&self, buffer: &[u8], meta: &RecvMeta, now: Instant) {
        let mut redundancy = self.redundancy();
        let before = redundancy.lossy_until();
        let came = buffer.get(..meta.len).unwrap_or(buffer);
        for datagram in came.chunks(meta.stride.max(1)) {
            redundancy.received(datagram, now);
        }
        let until = redundancy.lossy_until();
        if until != before {
            *self.known.until() = until;
            if before.is_none_or(|before| before <= now) {
                tracing::info!("the path loses packets: each is sent more than once");
            }
        }
    }

    /// Sends the copies of what was just sent.
    fn repeat(&self, socket: &Arc<dyn AsyncUdpSocket>, cx: &mut Context<'_>, sent: &Transmit<'_>) {
        let now = Instant::now();
        let (delays, opening) = {
            let mut redundancy = self.redundancy();
            (redundancy.copies(sent.contents, now), !redundancy.is_open())
        };
        let mut contents = None;
        for &delay in delays {
            if delay == Duration::ZERO {
                // Full: the copy is lost, as it may be.
                let _ = socket.poll_send(cx, sent);
                continue;
            }
            let later = Later {
                at: now + delay,
                opening,
                socket: Arc::clone(socket),
                destination: sent.destination,
                contents: Arc::clone(contents.get_or_insert_with(|| Arc::from(sent.contents))),
                segment_size: sent.segment_size,
            };
            // Full: the same.
            let _ = self.later.try_send(later);
        }
    }
}

fn lock(redundancy: &Mutex<Redundancy>) -> MutexGuard<'_, Redundancy> {
    redundancy.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends copies when their time has come.
async fn send_later(waiting: Receiver<Later>, redundancy: Arc<Mutex<Redundancy>>) {
    let mut queue: BTreeMap<(Instant, u64), Later> = BTreeMap::new();
    let mut serial = 0;
    loop {
        let due = queue.keys().next().map(|(at, _)| *at);
        let timer = async {
            match due {
                Some(at) => drop(smol::Timer::at(at).await),
                None => std::future::pending().await,
            }
            Ok(None)
        };
        match smol::future::or(timer, async { waiting.recv().await.map(Some) }).await {
            Ok(Some(later)) if queue.len() < WAITING => {
                queue.insert((later.at, serial), later);
                serial += 1;
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                if let Some((_, later)) = queue.pop_first()
                    && !(later.opening && lock(&redundancy).is_open())
                {
                    send(&later).await;
                }
            }
            Err(_) => return,
        }
    }
}

/// Sends a copy if the socket takes it now.
async fn send(later: &Later) {
    let transmit = Transmit {
        destination: later.destination,
        ecn: None,
        contents: &later.contents,
        segment_size: later.segment_size,
        src_ip: None,
    };
    std::future::poll_fn(|cx| {
        let _ = later.socket.poll_send(cx, &transmit);
        Poll::Ready(())
    })
    .await;
}

struct RepeatingSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    repeater: Repeater,
}

impl fmt::Debug for RepeatingSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RepeatingSocket").field(&self.socket).finish()
    }
}

impl AsyncUdpSocket for RepeatingSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let sent = std::task::ready!(self.socket.poll_send(cx, transmit));
        if sent.is_ok() {
            self.repeater.repeat(&self.socket, cx, transmit);
        }
        Poll::Ready(sent)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = std::task::ready!(self.socket.poll_recv(cx, bufs, meta));
        if let Ok(count) = received {
            let now = Instant::now();
            for (buffer, meta) in bufs.iter().zip(meta.iter()).take(count) {
                self.repeater.received(buffer, meta, now);
            }
        }
        Poll::Ready(received)
    }

    fn max_gso_segments(&self) -> usize {
        self.socket.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.socket.max_gro_segments()
    }
}
