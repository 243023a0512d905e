//! A device's WebSocket to the broker.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use async_tungstenite::WebSocketStream;
pub use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use async_tungstenite::tungstenite::{ClientRequestBuilder, Error as WebSocketError};
use farm_protocol::broker::{FromBroker, RefusedReason, ToBroker, Welcome};
use farm_protocol::channel::{CLAIM_HEADER, Channel, EXPORTER_LABEL};
use farm_protocol::keys::Nonce;
use farm_protocol::{CONNECT_PATH, SUBPROTOCOL, codec};
use futures_util::StreamExt;
use smol::Timer;

use super::{Device, Secure, Target};

/// Each step of a broker that works takes milliseconds; a busy machine and a
/// broker under attack get a thousand times that.
const WITHIN: Duration = Duration::from_secs(15);

/// Small: thousands of these are in one process.
const READ_BUFFER: usize = 512;

/// Why a device is not where it wants to be.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The network.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The WebSocket, or the HTTP before it.
    #[error("the WebSocket failed: {0}")]
    WebSocket(Box<WebSocketError>),
    /// Something that is no message.
    #[error("the broker sent what is no message: {0}")]
    Codec(String),
    /// The broker does not let it in.
    #[error("the broker refused: {0:?}")]
    Refused(RefusedReason),
    /// The broker wants it later.
    #[error("the broker asks to come back in {0:?}")]
    RetryAfter(Duration),
    /// Another message than the protocol has there.
    #[error("the broker sent something else than expected: {0}")]
    Unexpected(String),
    /// The broker closed.
    #[error("the broker closed the connection")]
    Closed,
    /// Nothing came.
    #[error("nothing came within {WITHIN:?}")]
    Late,
}

impl From<WebSocketError> for DeviceError {
    fn from(error: WebSocketError) -> Self {
        match error {
            WebSocketError::Io(error) => Self::Io(error),
            error => Self::WebSocket(Box::new(error)),
        }
    }
}

/// A WebSocket over TLS.
pub struct Link {
    /// For what a device would not send.
    pub stream: WebSocketStream<Secure>,
    /// The broker's challenge, where it sent one.
    pub nonce: Nonce,
    name: String,
}

async fn within<T, E>(what: impl Future<Output = Result<T, E>>) -> Result<T, DeviceError>
where
    DeviceError: From<E>,
{
    smol::future::or(async { Ok(what.await?) }, async {
        Timer::after(WITHIN).await;
        Err(DeviceError::Late)
    })
    .await
}

impl Link {
    /// Connects from this address, and takes the challenge.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn connect(target: &Target, from: Ipv4Addr) -> Result<Self, DeviceError> {
        Self::connect_as(target, from, None).await
    }

    /// The same with an `Origin`, as a browser's page.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn connect_as(
        target: &Target,
        from: Ipv4Addr,
        origin: Option<&str>,
    ) -> Result<Self, DeviceError> {
        let secure = within(target.tls(from)).await?;
        Self::over(target, secure, origin).await
    }

    /// Goes on after the TLS handshake, and takes the challenge.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn over(target: &Target, secure: Secure, origin: Option<&str>) -> Result<Self, DeviceError> {
        let header = origin.map(|origin| ("Origin", origin.to_owned()));
        let mut link = Self::upgrade(target, secure, header).await?;
        match link.next().await? {
            FromBroker::Challenge(challenge) => link.nonce = challenge.nonce,
            other => return Err(unexpected(other)),
        }
        Ok(link)
    }

    /// Connects, and proves who the device is with the request, as real ones do.
    ///
    /// # Errors
    /// [`DeviceError`], also where the broker sends a challenge all the same.
    pub async fn join(
        target: &Target,
        from: Ipv4Addr,
        device: &Device,
    ) -> Result<(Self, Welcome), DeviceError> {
        let secure = within(target.tls(from)).await?;
        let claim = device.claim(&channel_of(&secure)?, &target.name());
        let mut link = Self::upgrade(target, secure, Some((CLAIM_HEADER, claim))).await?;
        match link.next().await? {
            FromBroker::Welcome(welcome) => Ok((link, welcome)),
            other => Err(unexpected(other)),
        }
    }

    /// A WebSocket on which nothing was said yet.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn upgrade(
        target: &Target,
        secure: Secure,
        header: Option<(&str, String)>,
    ) -> Result<Self, DeviceError> {
        let name = target.name();
        let uri = format!("wss://{name}{CONNECT_PATH}").parse().expect("a name and a path are a URI");
        let mut request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
        if let Some((name, value)) = header {
            request = request.with_header(name, value);
        }
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
        let upgrade = async_tungstenite::client_async_with_config(request, secure, Some(config));
        let (stream, _) = within(upgrade).await?;
        Ok(Self { stream, nonce: Nonce::from_bytes([0; 16]), name })
    }

    /// Proves who the device is.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn enter(&mut self, device: &Device, token: Option<&str>) -> Result<Welcome, DeviceError> {
        let mut claim = device.authenticate(&self.nonce, &self.name);
        claim.enrollment_token = token.map(str::to_owned);
        self.send(&ToBroker::Authenticate(Box::new(claim))).await?;
        match self.next().await? {
            FromBroker::Welcome(welcome) => Ok(welcome),
            other => Err(unexpected(other)),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn send(&mut self, message: &ToBroker) -> Result<(), DeviceError> {
        let bytes = codec::encode(message).map_err(|error| DeviceError::Codec(error.to_string()))?;
        self.send_raw(Message::binary(bytes)).await
    }

    /// Sends what may be no message at all.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn send_raw(&mut self, message: Message) -> Result<(), DeviceError> {
        within(self.stream.send(message)).await
    }

    /// The next message, which must come soon.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn next(&mut self) -> Result<FromBroker, DeviceError> {
        within(self.listen()).await
    }

    /// The next message, whenever it comes.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn listen(&mut self) -> Result<FromBroker, DeviceError> {
        loop {
            return match self.stream.next().await {
                Some(Ok(Message::Binary(bytes))) => decode(&bytes),
                Some(Ok(Message::Close(_))) | None => Err(DeviceError::Closed),
                Some(Ok(_)) => continue,
                Some(Err(error)) => Err(error.into()),
            };
        }
    }
}

/// What both ends of a TLS connection know.
///
/// # Errors
/// The library's.
pub fn channel_of(secure: &Secure) -> io::Result<Channel> {
    let exported = secure.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None);
    exported.map(Channel::from_bytes).map_err(io::Error::other)
}

/// Reads a message of the broker's.
fn decode(bytes: &[u8]) -> Result<FromBroker, DeviceError> {
    codec::decode(bytes).map_err(|error| DeviceError::Codec(error.to_string()))
}

/// What a message means that is not expected where it comes.
pub(crate) fn unexpected(message: FromBroker) -> DeviceError {
    match message {
        FromBroker::Refused(refused) => DeviceError::Refused(refused.reason),
        FromBroker::RetryAfter(after) => {
            DeviceError::RetryAfter(Duration::from_millis(u64::from(after.milliseconds)))
        }
        other => DeviceError::Unexpected(format!("{other:?}")),
    }
}
