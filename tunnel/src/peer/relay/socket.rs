//! A socket of the engine's whose messages to the relay are ours to carry.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use async_channel::Receiver;
use futures_util::task::AtomicWaker;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::{Relay, STAND_INS, Via};

pub(super) struct RelaySocket {
    socket: Arc<dyn AsyncUdpSocket>,
    /// Its place among the connection's.
    index: usize,
    relay: Relay,
    arrived: Receiver<Vec<u8>>,
    waker: Arc<AtomicWaker>,
    /// The server was heard; the relay answered. Each is told once.
    heard: AtomicBool,
    answered: AtomicBool,
}

impl RelaySocket {
    pub(super) fn new(
        socket: Arc<dyn AsyncUdpSocket>,
        index: usize,
        relay: Relay,
        arrived: Receiver<Vec<u8>>,
        waker: Arc<AtomicWaker>,
    ) -> Self {
        let told = || AtomicBool::new(false);
        Self { socket, index, relay, arrived, waker, heard: told(), answered: told() }
    }

    /// A message of the relay's came.
    fn relay_answers(&self, via: Via) {
        if !self.answered.swap(true, Ordering::Relaxed) {
            self.relay.shared.answered(self.index, via);
            self.relay.look();
        }
    }

    /// The next message from the stream, as a datagram.
    fn take_arrived(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Option<usize> {
        let (Some(buffer), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else { return None };
        loop {
            let message = self.arrived.try_recv().ok()?;
            self.relay_answers(Via::Stream);
            // Longer than any datagram the engine expects: of no use to it.
            let Some(place) = buffer.get_mut(..message.len()) else { continue };
            place.copy_from_slice(&message);
            *meta = RecvMeta::default();
            meta.addr = self.stand_in();
            meta.len = message.len();
            meta.stride = message.len();
            return Some(1);
        }
    }

    fn stand_in(&self) -> SocketAddr {
        let [v4, v6] = STAND_INS;
        if self.socket.local_addr().is_ok_and(|at| at.is_ipv6()) { v6 } else { v4 }
    }

    /// A datagram came: one of the relay's gets the address that the engine knows.
    fn came(&self, buffer: &[u8], meta: &mut RecvMeta) {
        if self.relay.shared.udp.get() != Some(&meta.addr) {
            return;
        }
        if !self.heard.swap(true, Ordering::Relaxed) {
            self.relay.shared.state().gate.udp_works();
        }
        // The answer to a binding request is for whoever wants to know our address.
        let is_binding = matches!(buffer.first_chunk(), Some([0x01, 0x01 | 0x11]));
        if !is_binding {
            self.relay_answers(Via::Udp);
            meta.addr = self.stand_in();
        }
    }
}

impl AsyncUdpSocket for RelaySocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        if !STAND_INS.contains(&transmit.destination) {
            return self.socket.poll_send(cx, transmit);
        }
        let length = transmit.contents.len();
        let to = self.relay.shared.outgoing(self.index, transmit.contents);
        if !self.answered.load(Ordering::Relaxed) {
            // It may be what a stream was waiting for.
            self.relay.look();
        }
        match to {
            Some(destination) => {
                let Transmit { ecn, contents, segment_size, src_ip, .. } = *transmit;
                let transmit = Transmit { destination, ecn, contents, segment_size, src_ip };
                match self.socket.poll_send(cx, &transmit) {
                    // The engine forgets a relay after one failed write, and the network may be
                    // there again before the next.
                    Poll::Ready(Err(_)) => Poll::Ready(Ok(length)),
                    sent => sent,
                }
            }
            // It waits, or goes another way.
            None => Poll::Ready(Ok(length)),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.waker.register(cx.waker());
        if let Some(count) = self.take_arrived(bufs, meta) {
            return Poll::Ready(Ok(count));
        }
        let received = ready!(self.socket.poll_recv(cx, bufs, meta));
        if let Ok(count) = received {
            for (buffer, meta) in bufs.iter().zip(meta.iter_mut()).take(count) {
                self.came(buffer, meta);
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

impl fmt::Debug for RelaySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RelaySocket").field(&self.socket).finish()
    }
}
