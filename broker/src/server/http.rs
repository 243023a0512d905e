//! The HTTP/1.1 front: health, the WebSocket upgrade, and the site.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use async_tungstenite::tungstenite::handshake::server::create_response;
use bytes::Bytes;
use farm_protocol::broker::Authenticate;
use farm_protocol::channel::{self, CLAIM_HEADER, Channel};
use farm_protocol::{CONNECT_PATH, SUBPROTOCOL};
use futures_util::{AsyncRead, AsyncWrite};
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use smol::future::or;
use smol_hyper::rt::FuturesIo;

use super::actor::Input;
use super::address::client_address;
use super::admission::Ticket;
use super::origin;
use super::outbox::Waiting;
use super::reactor::{Alarm, AlarmTimer, Stream};
use super::relay::{Begun, Relay, is_turn};
use super::site::{Page, Site, text};
use super::socket::Socket;
use super::tally::Tally;
use super::thread::Door;
use super::tls::Tls;
use super::together::Held;
use crate::core::bucket::{Bucket, Rate};
use crate::core::{Claimed, ConnectionId};

/// Path of the health check.
pub const HEALTH_PATH: &str = "/healthz";

/// The head of a request must be there within this time, also when it
/// trickles in or when nothing follows an earlier request.
pub const HEADER_WITHIN: Duration = Duration::from_secs(10);

/// A connection that stays with HTTP is closed after this time, whatever it
/// is doing: a site of a few megabytes on a slow mobile link.
pub const HTTP_LASTS: Duration = Duration::from_secs(120);

/// When the broker ends, whoever was accepted just before may still shake hands
/// and ask for this long: TLS and the head of a request follow within three
/// round trips of a mobile link.
const DRAIN: Duration = Duration::from_secs(1);

/// An answer that is on its way when that is over gets so much more: together
/// below what the broker's end waits for.
const LAST_ANSWER: Duration = Duration::from_millis(1500);

/// Largest head of a request, in bytes. Browsers send below 2 KiB here.
pub(super) const MAX_HEAD: usize = 8 * 1024;

/// Most headers of a request.
pub(super) const MAX_HEADERS: usize = 64;

/// What all connections share.
pub(super) struct Front {
    pub(super) inputs: Sender<Input>,
    pub(super) site: Arc<dyn Site>,
    /// See [`super::Options::origins`].
    pub(super) origins: BTreeSet<String>,
    /// Requests over one connection.
    pub(super) requests: Rate,
    pub(super) tally: Arc<Tally>,
    pub(super) trusted_proxies: Vec<IpAddr>,
    pub(super) waiting: Waiting,
    pub(super) next_connection: AtomicU64,
    /// Held by every connection: when the last is gone the server has ended.
    pub(super) alive: Sender<Infallible>,
    /// Closed when the broker ends.
    pub(super) stopping: Receiver<Infallible>,
    /// Takes what turns out to speak TURN.
    pub(super) relay: Option<Arc<Relay>>,
    /// Where the devices' sockets are served.
    pub(super) devices: Door,
}

/// A request for a WebSocket.
#[derive(Clone)]
struct Asked {
    observed: SocketAddr,
    /// See [`farm_protocol::channel`].
    claim: Option<Box<Authenticate>>,
}

impl Front {
    /// Serves a new connection, as long as it need not give way to others.
    pub(super) async fn welcome(
        self: Arc<Self>,
        tls: Option<Tls>,
        stream: Stream,
        peer: SocketAddr,
        ticket: Ticket,
    ) {
        let must_go = ticket.must_go();
        or(self.receive(tls, stream, peer, ticket), must_go).await;
    }

    /// After a TLS handshake, where there is TLS. What speaks TURN, in TLS or
    /// without it, goes to the relay: its first byte tells.
    async fn receive(
        self: Arc<Self>,
        tls: Option<Tls>,
        mut stream: Stream,
        peer: SocketAddr,
        ticket: Ticket,
    ) {
        if let Some(relay) = &self.relay {
            let mut first = [0];
            match self.unless_stopped(soon(stream.peek(&mut first))).await {
                Ok(0) => return,
                Ok(_) if is_turn(first[0]) => return relay.clone().take(stream, peer, ticket),
                Ok(_) => {}
                Err(error) => return self.failed(tls.is_some(), &error),
            }
        }
        let Some(tls) = tls else { return Box::pin(self.serve(stream, peer, ticket, None)).await };
        // Boxed: what a handshake needs is given back when it is done.
        let mut stream = match Box::pin(self.unless_stopped(tls.handshake(stream))).await {
            Ok(stream) => stream,
            Err(error) => return self.failed(true, &error),
        };
        let channel = stream.take_channel();
        match self.unless_stopped(soon(Begun::open(stream))).await {
            Ok((first, stream)) => match &self.relay {
                Some(relay) if is_turn(first) => relay.clone().take(stream, peer, ticket),
                // Boxed: it is most of what this future would be.
                _ => Box::pin(self.serve(stream, peer, ticket, channel)).await,
            },
            Err(error) => self.failed(false, &error),
        }
    }

    /// Counts a connection that did not begin.
    fn failed(&self, in_handshake: bool, error: &io::Error) {
        let count = if in_handshake { &self.tally.tls_failed } else { &self.tally.http_failed };
        count.up();
        tracing::debug!(%error, in_handshake, "a connection did not begin");
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        or(work, async {
            // Nobody ever sends here: this returns when the broker ends.
            let _closed = self.stopping.recv().await;
            Alarm::after(DRAIN).await;
            Err(io::ErrorKind::Interrupted.into())
        })
        .await
    }

