//! The relay over real sockets: datagrams, plain TCP and TLS on the broker's
//! own port, a client of others, and what must not be reachable.

use std::net::SocketAddr;
use std::process::Command;

use farm_broker::admin::{Answer, Request};
use farm_broker::core::relay::credentials::{REALM, Secret};
use farm_broker::core::relay::message::{Class, Method, Writer, attribute as a, frame_length};
use farm_broker::server::RelayChoice;
use farm_broker::server::relay::RelayOptions;
use farm_protocol::broker::FromBroker;
use farm_protocol::relay::Relay;
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use md5::{Digest, Md5};
use ring::hmac;
use smol::net::{TcpStream, UdpSocket};
use tempfile::TempDir;

use crate::client::{Broker, Client, Device, access, run, within};
use crate::tls::{secure, with_tls};

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

enum Way {
    Datagrams(UdpSocket, SocketAddr),
    Stream(Box<dyn Stream>),
}

/// A TURN client, made from the RFCs beside the server: it shares the writer
/// of messages, and neither keys nor checks.
struct Turn {
    way: Way,
    relay: Relay,
    nonce: Vec<u8>,
    count: u64,
}

impl Turn {
    async fn over_datagrams(address: SocketAddr, relay: &Relay) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Self::over(Way::Datagrams(socket, address), relay)
    }

    fn over(way: Way, relay: &Relay) -> Self {
        Self { way, relay: relay.clone(), nonce: Vec::new(), count: 0 }
    }

    async fn send(&mut self, bytes: &[u8]) {
        match &mut self.way {
            Way::Datagrams(socket, to) => drop(socket.send_to(bytes, *to).await.unwrap()),
            Way::Stream(stream) => {
                // In pieces: frames are not what a read gives.
                for piece in bytes.chunks(7) {
                    stream.write_all(piece).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
        }
    }

    async fn receive(&mut self) -> Vec<u8> {
        match &mut self.way {
            Way::Datagrams(socket, _) => {
                let mut bytes = [0; 4096];
                let (length, _) = within(socket.recv_from(&mut bytes)).await.unwrap();
                bytes[..length].to_vec()
            }
            Way::Stream(stream) => {
                let mut head = [0; 4];
                within(stream.read_exact(&mut head)).await.unwrap();
                let mut bytes = vec![0; frame_length(head).unwrap()];
                bytes[..4].copy_from_slice(&head);
                within(stream.read_exact(&mut bytes[4..])).await.unwrap();
                bytes
            }
        }
    }

    fn attribute(bytes: &[u8], wanted: u16) -> Option<Vec<u8>> {
        let mut rest = &bytes[20..];
        while rest.len() >= 4 {
            let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            if rest[..2] == wanted.to_be_bytes() {
                return Some(rest[4..4 + length].to_vec());
            }
            rest = &rest[4 + length.next_multiple_of(4)..];
        }
        None
    }

    fn address(bytes: &[u8], wanted: u16) -> SocketAddr {
        let value = Self::attribute(bytes, wanted).unwrap();
        let port = u16::from_be_bytes([value[2] ^ 0x21, value[3] ^ 0x12]);
        let ip: [u8; 4] = std::array::from_fn(|at| value[4 + at] ^ bytes[4 + at]);
        SocketAddr::from((ip, port))
    }

    async fn ask(&mut self, method: Method, fill: impl Fn(Writer) -> Writer) -> Result<Vec<u8>, u16> {
        let key = Md5::digest(format!("{}:{REALM}:{}", self.relay.username, self.relay.credential));
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
        loop {
            self.count += 1;
            let mut transaction = [3; 12];
            transaction[..8].copy_from_slice(&self.count.to_be_bytes());
            let mut writer = fill(Writer::new(method, Class::Request, transaction));
            if !self.nonce.is_empty() {
                writer = writer
                    .with(a::USERNAME, self.relay.username.as_bytes())
                    .with(a::REALM, REALM.as_bytes())
                    .with(a::NONCE, &self.nonce);
            }
            let signed = (!self.nonce.is_empty()).then_some(&key);
            self.send(&writer.finish(signed)).await;
            let reply = self.receive().await;
            let code =
                Self::attribute(&reply, a::ERROR_CODE).map(|v| u16::from(v[2]) * 100 + u16::from(v[3]));
            match code {
                None => return Ok(reply),
                Some(401) if self.nonce.is_empty() => self.nonce = Self::attribute(&reply, a::NONCE).unwrap(),
                Some(code) => return Err(code),
            }
        }
    }

    async fn allocate(&mut self) -> Result<SocketAddr, u16> {
        let reply = self.ask(Method::Allocate, |w| w.with(a::REQUESTED_TRANSPORT, &[17, 0, 0, 0])).await?;
        Ok(Self::address(&reply, a::XOR_RELAYED_ADDRESS))
    }

    async fn bind(&mut self, peer: SocketAddr) -> Result<(), u16> {
        let bound = self.ask(Method::ChannelBind, |w| {
            w.with(a::CHANNEL_NUMBER, &[0x40, 0, 0, 0]).with_address(a::XOR_PEER_ADDRESS, peer)
        });
        bound.await.map(drop)
    }

    async fn send_on_channel(&mut self, data: &[u8]) {
        let mut bytes = [&[0x40, 0][..], &(data.len() as u16).to_be_bytes(), data].concat();
        if matches!(self.way, Way::Stream(_)) {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        self.send(&bytes).await;
    }

    async fn receive_on_channel(&mut self) -> Vec<u8> {
        let bytes = self.receive().await;
        assert_eq!(bytes[..2], [0x40, 0], "{bytes:?}");
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        bytes[4..4 + length].to_vec()
    }
}

/// Whether both reach each other, with packets of every length.
async fn talk(one: &mut Turn, other: &mut Turn) {
    let at_one = one.allocate().await.unwrap();
    let at_other = other.allocate().await.unwrap();
    one.bind(at_other).await.unwrap();
    other.bind(at_one).await.unwrap();
    for length in (0..20).chain([1200, 1472]) {
        let data: Vec<u8> = (0..length).map(|at| at as u8).collect();
        one.send_on_channel(&data).await;
        assert_eq!(other.receive_on_channel().await, data);
        other.send_on_channel(&data).await;
        assert_eq!(one.receive_on_channel().await, data);
    }
}

/// A farm that is in, and what it was told of the relay.
async fn farm(broker: &Broker) -> (Device, Client, Relay) {
    let farm = Device::farm(1);
    drop(broker.enroll(&farm).await);
    let mut client = broker.connect().await;
    let relay = client.enter(&farm).await.relay.expect("a relay");
    (farm, client, relay)
}

async fn relayed_bytes(broker: &Broker) -> u64 {
    match broker.ask(Request::Farms {}).await {
        Answer::Farms(farms) => farms[0].relayed_bytes.unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn plain(broker: &Broker) -> Way {
    Way::Stream(Box::new(TcpStream::connect(broker.server.address()).await.unwrap()))
}

#[test]
fn two_devices_reach_each_other_over_every_way() {
    run(async {
        let broker = Broker::start().await;
        let (_farm, _client, relay) = farm(&broker).await;
        let (http, stun) = (broker.server.address(), broker.server.stun_address().unwrap());
        assert_eq!((relay.udp, relay.tcp, relay.tls), (Some(stun.port()), Some(http.port()), None));
        assert_eq!(relay.host, None);
        let mut datagrams = Turn::over_datagrams(stun, &relay).await;
        talk(&mut datagrams, &mut Turn::over(plain(&broker).await, &relay)).await;
        let mut one = Turn::over(plain(&broker).await, &relay);
        talk(&mut one, &mut Turn::over(plain(&broker).await, &relay)).await;
        // 2862 bytes, 4 times to and 4 times from the relay.
        assert_eq!(relayed_bytes(&broker).await, 2862 * 8);
        broker.server.stop().await;
    });
}

#[test]
fn tls_and_plain_tcp_share_the_port_with_https() {
    run(async {
        let dir = TempDir::new().unwrap();
        let (broker, certificate) = with_tls(&dir).await;
        let address = broker.server.address();
        let farm = Device::farm(1);
        let token = broker.token("North").await;
        let uri =
            format!("wss://localhost:{}{}", address.port(), farm_protocol::CONNECT_PATH).parse().unwrap();
        let request = async_tungstenite::tungstenite::ClientRequestBuilder::new(uri)
            .with_sub_protocol(farm_protocol::SUBPROTOCOL);
        let stream = secure(address, &certificate).await.unwrap();
        let (stream, _) = within(async_tungstenite::client_async(request, stream)).await.unwrap();
        let mut client = Client::over(stream).await;
        let FromBroker::Welcome(welcome) = client.authenticate(&farm, Some(&token)).await else {
            panic!("not let in")
        };
        let relay = welcome.relay.unwrap();
        assert_eq!((relay.tcp, relay.tls), (Some(address.port()), Some(address.port())));
        let secured = Way::Stream(Box::new(secure(address, &certificate).await.unwrap()));
        let mut one = Turn::over(secured, &relay);
        talk(&mut one, &mut Turn::over(plain(&broker).await, &relay)).await;
        client.settle(&farm).await;
    });
}

#[test]
fn a_phone_is_given_credentials_once_a_farm_lists_it() {
    run(async {
        let broker = Broker::start().await;
        let (farm, mut at_farm, relay) = farm(&broker).await;
        let phone = Device::phone(9);
        let mut at_phone = broker.connect().await;
        assert_eq!(at_phone.enter(&phone).await.relay, None, "strangers get none");
        at_farm.send(access(&[&phone], &[])).await;
        at_farm.settle(&farm).await;
        at_phone.send(phone.heartbeat(1)).await;
        let FromBroker::HeartbeatAnswer(answer) = at_phone.next().await else { panic!("no answer") };
        let mut given =
            Turn::over_datagrams(broker.server.stun_address().unwrap(), &answer.relay.unwrap()).await;
        let mut at_home = Turn::over_datagrams(broker.server.stun_address().unwrap(), &relay).await;
        talk(&mut given, &mut at_home).await;
        at_phone.send(phone.heartbeat(2)).await;
        let FromBroker::HeartbeatAnswer(answer) = at_phone.next().await else { panic!("no answer") };
        assert_eq!(answer.relay, None, "not before half of their life is over");
        assert_eq!(relayed_bytes(&broker).await, 2862 * 4, "the farm pays for both");
    });
}

#[test]
fn credentials_outlive_a_restart_and_forged_ones_open_nothing() {
    run(async {
        let broker = Broker::start().await;
        let (_farm, client, relay) = farm(&broker).await;
        drop(client);
        let broker = broker.restart().await;
        let stun = broker.server.stun_address().unwrap();
        assert!(Turn::over_datagrams(stun, &relay).await.allocate().await.is_ok());
        let credential = Secret::new(b"guessed").password(&relay.username);
        let forged = Relay { credential, ..relay };
        assert_eq!(Turn::over_datagrams(stun, &forged).await.allocate().await, Err(401));
    });
}

#[test]
fn a_revoked_farm_has_no_relay_any_more_and_gets_none_after_a_restart() {
    run(async {
        let broker = Broker::start().await;
        let (farm, _client, relay) = farm(&broker).await;
        let mut turn = Turn::over_datagrams(broker.server.stun_address().unwrap(), &relay).await;
        turn.allocate().await.unwrap();
        let id = farm.farm_id().to_string();
        assert_eq!(broker.ask(Request::Revoke { farm: id.clone() }).await, Answer::Revoked(id));
        // Told to the core behind the answer: this one comes after it.
        broker.counters().await;
        assert_eq!(turn.ask(Method::Refresh, |w| w).await.map(drop), Err(403));
        assert_eq!(turn.allocate().await, Err(403));
        let broker = broker.restart().await;
        let stun = broker.server.stun_address().unwrap();
        assert_eq!(Turn::over_datagrams(stun, &relay).await.allocate().await, Err(403));
    });
}

#[test]
fn a_peer_in_the_servers_own_network_is_refused() {
    run(async {
        let broker = Broker::start().await;
        let (_farm, _client, relay) = farm(&broker).await;
        let mut turn = Turn::over_datagrams(broker.server.stun_address().unwrap(), &relay).await;
        turn.allocate().await.unwrap();
        for bad in ["127.0.0.2:9", "10.0.0.1:80", "169.254.169.254:80", "192.168.1.1:53"] {
            assert_eq!(turn.bind(bad.parse().unwrap()).await, Err(403), "{bad}");
        }
        // The relay's own host may be named, for its allocations: anything
        // else there is sent nothing.
        let victim = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        turn.bind(victim.local_addr().unwrap()).await.unwrap();
        turn.send_on_channel(b"to ourselves").await;
        let permitted = turn
            .ask(Method::CreatePermission, |w| w.with_address(a::XOR_PEER_ADDRESS, broker.server.address()));
        permitted.await.unwrap();
        let mut bytes = [0; 64];
        let nothing = victim.recv_from(&mut bytes);
        futures_util::pin_mut!(nothing);
        assert!(futures_util::poll!(nothing).is_pending(), "it was sent to ourselves");
        assert_eq!(relayed_bytes(&broker).await, 0);
    });
}

#[test]
fn an_allowed_peer_is_reached_and_answers() {
    run(async {
        let relay =
            RelayOptions { allow_peers: vec!["127.0.0.0/8".parse().unwrap()], ..RelayOptions::default() };
        let broker =
            Broker::with(|options| options.relay = RelayChoice::Embedded(relay, Some("h.example".into())))
                .await;
        let (_farm, _client, relay) = farm(&broker).await;
        assert_eq!(relay.host.as_deref(), Some("h.example"));
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut turn = Turn::over_datagrams(broker.server.stun_address().unwrap(), &relay).await;
        let relayed = turn.allocate().await.unwrap();
        turn.bind(peer.local_addr().unwrap()).await.unwrap();
        turn.send_on_channel(b"there").await;
        let mut bytes = [0; 64];
        let (length, from) = within(peer.recv_from(&mut bytes)).await.unwrap();
        assert_eq!((&bytes[..length], from), (&b"there"[..], relayed));
        peer.send_to(b"and back", relayed).await.unwrap();
        assert_eq!(turn.receive_on_channel().await, b"and back");
        let mut own = Turn::over_datagrams(broker.server.stun_address().unwrap(), &relay).await;
        own.allocate().await.unwrap();
        let admin = broker.server.address();
        own.bind(admin).await.unwrap();
        own.send_on_channel(b"x").await;
        assert_eq!(relayed_bytes(&broker).await, 13, "nothing to the broker's own ports");
    });
}

#[test]
fn a_stream_that_is_no_turn_after_all_is_closed() {
    run(async {
        let broker = Broker::start().await;
        let good = Writer::new(Method::Binding, Class::Request, [1; 12]).finish(None);
        // Longer than any packet, not a multiple of 4, neither of both kinds.
        for noise in [&[0, 3, 0xff, 0xfc][..], &[0, 3, 0, 1], &[0x80, 0, 0, 0]] {
            let mut stream = TcpStream::connect(broker.server.address()).await.unwrap();
            stream.write_all(&[&good[..], noise].concat()).await.unwrap();
            let mut rest = Vec::new();
            // By a reset where something was left unread.
            let _ended = within(stream.read_to_end(&mut rest)).await;
            assert!(rest.is_empty() || rest.len() == 32, "{rest:?}");
        }
    });
}

#[test]
fn without_a_relay_nothing_is_offered_or_answered() {
    run(async {
        let broker = Broker::with(|options| options.relay = RelayChoice::Off).await;
        let farm = Device::farm(1);
        let token = broker.token("North").await;
        let mut client = broker.connect().await;
        let FromBroker::Welcome(welcome) = client.authenticate(&farm, Some(&token)).await else { panic!() };
        assert_eq!(welcome.relay, None);
        let mut stream = TcpStream::connect(broker.server.address()).await.unwrap();
        stream.write_all(&Writer::new(Method::Allocate, Class::Request, [1; 12]).finish(None)).await.unwrap();
        let mut answer = Vec::new();
        let _ended = within(stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
        match broker.ask(Request::Farms {}).await {
            Answer::Farms(farms) => assert_eq!(farms[0].relayed_bytes, None),
            other => panic!("{other:?}"),
        }
    });
}

/// coturn's test client: nobody here wrote it.
#[test]
fn coturns_client_gets_every_message_through() {
    if Command::new("turnutils_uclient").output().is_err() {
        return eprintln!("turnutils_uclient is missing, skipped: apt-get install coturn");
    }
    run(async {
        let broker = Broker::start().await;
        let (_farm, _client, relay) = farm(&broker).await;
        for transport in [&[][..], &["-t"]] {
            let port = if transport.is_empty() { relay.udp } else { relay.tcp }.unwrap().to_string();
            let (username, credential) = (relay.username.clone(), relay.credential.clone());
            let output = smol::unblock(move || {
                Command::new("turnutils_uclient")
                    .args(transport)
                    .args(["-y", "-c", "-n", "40", "-m", "4", "-z", "2", "-l", "171", "-p", &port])
                    .args(["-u", &username, "-w", &credential, "127.0.0.1"])
                    .output()
            });
            let output = within(output).await.unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let (said, errors) = (said.trim(), String::from_utf8_lossy(&output.stderr));
            assert!(
                output.status.success() && said.contains("Total lost packets 0 "),
                "{transport:?}: {said}\n{errors}"
            );
        }
        assert!(relayed_bytes(&broker).await >= 2 * 4 * 40 * 171);
    });
}
