//! Clients over TCP or TLS: their frames, and what tells them from HTTP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_channel::Receiver;
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::future::or;

use super::{Relay, STREAM_QUEUE};
use crate::core::relay::limits::MAX_PACKET;
use crate::core::relay::message::{SHORT_HEADER, frame_length};
use crate::core::relay::{Client, Event, HEADROOM, TAILROOM, Transport};
use crate::server::admission::Ticket;
use crate::server::reactor::Alarm;

/// The first byte of every STUN request: its type's upper bits and a method
/// below 128. TLS begins with 22, HTTP with a letter.
const STUN: u8 = 0;

/// What is read of a stream at once, in bytes: a few packets.
const READ: usize = 4 * MAX_PACKET;

/// What is written at once, in bytes.
const WRITE: usize = 16 * 1024;

/// A write must be done within this time, as one to a device.
const WRITE_WITHIN: Duration = Duration::from_secs(15);

/// Reads after which other tasks get their turn.
const BATCH: u32 = 16;

/// Whether a stream that begins with this byte speaks TURN.
pub(in crate::server) fn is_turn(first: u8) -> bool {
    first == STUN
}

/// A stream whose first byte was read already.
pub(in crate::server) struct Begun<S> {
    first: Option<u8>,
    stream: S,
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Waits for the first byte; gives it with the stream, which has it still.
    pub(in crate::server) async fn open(mut stream: S) -> io::Result<(u8, Self)> {
        let mut first = [0];
        stream.read_exact(&mut first).await?;
        Ok((first[0], Self { first: Some(first[0]), stream }))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match (self.first, into.first_mut()) {
            (Some(first), Some(place)) => {
                *place = first;
                self.first = None;
                Poll::Ready(Ok(1))
            }
            _ => Pin::new(&mut self.stream).poll_read(cx, into),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = ready!(Pin::new(&mut self.stream).poll_close(cx));
        Poll::Ready(closed)
    }
}

impl Relay {
    /// Takes a stream over, in a task of its own.
    pub(in crate::server) fn take<S>(self: Arc<Self>, stream: S, peer: SocketAddr, ticket: Ticket)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let door = self.door.clone();
        door.spawn(self.stream(stream, peer, ticket)).detach();
    }

    /// Serves a client's stream until one side ends it. Without an allocation
    /// it gives way to others, as any newcomer.
    async fn stream<S>(self: Arc<Self>, stream: S, peer: SocketAddr, ticket: Ticket)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let client = Client { transport: Transport::Stream(self.stream_number()), address: peer };
        let (sender, queue) = async_channel::bounded(STREAM_QUEUE);
        {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            state.streams.insert(client, sender);
        }
        self.handle(Event::StreamOpened(client));
        let (reader, writer) = stream.split();
        let settled = AtomicBool::new(false);
        let settle = || {
            if self.lock().turn.has_allocation(client) && !settled.swap(true, Ordering::Relaxed) {
                ticket.settle();
            }
            settled.load(Ordering::Relaxed)
        };
        let gives_way = async {
            ticket.must_go().await;
            // It is told so, too, when it no longer is a newcomer.
            if settled.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(())
        };
        let served = or(read(&self, client, reader, settle), write(queue, writer));
        let ended = or(served, gives_way).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "a relay client's connection ended");
        }
        self.lock().streams.remove(&client);
        self.handle(Event::StreamClosed(client));
    }
}

/// Hands frames to the core, until something comes that is none.
async fn read(
    relay: &Arc<Relay>,
    client: Client,
    mut stream: impl AsyncRead + Unpin,
    settle: impl Fn() -> bool,
) -> io::Result<()> {
    let mut settled = false;
    // Frames lie one behind the other: each has what came before it as
    // headroom, and carries its own padding.
    let mut buffer = vec![0; HEADROOM + READ + TAILROOM];
    let (mut end, mut count) = (HEADROOM, 0u32);
    loop {
        count = count.wrapping_add(1);
        if count.is_multiple_of(BATCH) {
            smol::future::yield_now().await;
        }
        let read = stream.read(&mut buffer[end..HEADROOM + READ]).await?;
        if read == 0 {
            return Ok(());
        }
        end += read;
        let mut start = HEADROOM;
        while let Some(head) = buffer[start..end].first_chunk::<SHORT_HEADER>() {
            let length = frame_length(*head).filter(|length| *length <= MAX_PACKET);
            let length = length.ok_or_else(|| io::Error::other("neither STUN nor ChannelData"))?;
            if end - start < length {
                break;
            }
            relay.client_sent(client, &mut buffer, start..start + length);
            start += length;
        }
        settled = settled || settle();
        buffer.copy_within(start..end, HEADROOM);
        end = HEADROOM + (end - start);
    }
}

/// Writes what waits, several frames at once.
async fn write(queue: Receiver<Vec<u8>>, mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Ok(mut bytes) = queue.recv().await {
        while bytes.len() < WRITE {
            let Ok(more) = queue.try_recv() else { break };
            bytes.extend_from_slice(&more);
        }
        let written = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        or(written, async {
            Alarm::after(WRITE_WITHIN).await;
            Err(io::ErrorKind::TimedOut.into())
        })
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_is_looked_at_and_kept() {
        smol::block_on(async {
            let (first, mut begun) = Begun::open(&b"GET / HTTP/1.1"[..]).await.unwrap();
            assert!(first == b'G' && !is_turn(first));
            let mut all = Vec::new();
            begun.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"GET / HTTP/1.1");
            let (first, _) = Begun::open(&[0, 3, 0, 8][..]).await.unwrap();
            assert!(is_turn(first) && !is_turn(22));
            assert!(Begun::open(&b""[..]).await.is_err());
        });
    }
}
