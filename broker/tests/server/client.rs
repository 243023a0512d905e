//! A broker in this process, and devices that speak to it.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::{ClientRequestBuilder, Error, Message};
use farm_broker::admin::{self, Answer, Request};
use farm_broker::core::Limits;
use farm_broker::core::counters::Counters;
use farm_broker::server::inherited::Inherited;
use farm_broker::server::listen::StunListen;
use farm_broker::server::relay::RelayOptions;
use farm_broker::server::site::NoSite;
use farm_broker::server::{Options, RelayChoice, Server};
use farm_protocol::broker::{
    Access, Authenticate, Claim, FromBroker, Heartbeat, RefusedReason, Role, Signal, ToBroker, Watch,
    Welcome, presence_proof,
};
use farm_protocol::codec;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, InvitationId, PhoneId, SessionId, Slot};
use farm_protocol::keys::{DeviceKey, Nonce};
use farm_protocol::{CONNECT_PATH, SUBPROTOCOL};
use futures_util::{AsyncRead, AsyncWrite, StreamExt};
use smol::Timer;
use smol::net::TcpStream;
use tempfile::TempDir;

/// Nothing here takes long: what is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test to its end, which must come.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    smol::block_on(within(test))
}

/// Waits for something that must come.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    smol::future::or(what, async {
        Timer::after(PATIENCE).await;
        panic!("nothing came within {PATIENCE:?}")
    })
    .await
}

/// The broker under test.
pub(crate) struct Broker {
    pub(crate) server: Server,
    pub(crate) state: TempDir,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let state = TempDir::new().unwrap();
        let mut options = options(state.path());
        change(&mut options);
        let server = Server::start(options).await.unwrap();
        Self { server, state }
    }

    /// Stops, and starts again with the same state.
    pub(crate) async fn restart(self) -> Self {
        self.server.stop().await;
        let server = Server::start(options(self.state.path())).await.unwrap();
        Self { server, ..self }
    }

    pub(crate) async fn ask(&self, request: Request) -> Answer {
        let state = self.state.path().to_owned();
        let answer = smol::unblock(move || admin::ask(&state, &request)).await;
        answer.unwrap()
    }

    pub(crate) async fn token(&self, name: &str) -> String {
        let request = Request::Enroll { name: Some(name.to_owned()), valid_seconds: 600 };
        match self.ask(request).await {
            Answer::Token(token) => token,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn counters(&self) -> Counters {
        match self.ask(Request::Counters {}).await {
            Answer::Counters(counters) => *counters,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.server.address()).await.unwrap()
    }

    /// A device that is in.
    pub(crate) async fn enter(&self, device: &Device) -> Client {
        let mut client = self.connect().await;
        client.enter(device).await;
        client
    }

    /// A farm that is enrolled and in.
    pub(crate) async fn enroll(&self, farm: &Device) -> Client {
        let token = self.token("North field").await;
        let mut client = self.connect().await;
        let answer = client.authenticate(farm, Some(&token)).await;
        assert!(matches!(answer, FromBroker::Welcome(_)), "{answer:?}");
        client
    }
}

pub(crate) fn options(state: &Path) -> Options {
    Options {
        inherited: Inherited::default(),
        listen: "127.0.0.1:0".parse().unwrap(),
        stun: StunListen::Same,
        tls: None,
        redirect: None,
        metrics: None,
        authority: None,
        state: state.to_owned(),
        names: BTreeSet::from([NAME.to_owned()]),
        origins: BTreeSet::new(),
        trusted_proxies: Vec::new(),
        limits: Limits::default(),
        relay: RelayChoice::Embedded(RelayOptions::default(), None),
        cluster: None,
        alerts: None,
        site: Arc::new(NoSite),
    }
}

pub(crate) const NAME: &str = "broker.example.org";

/// A device's key and run.
pub(crate) struct Device {
    pub(crate) role: Role,
    pub(crate) key: DeviceKey,
    pub(crate) boot: BootId,
    pub(crate) epoch: Epoch,
}

impl Device {
    pub(crate) fn farm(seed: u8) -> Self {
        Self::new(Role::Farm, seed)
    }

    pub(crate) fn phone(seed: u8) -> Self {
        Self::new(Role::Phone, seed)
    }

    fn new(role: Role, seed: u8) -> Self {
        Self {
            role,
            key: DeviceKey::from_seed([seed; 32]).unwrap(),
            boot: BootId::from_bytes([1; 16]),
            epoch: Epoch::of_start(1),
        }
    }

    pub(crate) fn farm_id(&self) -> FarmId {
        FarmId::of(&self.key.public())
    }

    pub(crate) fn phone_id(&self) -> PhoneId {
        PhoneId::of(&self.key.public())
    }

    pub(crate) fn session(&self) -> SessionId {
        SessionId { phone: self.phone_id(), slot: Slot::default() }
    }

    pub(crate) fn sign(&self, nonce: &Nonce) -> Authenticate {
        Authenticate::sign(&self.key, nonce, self.says())
    }

    /// What it says of itself.
    pub(crate) fn says(&self) -> Claim {
        Claim {
            role: self.role,
            slot: Slot::default(),
            boot: self.boot,
            epoch: self.epoch,
            broker: NAME.to_owned(),
        }
    }

    pub(crate) fn heartbeat(&self, sequence: u32) -> ToBroker {
        let proof = presence_proof(&self.key, self.farm_id(), self.boot, self.epoch);
        ToBroker::Heartbeat(Heartbeat {
            sequence,
            epoch: self.epoch,
            presence: (self.role == Role::Farm).then_some(proof),
        })
    }
}

pub(crate) fn access(phones: &[&Device], invitations: &[InvitationId]) -> ToBroker {
    ToBroker::Access(Access {
        phones: phones.iter().map(|phone| phone.phone_id()).collect(),
        invitations: invitations.to_vec(),
        former: Vec::new(),
    })
}

pub(crate) fn watch(farms: &[&Device]) -> ToBroker {
    ToBroker::Watch(Watch { farms: farms.iter().map(|farm| farm.farm_id()).collect() })
}

pub(crate) fn signal(peer: farm_protocol::broker::Address, payload: &[u8]) -> ToBroker {
    ToBroker::Signal(Signal { peer, payload: payload.to_vec() })
}

/// A WebSocket to the broker.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: WebSocketStream<S>,
    pub(crate) nonce: Nonce,
}

