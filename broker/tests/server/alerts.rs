//! Alerts to real receivers on loopback, over HTTP and HTTPS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farm_broker::server::webhook::Webhook;
use farm_broker::server::{AlertOptions, Server};
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use serde_json::Value;
use smol::Timer;
use smol::net::TcpListener;
use tempfile::TempDir;

use crate::client::{Broker, Device, options, run, within};
use crate::tls::renew;

/// Long enough for a farm to come back to a broker that was restarted here.
const AFTER: Duration = Duration::from_millis(300);

/// Where alerts are received.
struct Receiver {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    certificate: Option<PathBuf>,
    _dir: TempDir,
}

impl Receiver {
    async fn plain() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, tls: None, certificate: None, _dir: TempDir::new().unwrap() }
    }

    async fn secure() -> Self {
        let dir = TempDir::new().unwrap();
        let (files, _) = renew(dir.path());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(&files.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(&files.key).unwrap(),
            )
            .unwrap();
        let plain = Self::plain().await;
        let tls = Some(TlsAcceptor::from(Arc::new(config)));
        Self { tls, certificate: Some(files.certificate), _dir: dir, ..plain }
    }

    fn alerts(&self) -> AlertOptions {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let port = self.listener.local_addr().unwrap().port();
        let url = format!("{scheme}://localhost:{port}/hook?token=secret").parse().unwrap();
        AlertOptions { after: AFTER, webhook: Webhook::new(url, self.certificate.as_deref()).unwrap() }
    }

    /// Takes one alert and answers it; gives its head and body.
    async fn take(&self, status: &str) -> (String, Value) {
        within(async {
            loop {
                let (stream, _) = self.listener.accept().await.unwrap();
                let taken = match &self.tls {
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => exchange(stream, status).await,
                        // Whoever does not trust it goes away.
                        Err(_) => continue,
                    },
                    None => exchange(stream, status).await,
                };
                return taken;
            }
        })
        .await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: &str) -> (String, Value) {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "it ended early: {bytes:?}");
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() < length.unwrap_or(usize::MAX) {
            continue;
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        return (head.to_owned(), serde_json::from_str(body).unwrap());
    }
}

async fn telling(receiver: &Receiver) -> Broker {
    Broker::with(|options| options.alerts = Some(receiver.alerts())).await
}

/// Waits until so many were delivered, which the receiver knows first.
async fn sent(broker: &Broker, count: u64) {
    within(async {
        while broker.counters().await.alerts_sent < count {
            Timer::after(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[test]
fn a_farm_that_is_away_and_back_is_told_over_https() {
    run(async {
        let receiver = Receiver::secure().await;
        let broker = telling(&receiver).await;
        let farm = Device::farm(1);
        drop(broker.enroll(&farm).await);
        let (head, alert) = receiver.take("204 No Content").await;
        assert!(head.starts_with("POST /hook?token=secret HTTP/1.1"), "{head}");
        assert_eq!((&alert["event"], &alert["name"]), (&"farm_away".into(), &"North field".into()));
        assert_eq!(alert["farm"], farm.farm_id().to_string());
        let client = broker.enter(&farm).await;
        let (_, back) = receiver.take("200 OK").await;
        assert_eq!((&back["event"], &back["since"]), (&"farm_back".into(), &alert["since"]));
        sent(&broker, 2).await;
        drop(client);
        broker.server.stop().await;
    });
}

#[test]
fn a_receiver_with_trouble_is_asked_again_and_one_that_refuses_is_not() {
    run(async {
        let receiver = Receiver::plain().await;
        let broker = telling(&receiver).await;
        let farm = Device::farm(1);
        drop(broker.enroll(&farm).await);
        let (_, first) = receiver.take("503 Service Unavailable").await;
        let (_, again) = receiver.take("404 Not Found").await;
        assert_eq!(first, again);
        let _client = broker.enter(&farm).await;
        let (_, back) = receiver.take("200 OK").await;
        assert_eq!(back["event"], "farm_back", "what was refused holds nothing up");
        sent(&broker, 1).await;
        let counters = broker.counters().await;
        assert_eq!((counters.alerts_failed, counters.alerts_dropped), (1, 1));
    });
}

#[test]
fn a_receiver_that_is_not_who_it_should_be_gets_nothing() {
    run(async {
        let receiver = Receiver::secure().await;
        // Whom nobody vouches for.
        let mut alerts = receiver.alerts();
        let port = receiver.listener.local_addr().unwrap().port();
        alerts.webhook = Webhook::new(format!("https://localhost:{port}/").parse().unwrap(), None).unwrap();
        let broker = Broker::with(|options| options.alerts = Some(alerts)).await;
        drop(broker.enroll(&Device::farm(1)).await);
        let (stream, _) = within(receiver.listener.accept()).await.unwrap();
        let shaken = receiver.tls.as_ref().unwrap().accept(stream).await;
        assert!(shaken.is_err(), "the handshake must fail at the broker");
        within(async {
            while broker.counters().await.alerts_failed == 0 {
                Timer::after(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(broker.counters().await.alerts_sent, 0);
    });
}

#[test]
fn what_was_told_is_known_after_a_restart() {
    run(async {
        let receiver = Receiver::plain().await;
        let broker = telling(&receiver).await;
        let farm = Device::farm(1);
        drop(broker.enroll(&farm).await);
        assert_eq!(receiver.take("200 OK").await.1["event"], "farm_away");
        sent(&broker, 1).await;
        broker.server.stop().await;
        let mut options = options(broker.state.path());
        options.alerts = Some(receiver.alerts());
        let broker = Broker { server: Server::start(options).await.unwrap(), state: broker.state };
        let _client = broker.enter(&farm).await;
        assert_eq!(receiver.take("200 OK").await.1["event"], "farm_back", "and not away once more");
        sent(&broker, 1).await;
    });
}
