//! From a broker's address to an open WebSocket: DNS, TCP, TLS, HTTP upgrade.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::http::HeaderValue;
use async_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use farm_protocol::broker::Welcome;
use farm_protocol::channel::{CLAIM_HEADER, Channel};
use farm_protocol::codec::MAX_MESSAGE;
use farm_protocol::{CONNECT_PATH, SUBPROTOCOL};
use futures_util::io::{AsyncRead, AsyncWrite};
use nix::sys::socket::{setsockopt, sockopt};
use smol::net::TcpStream;

use super::address::{BrokerAddress, Brokers};
use super::relay::Held;
use super::tls::{self, Trust};
use crate::aside;
use crate::peer::IceServer;

/// Addresses tried in one attempt: a broker has an IPv4 and an IPv6 one, or a few.
const MAX_ADDRESSES: usize = 6;

/// Plain or TLS, as one type.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How long a resolver may take before the address that worked last is tried
/// beside it. One that is unreachable takes 10 s to say so, longer than a
/// whole attempt may; a cold cache on a slow link takes some 100 ms.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(1);

/// An open WebSocket to a broker.
pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

/// Why a broker could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Its name has no address, and none is remembered.
    #[error("no address for {host}: {source}")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        source: std::io::Error,
    },
    /// No address accepts a connection.
    #[error("can't connect: {0}")]
    Connect(std::io::Error),
    /// TLS failed: a wrong certificate, or no TLS there.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// The other end is not a broker of this version.
    #[error("no broker there: {0}")]
    Upgrade(Box<async_tungstenite::tungstenite::Error>),
}

/// Dials one of some brokers and remembers the address that worked: DNS is
/// often not there yet when a farm's box boots.
#[derive(Debug, Clone)]
pub struct Dialer {
    places: Arc<[Place]>,
    /// Which of them is meant.
    aim: Arc<AtomicUsize>,
    trust: Trust,
    local: Arc<Mutex<Option<IpAddr>>>,
    /// What a broker said of its relay, and which one.
    pub(super) relay: Arc<Mutex<Option<(usize, Held)>>>,
}

#[derive(Debug)]
struct Place {
    broker: BrokerAddress,
    /// Where it was reached last.
    remembered: Mutex<Option<SocketAddr>>,
}

/// What was sent is acknowledged within this time, or the connection is dead:
/// five or six tries of TCP's, of which a radio that loses 30 % each way loses
/// all in 3 % of cases, which costs one reconnect. The [conversation] sends
/// something every 19 s at least.
///
/// [conversation]: super::conversation
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

impl Dialer {
    /// `remembered` is the address that worked last for the first broker, from
    /// the device's store.
    pub fn new(brokers: Brokers, trust: Trust, remembered: Option<SocketAddr>) -> Self {
        let place = |(index, broker): (usize, &BrokerAddress)| Place {
            broker: broker.clone(),
            remembered: Mutex::new(remembered.filter(|_| index == 0)),
        };
        let places = brokers.iter().enumerate().map(place).collect();
        Self { places, aim: Arc::default(), trust, local: Arc::default(), relay: Arc::default() }
    }

    /// The broker that is tried, or in use.
    pub fn broker(&self) -> &BrokerAddress {
        &self.place().broker
    }

    /// How many there are.
    pub(super) fn brokers(&self) -> usize {
        self.places.len()
    }

    fn place(&self) -> &Place {
        &self.places[self.aimed_at()]
    }

    /// Means this broker from now on; gives a dialer that keeps meaning it.
    pub(super) fn aim_at(&self, broker: usize) -> Self {
        let broker = broker.min(self.places.len() - 1);
        self.aim.store(broker, Ordering::Relaxed);
        self.meaning(broker)
    }

    /// Means this broker whatever is tried next.
    pub(super) fn meaning(&self, broker: usize) -> Self {
        Self { aim: Arc::new(AtomicUsize::new(broker)), ..self.clone() }
    }