/// What ended a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Refused(RefusedReason),
    Closed,
}

pub(crate) async fn handshake(
    address: SocketAddr,
    protocol: Option<&str>,
) -> Result<WebSocketStream<TcpStream>, Error> {
    let uri = format!("ws://{address}{CONNECT_PATH}").parse().unwrap();
    let mut request = ClientRequestBuilder::new(uri);
    if let Some(protocol) = protocol {
        request = request.with_sub_protocol(protocol);
    }
    let stream = TcpStream::connect(address).await.unwrap();
    let (stream, _) = async_tungstenite::client_async(request, stream).await?;
    Ok(stream)
}

impl Client {
    /// Connects and takes the challenge.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, Error> {
        Ok(Self::over(handshake(address, Some(SUBPROTOCOL)).await?).await)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Says and takes nothing yet.
    pub(crate) fn silent(stream: WebSocketStream<S>) -> Self {
        Self { stream, nonce: Nonce::from_bytes([0; 16]) }
    }

    /// Takes the challenge.
    pub(crate) async fn over(stream: WebSocketStream<S>) -> Self {
        let mut client = Self::silent(stream);
        match client.next().await {
            FromBroker::Challenge(challenge) => client.nonce = challenge.nonce,
            other => panic!("expected the challenge, got {other:?}"),
        }
        client
    }

    pub(crate) async fn send(&mut self, message: ToBroker) {
        let bytes = codec::encode(&message).unwrap();
        self.send_raw(Message::binary(bytes)).await;
    }

    /// Sends what may be no message at all; the broker may close meanwhile.
    pub(crate) async fn send_raw(&mut self, message: Message) {
        let _closing = within(self.stream.send(message)).await;
    }

    /// The next message, `None` at the end.
    pub(crate) async fn try_next(&mut self) -> Option<FromBroker> {
        loop {
            match within(self.stream.next()).await {
                Some(Ok(Message::Binary(bytes))) => return Some(codec::decode(&bytes).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    pub(crate) async fn next(&mut self) -> FromBroker {
        self.try_next().await.expect("the broker closed the connection")
    }

    /// Reads until the end.
    pub(crate) async fn end(&mut self) -> End {
        let mut last = None;
        while let Some(message) = self.try_next().await {
            last = Some(message);
        }
        match last {
            Some(FromBroker::Refused(refused)) => End::Refused(refused.reason),
            _ => End::Closed,
        }
    }

    /// Authenticates and gives the answer.
    pub(crate) async fn authenticate(&mut self, device: &Device, token: Option<&str>) -> FromBroker {
        let mut claim = device.sign(&self.nonce);
        claim.enrollment_token = token.map(str::to_owned);
        self.send(ToBroker::Authenticate(Box::new(claim))).await;
        self.next().await
    }

    pub(crate) async fn enter(&mut self, device: &Device) -> Welcome {
        match self.authenticate(device, None).await {
            FromBroker::Welcome(welcome) => welcome,
            other => panic!("expected the welcome, got {other:?}"),
        }
    }

    /// Returns when the broker has handled all that was sent before.
    pub(crate) async fn settle(&mut self, device: &Device) {
        self.send(device.heartbeat(77)).await;
        match self.next().await {
            FromBroker::HeartbeatAnswer(answer) => assert_eq!(answer.sequence, 77),
            other => panic!("expected the heartbeat's answer, got {other:?}"),
        }
    }

    /// The state in the next message, which is about presence.
    pub(crate) async fn presence(&mut self) -> Option<farm_protocol::broker::PresenceState> {
        match self.next().await {
            FromBroker::Presence(presence) => presence.state,
            other => panic!("expected presence, got {other:?}"),
        }
    }
}
