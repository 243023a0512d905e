//! A TLS connection that needs no memory of its own between two records.
//!
//! The library's usual interface keeps 4 KiB for what it reads, for as long as
//! the connection lasts: of all that an idle device costs the broker, that was
//! more than a third. Its other interface leaves the buffers to the caller.
//! Here records are read into, and written from, one buffer of the thread; a
//! connection holds bytes only while a record is incomplete, while its reader
//! has not taken them, or while the network does not.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use farm_protocol::channel::Channel;
use futures_rustls::rustls::server::UnbufferedServerConnection;
use futures_rustls::rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use futures_rustls::rustls::{self, ProtocolVersion, ServerConfig};
use futures_util::{AsyncRead, AsyncWrite};

use super::channel;

/// Plaintext of one record, at most (RFC 8446 section 5.1).
const MAX_PLAINTEXT: usize = 16 * 1024;

/// One record, at most: its head, and what TLS 1.2 may add (RFC 5246 section
/// 6.2.3), which is more than 1.3 does.
const MAX_RECORD: usize = 5 + MAX_PLAINTEXT + 2048;

/// Bytes of a handshake message that come in several records, at most: what
/// the library takes.
const MAX_INCOMPLETE: usize = 64 * 1024;

/// What a record adds to what is in it (head, nonce, tag, kind: 5 + 8 + 16 + 1),
/// with room for an alert.
const OVERHEAD: usize = 64;

/// Ciphertext that waits, in bytes, up to which more is put behind it: the
/// tickets.
const MAX_TOGETHER: usize = 1024;

/// First guess at a handshake message: a certificate's chain is longer.
const HANDSHAKE_GUESS: usize = 512;

thread_local! {
    /// What is being read or written at this moment. Never held across a wait.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The server's end of a connection.
pub(in crate::server) struct TlsStream<S> {
    io: S,
    session: UnbufferedServerConnection,
    /// Until somebody takes it.
    channel: Option<Box<Channel>>,
    /// Ciphertext that is no whole record yet.
    incoming: Vec<u8>,
    /// Plaintext that the reader has not taken yet.
    plaintext: Pending,
    /// Ciphertext that the network has not taken yet.
    outgoing: Pending,
    /// The peer said that it sends no more.
    ended: bool,
    /// We said so.
    closing: bool,
}

/// Bytes that are taken from the front. Without memory when empty.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    taken: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// Where plaintext goes that comes while somebody reads.
struct Wanted<'a> {
    place: &'a mut [u8],
    given: usize,
}

