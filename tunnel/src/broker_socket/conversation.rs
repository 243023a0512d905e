//! One socket's life: dial, authenticate, then messages both ways until
//! either side ends it. It reports everything and decides nothing.

use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::tungstenite::{Bytes, Message};
use farm_protocol::broker::{Authenticate, Claim, FromBroker, Refused, ToBroker, Welcome};
use farm_protocol::channel::{self, Channel};
use farm_protocol::codec;
use farm_protocol::keys::{DeviceKey, Nonce};
use futures_util::StreamExt;

use super::dial::{Dialer, Socket};
use crate::link::SocketId;

/// For a last goodbye to leave; nobody waits for it.
const GOODBYE_WITHIN: Duration = Duration::from_millis(500);

/// After this long without a message of ours an empty pong is sent, which asks
/// for no answer (RFC 6455, section 5.5.3): 110 bytes with TCP's acknowledgement,
/// 132 over TLS. When the public address changes behind the router, it comes to
/// nobody or is answered with a reset: noticed within 24 s though nothing else is
/// sent. Just below the 20 s of the broker's own keepalive, which a kernel's
/// probe would not hold back but data does.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(19);

/// What a socket reports.
#[derive(Debug)]
pub(super) enum Report {
    Opened,
    Failed(String),
    Closed(String),
    Welcomed(Welcome),
    Refused(Refused),
    Message(FromBroker),
}

/// Who is talking.
pub(super) struct Speaker {
    pub(super) key: Arc<DeviceKey>,
    pub(super) claim: Claim,
    pub(super) name: Option<String>,
    pub(super) enrollment_token: Option<String>,
}

impl Speaker {
    /// What goes with the request: the broker lets in by it whom it knows.
    fn claim(&self, channel: &Channel) -> Option<String> {
        let mut claim = Authenticate::sign_for_channel(&self.key, channel, self.claim.clone());
        claim.name = self.name.clone();
        channel::to_header(claim)
    }

    /// The answer to a challenge, with all that the device has to show.
    fn answer(&self, nonce: &Nonce) -> Authenticate {
        let mut answer = Authenticate::sign(&self.key, nonce, self.claim.clone());
        answer.name = self.name.clone();
        answer.enrollment_token = self.enrollment_token.clone();
        answer
    }
}

/// Runs a conversation. It ends when `outgoing` is closed and drained, at any stage.
pub(super) async fn converse(
    socket: SocketId,
    dialer: Dialer,
    speaker: Speaker,
    outgoing: async_channel::Receiver<ToBroker>,
    reports: async_channel::Sender<(SocketId, Report)>,
) {
    let dialed =
        smol::future::or(async { Some(dialer.dial(|channel| speaker.claim(channel)).await) }, async {
            // Nothing is queued before the welcome, so this waits for the close.
            let _ = outgoing.recv().await;
            None
        });
    let report = match dialed.await {
        None => return,
        Some(Err(error)) => Report::Failed(error.to_string()),
        Some(Ok(stream)) => {
            if reports.send((socket, Report::Opened)).await.is_err() {
                return;
            }
            match talk(socket, stream, &speaker, &outgoing, &reports).await {
                Some(reason) => Report::Closed(reason),
                None => return,
            }
        }
    };
    // The owner has gone: nobody is left to tell.
    let _ = reports.send((socket, report)).await;
}

/// Why the broker's side ended it; `None` where ours did.
async fn talk(
    socket: SocketId,
    mut stream: Socket,
    speaker: &Speaker,
    outgoing: &async_channel::Receiver<ToBroker>,
    reports: &async_channel::Sender<(SocketId, Report)>,
) -> Option<String> {
    enum Next {
        Incoming(Option<Result<Message, async_tungstenite::tungstenite::Error>>),
        Outgoing(Option<ToBroker>),
        Quiet,
    }
    let mut welcomed = false;
    let mut quiet = smol::Timer::after(SIGN_OF_LIFE_EVERY);
    loop {
        let next = smol::future::or(async { Next::Outgoing(outgoing.recv().await.ok()) }, async {
            Next::Incoming(stream.next().await)
        });
        let next = smol::future::or(next, async {
            (&mut quiet).await;
            Next::Quiet
        });
        match next.await {
            Next::Quiet => {
                if let Err(error) = stream.send(Message::Pong(Bytes::new())).await {
                    return Some(error.to_string());
                }
                quiet.set_after(SIGN_OF_LIFE_EVERY);
            }
            Next::Outgoing(Some(message)) => {
                if let Err(reason) = send(&mut stream, &message).await {
                    return Some(reason);
                }
                quiet.set_after(SIGN_OF_LIFE_EVERY);
            }
            Next::Outgoing(None) => {
                let close = async {
                    // Best effort: the other end may be long gone.
                    let _ = stream.close(None).await;
                };
                smol::future::or(close, async {
                    smol::Timer::after(GOODBYE_WITHIN).await;
                })
                .await;
                return None;
            }
            Next::Incoming(None) => return Some(String::new()),
            Next::Incoming(Some(Err(error))) => return Some(error.to_string()),
            Next::Incoming(Some(Ok(Message::Binary(bytes)))) => {
                let message = match codec::decode::<FromBroker>(&bytes) {
                    Ok(message) => message,
                    Err(error) => return Some(format!("the broker sent nonsense: {error}")),
                };
                let report = match message {
                    FromBroker::Challenge(challenge) if !welcomed => {
                        let answer = ToBroker::Authenticate(Box::new(speaker.answer(&challenge.nonce)));
                        if let Err(reason) = send(&mut stream, &answer).await {
                            return Some(reason);
                        }
                        continue;
                    }
                    FromBroker::Welcome(welcome) if !welcomed => {
                        welcomed = true;
                        Report::Welcomed(welcome)
                    }
                    FromBroker::Refused(refused) => Report::Refused(refused),
                    message if welcomed => Report::Message(message),
                    FromBroker::RetryAfter(after) => Report::Message(FromBroker::RetryAfter(after)),
                    _ => return Some("the broker sent a message out of turn".to_owned()),
                };
                reports.send((socket, report)).await.ok()?;
            }
            Next::Incoming(Some(Ok(Message::Close(frame)))) => {
                return Some(frame.map(|f| f.reason.to_string()).unwrap_or_default());
            }
            // Pings are answered by the library; text is not our protocol.
            Next::Incoming(Some(Ok(Message::Text(_)))) => {
                return Some("the broker sent text".to_owned());
            }
            Next::Incoming(Some(Ok(_))) => {}
        }
    }
}

async fn send(stream: &mut Socket, message: &ToBroker) -> Result<(), String> {
    let bytes = codec::encode(message).map_err(|e| e.to_string())?;
    stream.send(Message::binary(bytes)).await.map_err(|e| e.to_string())
}
