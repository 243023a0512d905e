//! WebSockets (RFC 6455): `/ws` sends back what it gets, `/ws/live` sends the
//! readings each second.

use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message};
use futures_util::{FutureExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode, Version};
use smol::Async;
use smol_hyper::rt::FuturesIo;

use super::{Answer, plain, set, text, to_json};
use crate::greenhouse::live::{Live, next_second};

/// The stream under a connection, as the server made it.
pub(in crate::greenhouse) type Transport = FuturesIo<Async<std::net::TcpStream>>;
type Socket = WebSocketStream<Async<std::net::TcpStream>>;

/// Largest message echoed, bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// An echo nobody uses is closed after this: longer than any pause a test makes
/// while its network is cut.
const IDLE: Duration = Duration::from_secs(600);

/// What the socket does.
pub(super) enum Kind {
    /// Sends every message back.
    Echo,
    /// Sends readings.
    Live(Arc<Live>),
}

/// Answers the handshake and serves the socket; `hold` is kept until it ends.
pub(super) fn upgrade<H: Send + Sync + 'static>(
    mut request: Request<Incoming>,
    kind: Kind,
    hold: Arc<H>,
) -> Answer {
    let wants = text(&request, header::UPGRADE).is_some_and(|u| u.eq_ignore_ascii_case("websocket"));
    let version = text(&request, header::SEC_WEBSOCKET_VERSION) == Some("13");
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let Some(key) = key.filter(|_| wants && version && request.version() >= Version::HTTP_11) else {
        let mut refusal = plain(StatusCode::UPGRADE_REQUIRED, "a WebSocket lives here\n");
        set(&mut refusal, header::UPGRADE, "websocket");
        set(&mut refusal, header::SEC_WEBSOCKET_VERSION, "13");
        return refusal;
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    smol::spawn(async move {
        // An error means that the visitor has left: there is nobody to tell.
        let _ = serve(upgrade, kind).await;
        drop(hold);
    })
    .detach();
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    set(&mut answer, header::CONNECTION, "upgrade");
    set(&mut answer, header::UPGRADE, "websocket");
    set(&mut answer, header::SEC_WEBSOCKET_ACCEPT, &accept);
    answer
}

async fn serve(upgrade: OnUpgrade, kind: Kind) -> Result<(), Error> {
    let Ok(upgraded) = upgrade.await else {
        return Err(Error::ConnectionClosed);
    };
    let mut socket = open(upgraded).await?;
    match kind {
        Kind::Echo => echo(&mut socket).await,
        Kind::Live(live) => show(&mut socket, &live).await,
    }
}

async fn open(upgraded: Upgraded) -> Result<Socket, Error> {
    let parts = upgraded.downcast::<Transport>().map_err(|_| Error::ConnectionClosed)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        // A full write buffer is an error, so leave room for a few echoes.
        .max_write_buffer_size(4 * MAX_MESSAGE);
    let stream = parts.io.into_inner();
    Ok(WebSocketStream::from_partially_read(stream, parts.read_buf.to_vec(), Role::Server, Some(config))
        .await)
}

async fn echo(socket: &mut Socket) -> Result<(), Error> {
    loop {
        let message = futures_util::select_biased! {
            message = socket.next().fuse() => message,
            _ = FutureExt::fuse(smol::Timer::after(IDLE)) => None,
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                socket.send(message).await?;
            }
            // Pings are answered by the library while we read.
            Some(Ok(Message::Close(_))) | None => return socket.close(None).await,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
        }
    }
}

async fn show(socket: &mut Socket, live: &Live) -> Result<(), Error> {
    loop {
        socket.send(Message::text(to_json(&live.readings()))).await?;
        let mut second = std::pin::pin!(next_second().fuse());
        loop {
            futures_util::select_biased! {
                message = socket.next().fuse() => match message {
                    Some(Ok(Message::Close(_))) | None => return socket.close(None).await,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                },
                () = second => break,
            }
        }
    }
}