/// What is to be said as soon as data may be sent.
#[derive(Clone, Copy)]
enum Say<'a> {
    Nothing,
    Data(&'a [u8]),
    Goodbye,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Shakes hands. Boxed: it is a kilobyte, and is handed on many times before
    /// it is where it stays.
    ///
    /// # Errors
    /// The network's, or what the peer did wrong: it has been told then, as far
    /// as that goes at once.
    pub(super) async fn accept(io: S, config: Arc<ServerConfig>) -> io::Result<Box<Self>> {
        let mut stream = Box::new(Self {
            io,
            session: UnbufferedServerConnection::new(config).map_err(io::Error::other)?,
            channel: None,
            incoming: Vec::new(),
            plaintext: Pending::default(),
            outgoing: Pending::default(),
            ended: false,
            closing: false,
        });
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// What both sides want to speak inside (RFC 7301).
    pub(super) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// What the two ends of this connection alone know; once. `None` before TLS
    /// 1.3.
    pub(in crate::server) fn take_channel(&mut self) -> Option<Box<Channel>> {
        self.channel.take()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let done = !self.session.is_handshaking();
            if done && self.session.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
                // Nobody waits for the tickets that are left: they go with the
                // first answer.
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_outgoing(cx))?;
            if done {
                return Poll::Ready(Ok(()));
            }
            let mut nobody = Wanted { place: &mut [], given: 0 };
            if ready!(self.poll_more(cx, &mut nobody))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads ciphertext and takes it in. Gives how many bytes came.
    fn poll_more(&mut self, cx: &mut Context<'_>, wanted: &mut Wanted<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let held = self.incoming.len();
            if held > MAX_INCOMPLETE {
                return Poll::Ready(Err(io::Error::other("a handshake message is too long")));
            }
            if scratch.len() < held + MAX_RECORD {
                scratch.resize(held + MAX_RECORD, 0);
            }
            scratch[..held].copy_from_slice(&self.incoming);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut scratch[held..]))?;
            let shaking = self.channel.is_none() && self.session.is_handshaking();
            let taken = self.take_in(&mut scratch[..held + read], wanted, Say::Nothing);
            if shaking {
                self.channel = channel::take().map(Box::new);
            }
            if taken.is_err() {
                // The alert, as far as the network takes it.
                let _lost = self.poll_outgoing(cx);
            }
            Poll::Ready(taken.map(|()| read))
        })
    }

    /// Takes in what came, and says something. What is incomplete is kept.
    fn take_in(&mut self, incoming: &mut [u8], wanted: &mut Wanted<'_>, say: Say<'_>) -> io::Result<()> {
        let Self { session, plaintext, outgoing, ended, .. } = self;
        let outgoing = &mut outgoing.bytes;
        let mut used = 0;
        // Each round takes something from what came or from what is to be said.
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                session.process_tls_records(&mut incoming[used..]);
            let mut all = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        discard += record.discard;
                        wanted.give(record.payload, &mut plaintext.bytes);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(outgoing, HANDSHAKE_GUESS, |place| match data.encode(place) {
                        Err(EncodeError::InsufficientSize(size)) => Err(Some(size.required_size)),
                        Err(EncodeError::AlreadyEncoded) => Err(None),
                        Ok(length) => Ok(length),
                    })?;
                }
                // Not yet, but before all that comes later.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => *ended = true,
                Ok(ConnectionState::Closed) => (*ended, all) = (true, true),
                Ok(ConnectionState::BlockedHandshake) => all = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    all = true;
                    let guess = OVERHEAD + if let Say::Data(data) = say { data.len() } else { 0 };
                    append(outgoing, guess, |place| {
                        let said = match say {
                            Say::Nothing => return Ok(0),
                            Say::Data(data) => traffic.encrypt(data, place),
                            Say::Goodbye => traffic.queue_close_notify(place),
                        };
                        said.map_err(|error| match error {
                            EncryptError::InsufficientSize(size) => Some(size.required_size),
                            EncryptError::EncryptExhausted => None,
                        })
                    })?;
                }
                Ok(other) => return Err(io::Error::other(format!("TLS came to {other:?}"))),
                Err(error) => {
                    last_word(session, outgoing);
                    return Err(broken(error));
                }
            }
            used += discard;
            if all {
                break;
            }
        }
        self.incoming = incoming[used..].to_vec();
        Ok(())
    }

    fn say(&mut self, say: Say<'_>) -> io::Result<()> {
        let mut incoming = std::mem::take(&mut self.incoming);
        self.take_in(&mut incoming, &mut Wanted { place: &mut [], given: 0 }, say)
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, self.outgoing.rest()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.take(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl Wanted<'_> {
    fn give(&mut self, payload: &[u8], rest: &mut Vec<u8>) {
        let count = payload.len().min(self.place.len() - self.given);
        self.place[self.given..self.given + count].copy_from_slice(&payload[..count]);
        self.given += count;
        rest.extend_from_slice(&payload[count..]);
    }
}

/// Appends what `encode` writes; it says how much room it needs, if that is
/// more than was guessed.
fn append(
    bytes: &mut Vec<u8>,
    guess: usize,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> io::Result<()> {
    let start = bytes.len();
    let mut room = guess;
    let length = loop {
        bytes.resize(start + room, 0);
        match encode(&mut bytes[start..]) {
            Ok(length) => break length,
            Err(Some(needed)) if needed > room => room = needed,
            Err(_) => return Err(io::Error::other("TLS has nothing more to say on this connection")),
        }
    };
    bytes.truncate(start + length);
    Ok(())
}

/// The alert that tells the peer what was wrong. What was wrong is not looked at
/// again: it would be answered again.
fn last_word(session: &mut UnbufferedServerConnection, outgoing: &mut Vec<u8>) {
    while let Ok(ConnectionState::EncodeTlsData(mut data)) = session.process_tls_records(&mut []).state {
        let room = outgoing.len();
        outgoing.resize(room + OVERHEAD, 0);
        // An alert is 2 bytes; what else could wait is of no use any more.
        let length = data.encode(&mut outgoing[room..]).unwrap_or(0);
        outgoing.truncate(room + length);
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            if !this.plaintext.is_empty() {
                let rest = this.plaintext.rest();
                let count = rest.len().min(into.len());
                into[..count].copy_from_slice(&rest[..count]);
                this.plaintext.take(count);
                return Poll::Ready(Ok(count));
            }
            if this.ended || into.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let mut wanted = Wanted { place: into, given: 0 };
            let before = this.outgoing.rest().len();
            let read = ready!(this.poll_more(cx, &mut wanted))?;
            if this.outgoing.rest().len() > before
                && let Poll::Ready(Err(error)) = this.poll_outgoing(cx)
            {
                // What the protocol itself answers, such as to new keys.
                return Poll::Ready(Err(error));
            }
            if wanted.given > 0 {
                return Poll::Ready(Ok(wanted.given));
            }
            if read == 0 && !this.ended {
                // Perhaps somebody cut it short (RFC 8446 section 6.1).
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.outgoing.rest().len() > MAX_TOGETHER {
            ready!(self.poll_outgoing(cx))?;
        }
        if self.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(MAX_PLAINTEXT);
        self.say(Say::Data(&bytes[..count]))?;
        // Taken, whether the network takes it now or later.
        match self.poll_outgoing(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_outgoing(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            self.closing = true;
            self.say(Say::Goodbye)?;
        }
        ready!(self.poll_outgoing(cx))?;
        Pin::new(&mut self.io).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
