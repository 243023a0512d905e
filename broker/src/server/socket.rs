//! One device's WebSocket: messages in to the core, messages out from its
//! outbox. Decides nothing but when a device has stopped reading.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_channel::Sender;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message};
use bytes::Bytes;
use farm_protocol::codec;
use farm_protocol::keys::Nonce;
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, SinkExt, StreamExt};
use ring::rand::SystemRandom;
use smol::future::{or, race};

use super::actor::Input;
use super::outbox::{Next, Outlet, Waiting, outbox};
use super::reactor::Alarm;
use crate::core::bucket::{Bucket, Rate};
use crate::core::{Claimed, ConnectionId, Event};

/// The read buffer of an idle connection, in bytes. The library's default of
/// 128 KiB would be most of what the broker needs; larger messages make it
/// grow while they last.
const READ_BUFFER: usize = 512;

/// What is collected before it is given to the network, in bytes: many short
/// messages at once (presence of 256 farms) go in a few packets.
const WRITE_BUFFER: usize = 4 * 1024;

/// Messages sent in a row before anything is read again.
const SEND_BATCH: usize = 64;

/// A message must be on its way within this time: three times what the
/// largest takes on a 64 kbit/s link.
const WRITE_WITHIN: Duration = Duration::from_secs(15);

/// How long the last word gets to be read, so that it is not lost to a reset.
const FAREWELL: Duration = Duration::from_secs(2);

/// Most bytes still read, and thrown away, during the farewell.
const FAREWELL_BYTES: usize = 256 * 1024;

/// Pings and pongs of the WebSocket itself. Devices have no need of them;
/// proxies send one every few seconds.
const CONTROL_FRAMES: Rate = Rate::per_second(20, 2);

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The core closed it and all was sent.
    Finished,
    /// The device is gone.
    Gone,
    /// The device closes the WebSocket properly.
    Leaving,
    /// The device does not read.
    Slow,
}

/// A device's WebSocket with the ends that it needs.
pub(super) struct Socket<S> {
    stream: WebSocketStream<S>,
    connection: ConnectionId,
    inputs: Sender<Input>,
    outlet: Outlet,
    control_frames: Bucket,
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(codec::MAX_MESSAGE))
        .max_frame_size(Some(codec::MAX_MESSAGE))
}