    pub(super) fn aimed_at(&self) -> usize {
        self.aim.load(Ordering::Relaxed)
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Where that broker was reached last.
    pub fn remembered(&self) -> Option<SocketAddr> {
        *self.place().remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the first broker was reached last, to be stored.
    pub fn to_be_stored(&self) -> Option<SocketAddr> {
        *self.places[0].remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of ours that the newest connection is bound to.
    pub(super) fn local(&self) -> Option<IpAddr> {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the broker that let us in answers STUN, if it does: for probes.
    pub fn stun_address(&self, welcome: &Welcome) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.remembered()?.ip(), welcome.stun_port?))
    }

    /// The same as a server for ICE.
    pub fn ice_servers(&self, welcome: Option<&Welcome>) -> Vec<IceServer> {
        let address = welcome.and_then(|welcome| self.stun_address(welcome));
        let server = |address| IceServer { urls: vec![format!("stun:{address}")], ..IceServer::default() };
        address.map(server).into_iter().collect()
    }

    /// One attempt, without a deadline: the link has that. `claim` is what goes
    /// with the request over a connection that both ends know by this.
    ///
    /// # Errors
    /// [`DialError`].
    pub(super) async fn dial(
        &self,
        claim: impl FnOnce(&Channel) -> Option<String>,
    ) -> Result<Socket, DialError> {
        let tcp = self.connect().await?;
        // Heartbeats and offers are small and urgent.
        tcp.set_nodelay(true).map_err(DialError::Connect)?;
        let patience = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
        setsockopt(&tcp, sockopt::TcpUserTimeout, &patience)
            .map_err(|error| DialError::Connect(error.into()))?;
        let broker = self.broker();
        let mut claimed = None;
        let stream: Box<dyn Stream> = if broker.secure {
            let invalid = |_| DialError::Tls(std::io::Error::other("the host is not a valid server name"));
            let name = broker.host.clone().try_into().map_err(invalid)?;
            let stream = self.trust.connector().connect(name, tcp).await.map_err(DialError::Tls)?;
            claimed = tls::channel(stream.get_ref().1).and_then(|channel| claim(&channel));
            Box::new(stream)
        } else {
            Box::new(tcp)
        };
        let upgrade = |e| DialError::Upgrade(Box::new(e));
        let url = format!("{broker}{CONNECT_PATH}");
        let mut request = url.into_client_request().map_err(upgrade)?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        if let Some(claimed) = claimed.and_then(|text| HeaderValue::try_from(text).ok()) {
            request.headers_mut().insert(CLAIM_HEADER, claimed);
        }
        // One connection for the life of the program: small buffers.
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let (socket, _) = async_tungstenite::client_async_with_config(request, stream, Some(config))
            .await
            .map_err(upgrade)?;
        Ok(socket)
    }

    /// By the broker's name; where the resolver keeps us waiting or has
    /// nothing, by the address that worked last.
    async fn connect(&self) -> Result<TcpStream, DialError> {
        let by_name = async {
            match aside::resolve(&self.broker().host, self.broker().port).await {
                Ok(addresses) => self.connect_any(&addresses).await,
                Err(source) => match self.remembered() {
                    Some(address) => self.connect_any(&[address]).await,
                    None => Err(DialError::Dns { host: self.broker().host.clone(), source }),
                },
            }
        };
        let by_memory = async {
            if let Some(address) = self.remembered() {
                smol::Timer::after(RESOLVE_PATIENCE).await;
                if let Ok(stream) = self.connect_any(&[address]).await {
                    return Ok(stream);
                }
            }
            // The name decides: the broker may have moved.
            std::future::pending().await
        };
        smol::future::or(by_name, by_memory).await
    }

    async fn connect_any(&self, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
        let mut last = std::io::Error::other("the name has no address");
        for address in addresses.iter().take(MAX_ADDRESSES) {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    *self.place().remembered.lock().unwrap_or_else(PoisonError::into_inner) = Some(*address);
                    *self.local.lock().unwrap_or_else(PoisonError::into_inner) =
                        stream.local_addr().ok().map(|local| local.ip());
                    return Ok(stream);
                }
                Err(e) => last = e,
            }
        }
        Err(DialError::Connect(last))
    }
}
