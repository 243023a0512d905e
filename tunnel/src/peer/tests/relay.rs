//! Through a relay: coturn, where it is installed; and what a relay must not cost.

use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::super::relay;
use super::*;

const USER: &str = "farm";
const PASSWORD: &str = "relay";

/// A relay on loopback; ends with the test.
struct Coturn {
    process: Child,
    port: u16,
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Coturn {
    /// `None`, said aloud, where there is none on this machine.
    async fn start() -> Option<Self> {
        let port = free_port();
        let process = Command::new("turnserver")
            .args(["-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--realm=farm"])
            .args(["--no-tls", "--no-dtls", "--no-cli", "--allow-loopback-peers", "--log-file=stdout"])
            .args(["--lt-cred-mech", "--pidfile=/dev/null", "--userdb=/dev/null"])
            .arg(format!("--user={USER}:{PASSWORD}"))
            .arg(format!("--listening-port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            eprintln!("SKIPPED: there is no coturn here (Debian package coturn)");
            return None;
        };
        let coturn = Self { process, port };
        within("coturn listens", PATIENCE, async {
            while smol::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                smol::Timer::after(Duration::from_millis(20)).await;
            }
        })
        .await;
        Some(coturn)
    }

    fn server(&self, udp: bool, stream: bool) -> RelayServer {
        RelayServer {
            host: RelayHost::Address(Ipv4Addr::LOCALHOST.into()),
            udp: udp.then_some(self.port),
            stream: stream.then_some(RelayStream { port: self.port, tls: None }),
            username: USER.to_owned(),
            credential: PASSWORD.to_owned(),
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn through(relay: RelayServer) -> PeerConfig {
    PeerConfig { relay: Some(relay), ways: Ways::RelayOnly, ..config() }
}

/// Passes on the candidates that come later, as signalling does.
fn trickle(from: &End, to: &End) {
    let (events, peer) = (from.events.clone(), to.peer.clone());
    crate::executor::spawn(async move {
        while let Ok(event) = events.recv().await {
            if let PeerEvent::Candidate(line) = event {
                // One of a connection that is over by then.
                let _ = peer.add_candidate(&line).await;
            }
        }
    })
    .detach();
}

/// Both ends, open over what their configs allow.
async fn connected(near: PeerConfig, far: PeerConfig) -> (End, End) {
    let (near, far, answer) = negotiate(near, far).await;
    near.peer.accept_answer(&answer).await.unwrap();
    trickle(&near, &far);
    trickle(&far, &near);
    within("both ends are open", PATIENCE, async {
        while !(near.peer.is_open() && far.peer.is_open()) {
            smol::Timer::after(Duration::from_millis(1)).await;
        }
    })
    .await;
    (near, far)
}

/// A message there and one back.
async fn echo(near: &End, far: &End) {
    for (from, to) in [(near, far), (far, near)] {
        from.peer.send(Channel::Data, Bytes::from_static(b"through the relay")).await.unwrap();
        let came = within("a message", PATIENCE, to.peer.recv(Channel::Data)).await;
        assert_eq!(came.as_deref(), Some(&b"through the relay"[..]));
    }
}

async fn kinds(near: &End, far: &End) -> [PathKind; 2] {
    [near.peer.path().await.unwrap().kind, far.peer.path().await.unwrap().kind]
}

#[test]
fn one_end_or_both_go_through_the_relay_by_each_transport() {
    smol::block_on(async {
        let Some(coturn) = Coturn::start().await else { return };
        for (udp, stream) in [(true, false), (false, true)] {
            let near = through(coturn.server(udp, stream));
            for far in [config(), through(coturn.server(udp, stream))] {
                let (near, far) = connected(near.clone(), far).await;
                echo(&near, &far).await;
                assert_eq!(kinds(&near, &far).await, [PathKind::Relayed; 2], "udp {udp}");
                near.peer.close().await;
                far.peer.close().await;
            }
        }
    });
}

#[test]
fn where_udp_does_not_reach_the_relay_a_stream_does_and_the_next_connection_knows() {
    smol::block_on(async {
        let Some(coturn) = Coturn::start().await else { return };
        // Somebody who never answers.
        let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut server = coturn.server(true, true);
        server.udp = Some(nobody.local_addr().unwrap().port());
        let near = through(server);
        let (first, far) = connected(near.clone(), config()).await;
        echo(&first, &far).await;
        assert_eq!(near.known_path.relay(), Some(relay::Via::Stream));
        let (second, far) = connected(near.clone(), config()).await;
        echo(&second, &far).await;
        assert_eq!(near.known_path.relay(), Some(relay::Via::Stream));
    });
}

#[test]
fn a_relay_that_is_not_needed_is_not_asked_and_an_unreachable_one_costs_no_time() {
    smol::block_on(async {
        let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        relay.set_nonblocking(true).unwrap();
        let mut buffer = [0; 64];
        // A busy machine may be late, and the relay is asked then.
        for _ in 0..50 {
            while relay.recv(&mut buffer).is_ok() {}
            let with = || PeerConfig { relay: Some(silent(&relay)), ..config() };
            let start = Instant::now();
            let (near, far) = connected(with(), with()).await;
            let took = start.elapsed();
            assert_eq!(kinds(&near, &far).await, [PathKind::Direct; 2]);
            // Longer than it is waited for a direct path.
            smol::Timer::after(relay::PATIENCE_ANSWERING + Duration::from_millis(100)).await;
            near.peer.close().await;
            far.peer.close().await;
            if took < Duration::from_millis(100) {
                let asked = relay.recv(&mut buffer).map_err(|error| error.kind());
                assert_eq!(asked, Err(std::io::ErrorKind::WouldBlock), "the relay was asked");
                return;
            }
        }
        panic!("none of 50 connections opened within 100 ms");
    });
}

#[test]
fn an_attempt_at_a_direct_connection_leaves_both_relays_out() {
    smol::block_on(async {
        let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        relay.set_nonblocking(true).unwrap();
        let known = KnownPath::default();
        // As after a relayed connection: the relay is asked at once.
        known.opened(Some(relay::Via::Udp));
        let with =
            |ways| PeerConfig { relay: Some(silent(&relay)), ways, known_path: known.clone(), ..config() };
        let mut buffer = [0; 64];
        let (near, far) = connected(with(Ways::DirectOnly), with(Ways::Any)).await;
        assert_eq!(kinds(&near, &far).await, [PathKind::Direct; 2]);
        let asked = relay.recv(&mut buffer).map_err(|error| error.kind());
        assert_eq!(asked, Err(std::io::ErrorKind::WouldBlock), "a relay was asked");

        // Without the wish, it is.
        known.opened(Some(relay::Via::Udp));
        let (peer, _events, _) = Peer::offer(with(Ways::Any)).await.unwrap();
        within("the relay is asked", PATIENCE, async {
            while relay.recv(&mut buffer).is_err() {
                smol::Timer::after(Duration::from_millis(5)).await;
            }
        })
        .await;
        peer.close().await;
    });
}

/// A relay at a socket that never answers.
fn silent(socket: &UdpSocket) -> RelayServer {
    RelayServer {
        host: RelayHost::Address(Ipv4Addr::LOCALHOST.into()),
        udp: Some(socket.local_addr().unwrap().port()),
        stream: Some(RelayStream { port: free_port(), tls: None }),
        username: USER.to_owned(),
        credential: PASSWORD.to_owned(),
    }
}