impl<S> Socket<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Takes over a stream after the HTTP handshake and announces it to the
    /// core. `None` when the broker is ending. Boxed, because a future keeps
    /// a copy of what is moved through it at each step.
    pub(super) async fn open(
        stream: S,
        already_read: Bytes,
        connection: ConnectionId,
        (observed, claim): (SocketAddr, Option<Box<Claimed>>),
        inputs: Sender<Input>,
        waiting: &Waiting,
    ) -> Option<Box<Self>> {
        let nonce = Nonce::generate(&SystemRandom::new())
            .inspect_err(|error| tracing::error!(%error, "no challenge for a device"))
            .ok()?;
        let stream = if already_read.is_empty() {
            WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await
        } else {
            let read = already_read.to_vec();
            WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config())).await
        };
        let (inlet, outlet) = outbox(waiting);
        let event = Event::Opened { connection, observed, nonce, claim };
        inputs.send(Input::Opened(event, connection, inlet)).await.ok()?;
        let control_frames = Bucket::default();
        Some(Box::new(Self { stream, connection, inputs, outlet, control_frames }))
    }

    /// Talks until one side ends it.
    pub(super) async fn run(mut self: Box<Self>) {
        let end = self.converse().await;
        if end != End::Finished {
            let (connection, slow) = (self.connection, end == End::Slow);
            self.tell(Event::Closed { connection, slow }).await;
        }
        // Boxed: their memory is needed for seconds, not while the device stays.
        match end {
            End::Finished => Box::pin(farewell(self.stream)).await,
            End::Leaving => Box::pin(see_off(self.stream)).await,
            End::Gone | End::Slow => {}
        }
    }

    async fn tell(&mut self, event: Event) {
        // Refused only when the broker ends; the outbox says so too.
        let _ended = self.inputs.send(Input::Event(event)).await;
    }

    async fn converse(&mut self) -> End {
        let mut readable = true;
        loop {
            let outlet = &self.outlet;
            let next = if readable {
                let stream = &mut self.stream;
                // Fair: neither a flood in nor one out starves the other.
                race(async { Ok(outlet.next().await) }, async { Err(stream.next().await) }).await
            } else {
                Ok(outlet.next().await)
            };
            match next {
                Ok(Next::Message(bytes)) => {
                    if let Err(end) = self.send(bytes).await {
                        return end;
                    }
                }
                Ok(Next::Closed) => return End::Finished,
                Ok(Next::Dropped) => return End::Slow,
                Err(Some(Ok(message))) => {
                    if !self.received(message).await {
                        return End::Leaving;
                    }
                    // One message, then all others have their turn: a flood of
                    // one device must not fill the core's queue by itself.
                    smol::future::yield_now().await;
                }
                Err(Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)))) => {
                    return End::Gone;
                }
                Err(Some(Err(Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_)))) => {
                    // Not to be read on, but still to be told why.
                    readable = false;
                    let connection = self.connection;
                    self.tell(Event::Malformed { connection }).await;
                }
                Err(Some(Err(_)) | None) => return End::Gone,
            }
        }
    }

    /// `false` when the device is closing.
    async fn received(&mut self, message: Message) -> bool {
        let connection = self.connection;
        match message {
            Message::Binary(bytes) => {
                let event = match codec::decode(&bytes) {
                    Ok(message) => Event::Message { connection, message },
                    Err(error) => {
                        tracing::debug!(?connection, %error, "malformed message");
                        Event::Malformed { connection }
                    }
                };
                self.tell(event).await;
            }
            Message::Ping(_) | Message::Pong(_) => {
                if !self.control_frames.take(CONTROL_FRAMES, 1, Instant::now()) {
                    self.tell(Event::Malformed { connection }).await;
                }
            }
            Message::Text(_) => self.tell(Event::Malformed { connection }).await,
            Message::Close(_) => return false,
            // Never given to readers.
            Message::Frame(_) => {}
        }
        true
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), End> {
        let sending = async {
            let mut next = Some(bytes);
            let mut batch = SEND_BATCH;
            while let Some(bytes) = next {
                self.stream.feed(Message::Binary(bytes)).await.map_err(|_| End::Gone)?;
                batch -= 1;
                next = if batch == 0 { None } else { self.outlet.more() };
            }
            self.stream.flush().await.map_err(|_| End::Gone)
        };
        let late = async {
            Alarm::after(WRITE_WITHIN).await;
            Err(End::Slow)
        };
        let dropped = async {
            self.outlet.dropped().await;
            Err(End::Slow)
        };
        or(sending, or(dropped, late)).await
    }
}

/// Says goodbye and waits a moment for the device to read it: closing at once
/// with something unread would reset the connection, and with it the reason.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(mut stream: WebSocketStream<S>) {
    let polite = async {
        stream.send(Message::Close(None)).await.map_err(io::Error::other)?;
        let mut stream = stream.into_inner();
        stream.close().await?;
        let mut scrap = [0; 1024];
        let mut left = FAREWELL_BYTES;
        while left > 0 {
            let count = stream.read(&mut scrap).await?;
            if count == 0 {
                break;
            }
            left = left.saturating_sub(count);
        }
        Ok(())
    };
    let late = async {
        Alarm::after(FAREWELL).await;
        Ok(())
    };
    let ended: io::Result<()> = or(polite, late).await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a device left before the farewell");
    }
}

/// Answers a device's closing handshake, which reading on does.
async fn see_off<S: AsyncRead + AsyncWrite + Unpin>(mut stream: WebSocketStream<S>) {
    let polite = async { while let Some(Ok(_)) = stream.next().await {} };
    or(polite, async {
        Alarm::after(FAREWELL).await;
    })
    .await;
}
