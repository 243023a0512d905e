use std::net::SocketAddr;
use std::time::Instant;

use async_tungstenite::tungstenite::Error;
use farm_broker::server::http::HEADER_WITHIN;
use farm_protocol::stun::{binding_request, mapped_address};
use farm_protocol::{CONNECT_PATH, SUBPROTOCOL};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpStream, UdpSocket};

use crate::client::{Broker, Client, Device, handshake, run, within};

/// Sends a request as it stands and gives all that comes back.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn health_and_nothing_else_is_served() {
    run(async {
        let broker = Broker::start().await;
        let address = broker.server.address();
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let health = raw(address, &get("/healthz")).await;
        assert!(health.starts_with("HTTP/1.1 200 OK"), "{health}");
        let expected = concat!(r#"{"ok":true,"version":""#, env!("CARGO_PKG_VERSION"), "\"}");
        assert!(health.contains(expected), "{health}");
        for path in ["/", "/healthz/", "/etc/passwd", "//"] {
            let answer = raw(address, &get(path)).await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        }
        let post = "POST /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
        assert!(raw(address, post).await.starts_with("HTTP/1.1 405"));
        let plain = raw(address, &get(CONNECT_PATH)).await;
        assert!(plain.starts_with("HTTP/1.1 426"), "{plain}");
    });
}

#[test]
fn figures_are_on_a_listener_of_their_own() {
    run(async {
        let broker = Broker::with(|options| options.metrics = Some("127.0.0.1:0".parse().unwrap())).await;
        let _farm = broker.enroll(&Device::farm(1)).await;
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let figures = raw(broker.server.metrics_address().unwrap(), &get("/metrics")).await;
        assert!(figures.starts_with("HTTP/1.1 200"), "{figures}");
        for line in ["farms_online 1", "connections 1", "enrolled_total 1", "limit_signals_total 0"] {
            assert!(figures.contains(&format!("\nfarm_broker_{line}\n")), "{line}: {figures}");
        }
        let elsewhere = raw(broker.server.address(), &get("/metrics")).await;
        assert!(elsewhere.starts_with("HTTP/1.1 404"), "never on the public port: {elsewhere}");
        let other = raw(broker.server.metrics_address().unwrap(), &get("/")).await;
        assert!(other.starts_with("HTTP/1.1 404"), "{other}");
    });
}

#[test]
fn the_subprotocol_is_required() {
    run(async {
        let broker = Broker::start().await;
        let address = broker.server.address();
        for protocol in [None, Some("mqtt"), Some("farm-tunnel.v2")] {
            match handshake(address, protocol).await {
                Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), 400),
                other => panic!("{protocol:?}: {other:?}"),
            }
        }
        handshake(address, Some(&format!("other, {SUBPROTOCOL}"))).await.unwrap();
    });
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    run(async {
        let broker = Broker::start().await;
        let address = broker.server.address();
        let many = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(100));
        let answer = raw(address, &many).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

        let large = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(large.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The rest is not read: a reset may overtake the answer.
        let ended = within(stream.read_to_end(&mut answer)).await;
        let refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 431");
        assert!(refused, "{ended:?} {}", String::from_utf8_lossy(&answer));
    });
}

#[test]
fn a_head_that_trickles_in_is_given_up() {
    run(async {
        let broker = Broker::start().await;
        let started = Instant::now();
        let mut slow = TcpStream::connect(broker.server.address()).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        // One that idles after a whole request is given up as well.
        let mut idle = TcpStream::connect(broker.server.address()).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        within(slow.read_to_end(&mut answer)).await.unwrap();
        let mut health = Vec::new();
        within(idle.read_to_end(&mut health)).await.unwrap();
        assert!(health.starts_with(b"HTTP/1.1 200"));
        let took = started.elapsed();
        assert!(took >= HEADER_WITHIN && took < HEADER_WITHIN * 2, "{took:?}");
    });
}

#[test]
fn a_trusted_proxy_says_where_a_device_comes_from() {
    run(async {
        let observed = |trusted: bool| async move {
            let broker = Broker::with(|options| {
                if trusted {
                    options.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
                }
            })
            .await;
            let address = broker.server.address();
            let uri = format!("ws://{address}{CONNECT_PATH}").parse().unwrap();
            let request = async_tungstenite::tungstenite::ClientRequestBuilder::new(uri)
                .with_sub_protocol(SUBPROTOCOL)
                .with_header("X-Forwarded-For", "6.6.6.6, 198.51.100.7");
            let stream = TcpStream::connect(address).await.unwrap();
            let (stream, _) = async_tungstenite::client_async(request, stream).await.unwrap();
            let mut client = Client::over(stream).await;
            client.enter(&Device::phone(1)).await.observed
        };
        assert_eq!(observed(true).await, "198.51.100.7:0");
        assert!(observed(false).await.starts_with("127.0.0.1:"));
    });
}

#[test]
fn stun_requests_are_answered() {
    run(async {
        let broker = Broker::start().await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = broker.server.stun_address().unwrap();
        socket.send_to(b"not STUN at all", target).await.unwrap();
        socket.send_to(&binding_request(&[7; 12]), target).await.unwrap();
        let mut buffer = [0; 600];
        let (length, source) = within(socket.recv_from(&mut buffer)).await.unwrap();
        assert_eq!(source, target);
        let mapped = mapped_address(&buffer[..length], &[7; 12]);
        assert_eq!(mapped, Some(socket.local_addr().unwrap()));
    });
}

#[test]
fn a_device_may_speak_in_the_same_packet_as_its_handshake() {
    run(async {
        let broker = Broker::start().await;
        let mut stream = TcpStream::connect(broker.server.address()).await.unwrap();
        // A masked close frame right behind the request.
        let request = format!(
            "GET {CONNECT_PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
        );
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(&[0x88, 0x80, 0, 0, 0, 0]);
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 101"));
        assert!(answer.ends_with(&[0x88, 0x00]), "the close is answered with one");
        assert_eq!(broker.counters().await.opened, 1);
    });
}

#[test]
fn a_page_of_others_gets_no_websocket() {
    run(async {
        let broker = Broker::start().await;
        let address = broker.server.address();
        let open = |origin: &str| {
            format!(
                "GET {CONNECT_PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nOrigin: {origin}\r\n\r\n"
            )
        };
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(open(&format!("http://{address}")).as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        within(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        for origin in ["https://evil.example", "null"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(open(origin).as_bytes()).await.unwrap();
            within(stream.read_exact(&mut answer)).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 403", "{origin}");
        }
        assert_eq!(broker.counters().await.refused_origin, 2);
    });
}

#[test]
fn requests_over_one_connection_are_limited() {
    run(async {
        let broker = Broker::with(|options| {
            options.limits.requests = farm_broker::core::bucket::Rate::per_minute(3, 1);
        })
        .await;
        let one = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        let answers = raw(broker.server.address(), &one.repeat(10)).await;
        let count = |status: &str| answers.matches(&format!("HTTP/1.1 {status}")).count();
        assert_eq!((count("200"), count("429")), (3, 1), "{answers}");
        assert_eq!(broker.counters().await.limit_requests, 1);
    });
}
