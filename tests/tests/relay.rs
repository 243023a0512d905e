//! The broker's own relay, from the side of its devices: each transport carries
//! connections between ends that have no other way.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farm_protocol::broker::Role;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, Slot};
use farm_protocol::keys::DeviceKey;
use farm_tests::harness::farm::{Daemon, PATIENCE, Place};
use farm_tests::harness::{free_port, run, until};
use farm_tunnel::broker_socket::{BrokerSocket, Dialer, Identity, Trust};
use farm_tunnel::peer::{Channel, PathKind, Peer, PeerConfig, PeerEvent, RelayServer};
use farm_tunnel::progress::Beat;
use farm_tunnel::recovery::Ways;
use ring::rand::SystemRandom;

/// What a relayed connection may take: the NAT grid's goal of 2 s, and what a busy
/// machine adds. Less than the engine's first repetition of a lost handshake twice.
const OPENS_WITHIN: Duration = Duration::from_secs(5);

/// A broker on loopback whose relay sends there too.
fn broker(dir: &Path, tls: bool) -> (Daemon, Dialer) {
    let listen = free_port().unwrap();
    let mut text = format!("listen = \"{listen}\"\nstate = \"{}\"\n", dir.join("broker").display());
    let trust = if tls {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (chain, key) = (dir.join("chain.pem"), dir.join("key.pem"));
        std::fs::write(&chain, common::pem("CERTIFICATE", made.cert.der())).unwrap();
        std::fs::write(&key, common::pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
        text += &format!("public_url = \"https://localhost:{}\"\n", listen.port());
        text += &format!("[tls]\ncertificate = {chain:?}\nkey = {key:?}\n");
        Trust::from_pem(&chain).unwrap()
    } else {
        Trust::public().unwrap()
    };
    text += "[relay]\nallow_peers = [\"127.0.0.0/8\"]\n";
    let config = dir.join("farm-broker.toml");
    std::fs::write(&config, text).unwrap();
    let arguments = vec!["serve".into(), "--config".into(), config.into()];
    let mut daemon =
        Daemon::new(Place::here(), "farm-broker", arguments, |line| line.text.contains("listening"));
    daemon.start().unwrap();
    let scheme = if tls { "wss" } else { "ws" };
    let host = if tls { "localhost" } else { "127.0.0.1" };
    let url = format!("{scheme}://{host}:{}", listen.port());
    (daemon, Dialer::new(url.parse().unwrap(), trust, Some(listen)))
}

/// Enrolls a farm, and gives the relay that the broker tells it.
fn told(dir: &Path, dialer: &Dialer) -> RelayServer {
    let mut command = Place::here().command("farm-broker").unwrap();
    command.args(["enroll", "--state"]).arg(dir.join("broker"));
    let token = run("farm-broker enroll", &mut command, PATIENCE).unwrap().stdout.trim().to_owned();
    let identity = Identity {
        key: Arc::new(DeviceKey::generate(&SystemRandom::new()).unwrap()),
        role: Role::Farm,
        slot: Slot::new(0).unwrap(),
        boot: BootId::from_bytes([7; BootId::LEN]),
        name: None,
        enrollment_token: Some(token),
    };
    let (socket, _events) =
        BrokerSocket::start(dialer.clone(), identity, Epoch::of_start(1), 0, Beat::unwatched());
    socket.event(farm_tunnel::link::Event::Start);
    until("the broker tells of its relay", PATIENCE, || dialer.relay()).unwrap().0
}

/// Through the relay only, or on a way of its own.
fn config(relay: Option<&RelayServer>) -> PeerConfig {
    let ways = if relay.is_some() { Ways::RelayOnly } else { Ways::Any };
    let local_addresses = vec!["127.0.0.1:0".parse().unwrap()];
    PeerConfig { relay: relay.cloned(), ways, local_addresses, ..PeerConfig::default() }
}

/// Candidates that come later go to the other end, as through signalling.
fn trickle(events: async_channel::Receiver<PeerEvent>, to: Peer) {
    farm_tunnel::executor::spawn(async move {
        while let Ok(event) = events.recv().await {
            if let PeerEvent::Candidate(line) = event {
                // One of a connection that is over by then.
                let _ = to.add_candidate(&line).await;
            }
        }
    })
    .detach();
}

/// Opens a connection, sends a message each way, and says what its path was.
fn carries(near: PeerConfig, far: PeerConfig) -> (PathKind, Duration) {
    smol::block_on(async {
        let start = Instant::now();
        let (near, near_events, offer) = Peer::offer(near).await.unwrap();
        let (far, far_events, answer) = Peer::answer(far, &offer).await.unwrap();
        near.accept_answer(&answer).await.unwrap();
        trickle(near_events, far.clone());
        trickle(far_events, near.clone());
        while !(near.is_open() && far.is_open()) {
            assert!(start.elapsed() < PATIENCE, "not open: {:?}, {:?}", near.lost(), far.lost());
            smol::Timer::after(Duration::from_millis(1)).await;
        }
        let took = start.elapsed();
        for (from, to) in [(&near, &far), (&far, &near)] {
            from.send(Channel::Data, Bytes::from_static(b"through the relay")).await.unwrap();
            assert_eq!(to.recv(Channel::Data).await.as_deref(), Some(&b"through the relay"[..]));
        }
        let kind = near.path().await.unwrap().kind;
        near.close().await;
        far.close().await;
        (kind, took)
    })
}

/// One end through the relay, and both.
fn carries_every_way(relay: &RelayServer, transport: &str) {
    for far in [config(None), config(Some(relay))] {
        let (kind, took) = carries(config(Some(relay)), far);
        assert_eq!(kind, PathKind::Relayed, "{transport}");
        assert!(took < OPENS_WITHIN, "{transport}: {took:?}");
    }
}

#[test]
fn udp_and_tcp_carry_connections() {
    let _turn = common::turn();
    let dir = tempfile::tempdir().unwrap();
    let (_broker, dialer) = broker(dir.path(), false);
    let relay = told(dir.path(), &dialer);
    assert!(relay.udp.is_some() && relay.stream.as_ref().is_some_and(|stream| stream.tls.is_none()));
    carries_every_way(&RelayServer { stream: None, ..relay.clone() }, "UDP");
    carries_every_way(&RelayServer { udp: None, ..relay }, "TCP");
}

#[test]
fn tls_on_the_brokers_own_port_does_and_only_for_who_trusts_its_certificate() {
    let _turn = common::turn();
    let dir = tempfile::tempdir().unwrap();
    let (_broker, dialer) = broker(dir.path(), true);
    let relay = told(dir.path(), &dialer);
    let mut relay = RelayServer { udp: None, ..relay };
    assert!(relay.stream.as_ref().is_some_and(|stream| stream.tls.is_some()));
    carries_every_way(&relay, "TLS");

    // Whom nobody vouches for gets no packet, and nothing falls back to plain TCP.
    if let Some((trust, _)) = relay.stream.as_mut().and_then(|stream| stream.tls.as_mut()) {
        *trust = Trust::public().unwrap();
    }
    let hasty = PeerConfig { open_within: Duration::from_secs(2), ..config(Some(&relay)) };
    smol::block_on(async {
        let (near, near_events, offer) = Peer::offer(hasty).await.unwrap();
        let (far, far_events, answer) = Peer::answer(config(None), &offer).await.unwrap();
        near.accept_answer(&answer).await.unwrap();
        trickle(near_events, far.clone());
        trickle(far_events, near.clone());
        let end = until("it is given up", PATIENCE, || near.lost());
        assert!(end.is_ok() && !far.is_open());
    });
}