    /// Serves one connection; a device's goes on in a task of its own. `channel`
    /// is what its TLS connection is known by at both ends.
    pub(super) async fn serve<S>(
        self: Arc<Self>,
        stream: S,
        peer: SocketAddr,
        ticket: Ticket,
        channel: Option<Box<Channel>>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (device, asked) = (OnceLock::new(), Mutex::new(Bucket::default()));
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let (parts, _unread) = request.into_parts();
            let mut bucket = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let page = if bucket.take(self.requests, 1, Instant::now()) {
                self.answer(&parts, peer, &device)
            } else {
                self.tally.limit_requests.up();
                too_many()
            };
            std::future::ready(Ok::<_, Infallible>(page))
        });
        let mut http = http1::Builder::new()
            .timer(AlarmTimer)
            .header_read_timeout(HEADER_WITHIN)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(FuturesIo::new(Held::new(stream, &device)), service);
        let mut drained = pin!(async {
            // Nobody ever sends here: this returns when the broker ends.
            let _closed = self.stopping.recv().await;
            Alarm::after(DRAIN).await;
        });
        let mut ending = false;
        let answering = poll_fn(|cx| {
            if !ending && drained.as_mut().poll(cx).is_ready() {
                ending = true;
                Pin::new(&mut http).graceful_shutdown();
            }
            http.poll_without_shutdown(cx)
        });
        let over = async {
            Alarm::after(HTTP_LASTS).await;
            None
        };
        let stopping = async {
            let _closed = self.stopping.recv().await;
            Alarm::after(DRAIN + LAST_ANSWER).await;
            None
        };
        let served = or(async { Some(answering.await) }, or(over, stopping)).await;
        let parts = match served {
            Some(Ok(())) => http.into_parts(),
            Some(Err(error)) => {
                if error.is_parse() || error.is_timeout() {
                    self.tally.http_failed.up();
                }
                return tracing::debug!(%error, "an HTTP connection ended");
            }
            None => return,
        };
        let (stream, inputs) = (parts.io.into_inner().release(), self.inputs.clone());
        let Some(Asked { observed, claim }) = device.get().cloned() else {
            return;
        };
        let claim =
            claim.zip(channel).map(|(claim, channel)| Box::new(Claimed { channel: *channel, claim: *claim }));
        let connection = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let asked = (observed, claim);
        let socket = Socket::open(stream, parts.read_buf, connection, asked, inputs, &self.waiting);
        if let Some(socket) = socket.await {
            let alive = self.alive.clone();
            ticket.settle();
            // A fresh task: this one has the size of the HTTP machinery, and
            // would keep it for as long as the device stays.
            self.devices
                .spawn(async move {
                    let _held = (ticket, alive);
                    socket.run().await;
                })
                .detach();
        }
    }

    fn answer(&self, request: &Parts, peer: SocketAddr, device: &OnceLock<Asked>) -> Page {
        match request.uri.path() {
            CONNECT_PATH if !self.welcomes(request) => {
                self.tally.refused_origin.up();
                text(StatusCode::FORBIDDEN, "pages of this origin may not speak to this broker\n")
            }
            CONNECT_PATH => {
                let (page, upgraded) = upgrade(request);
                if !upgraded {
                    self.tally.refused_upgrade.up();
                } else {
                    let observed = client_address(peer, &request.headers, &self.trusted_proxies);
                    // Nothing follows an upgrade, so this is the first time.
                    let claim = request.headers.get(CLAIM_HEADER);
                    let claim = claim.and_then(|claim| channel::from_header(claim.as_bytes()));
                    let _first = device.set(Asked { observed, claim });
                }
                page
            }
            HEALTH_PATH if matches!(request.method, Method::GET | Method::HEAD) => self.health(),
            HEALTH_PATH => text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
            _ => self.site.respond(request),
        }
    }

    fn welcomes(&self, request: &Parts) -> bool {
        origin::may_connect(&request.headers, &self.origins) && self.site.has_devices(request)
    }

    fn health(&self) -> Page {
        let ok = !self.inputs.is_closed();
        let body = format!("{{\"ok\":{ok},\"version\":\"{}\"}}\n", env!("CARGO_PKG_VERSION"));
        let mut page = Page::new(Full::new(Bytes::from(body)));
        if !ok {
            *page.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = page.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        page
    }
}

/// What a connection's first byte must come within.
async fn soon<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    or(work, async {
        Alarm::after(HEADER_WITHIN).await;
        Err(io::ErrorKind::TimedOut.into())
    })
    .await
}

/// The last answer on this connection.
fn too_many() -> Page {
    let mut page = text(StatusCode::TOO_MANY_REQUESTS, "too many requests\n");
    page.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    page
}

/// The answer to a WebSocket handshake (RFC 6455 section 4.2), and whether it
/// succeeded.
fn upgrade(request: &Parts) -> (Page, bool) {
    let mut head = Request::new(());
    *head.method_mut() = request.method.clone();
    *head.version_mut() = request.version;
    *head.headers_mut() = request.headers.clone();
    let Ok(response) = create_response(&head) else {
        let mut page = text(StatusCode::UPGRADE_REQUIRED, "a WebSocket of version 13 is expected\n");
        let headers = page.headers_mut();
        headers.insert(hyper::header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(hyper::header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return (page, false);
    };
    let offered = request.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let known = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|protocol| protocol.trim() == SUBPROTOCOL);
    if !known {
        let page = text(
            StatusCode::BAD_REQUEST,
            "the subprotocol farm-tunnel.v1 is expected: update the older side\n",
        );
        return (page, false);
    }
    let mut page = response.map(|()| Full::default());
    page.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    (page, true)
}
