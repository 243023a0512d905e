//! TLS with certificates that change, redirects, and peers that don't play by
//! its rules.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_tungstenite::tungstenite::ClientRequestBuilder;
use farm_broker::server::tls::{CertificateFiles, HANDSHAKE_WITHIN};
use farm_protocol::{CONNECT_PATH, SUBPROTOCOL};
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use futures_rustls::rustls::pki_types::CertificateDer;
use futures_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;
use tempfile::TempDir;

use crate::client::{Broker, Client, Device, run, within};

fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// Puts a new certificate for `localhost` where the broker looks for it.
pub(crate) fn renew(dir: &Path) -> (CertificateFiles, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = CertificateFiles { certificate: dir.join("chain.pem"), key: dir.join("key.pem") };
    std::fs::write(&files.key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
    std::fs::write(&files.certificate, pem("CERTIFICATE", made.cert.der())).unwrap();
    (files, made.cert.der().clone())
}

/// A connection by somebody who trusts this certificate alone.
pub(crate) async fn secure(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    within(connector.connect("localhost".try_into().unwrap(), stream)).await
}

async fn healthy(address: SocketAddr, trusted: &CertificateDer<'static>) -> bool {
    let Ok(mut stream) = secure(address, trusted).await else { return false };
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The connection ends without TLS's own goodbye, as browsers are used to.
    let _ended = within(stream.read_to_end(&mut answer)).await;
    answer.starts_with(b"HTTP/1.1 200")
}

pub(crate) async fn with_tls(dir: &TempDir) -> (Broker, CertificateDer<'static>) {
    let (files, certificate) = renew(dir.path());
    let broker = Broker::with(|options| {
        options.tls = Some(files.into());
        options.redirect = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    (broker, certificate)
}

#[test]
fn a_renewed_certificate_is_shown_to_the_next_and_disturbs_nobody() {
    run(async {
        let dir = TempDir::new().unwrap();
        let (broker, first) = with_tls(&dir).await;
        let address = broker.server.address();

        let uri = format!("wss://localhost:{}{CONNECT_PATH}", address.port()).parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
        let stream = secure(address, &first).await.unwrap();
        let (stream, _) = async_tungstenite::client_async(request, stream).await.unwrap();
        let mut device = Client::over(stream).await;
        device.enter(&Device::phone(1)).await;

        let (_, second) = renew(dir.path());
        broker.server.renew_certificate();
        while !healthy(address, &second).await {}
        assert!(secure(address, &first).await.is_err(), "the old one is not shown any more");
        device.settle(&Device::phone(1)).await;
    });
}

#[test]
fn what_is_not_tls_gets_nothing_and_disturbs_nobody() {
    run(async {
        let dir = TempDir::new().unwrap();
        let (broker, certificate) = with_tls(&dir).await;
        let address = broker.server.address();
        let started = Instant::now();
        let mut silent = TcpStream::connect(address).await.unwrap();
        // The head of a record that never comes.
        silent.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 4096], b"\x16\x03\x01\x00\x05hello"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(garbage).await.unwrap();
            let mut answer = Vec::new();
            // A reset is as good an end as any.
            let _ended = within(stream.read_to_end(&mut answer)).await;
            assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        }
        assert!(healthy(address, &certificate).await);
        let _ended = within(silent.read_to_end(&mut Vec::new())).await;
        let took = started.elapsed();
        assert!(took >= HANDSHAKE_WITHIN && took < HANDSHAKE_WITHIN * 2, "{took:?}");
    });
}

#[test]
fn the_plain_port_only_sends_on() {
    run(async {
        let dir = TempDir::new().unwrap();
        let (broker, _) = with_tls(&dir).await;
        let plain = broker.server.redirect_address().unwrap();
        let mut stream = TcpStream::connect(plain).await.unwrap();
        let request = format!("GET {CONNECT_PATH}?x=1 HTTP/1.1\r\nHost: localhost:80\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        let port = broker.server.address().port();
        assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
        let target = format!("location: https://localhost:{port}{CONNECT_PATH}?x=1\r\n");
        assert!(answer.contains(&target), "{answer}");
    });
}
