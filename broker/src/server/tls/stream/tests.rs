//! Against the library's own client, over a network that gives and takes as
//! little as it can.

use std::os::unix::net::UnixStream;

use farm_protocol::channel::EXPORTER_LABEL;
use futures_rustls::TlsConnector;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::version::{TLS12, TLS13};
use futures_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::ring};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use smol::Async;
use smol::future::{block_on, poll_once, zip};

use super::*;

/// Moves all at once.
const WIDE: usize = 100_000;

/// Moves at most so many bytes at once, and lets others go first before each,
/// unless it is wide.
struct Narrow<S>(S, usize, bool);

impl<S> Narrow<S> {
    fn may(&mut self, cx: &mut Context<'_>) -> bool {
        self.2 = !self.2 && self.1 < WIDE;
        if self.2 {
            cx.waker().wake_by_ref();
        }
        !self.2
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Narrow<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.may(cx) {
            return Poll::Pending;
        }
        let count = into.len().min(self.1);
        Pin::new(&mut self.0).poll_read(cx, &mut into[..count])
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Narrow<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.may(cx) {
            return Poll::Pending;
        }
        let count = bytes.len().min(self.1);
        Pin::new(&mut self.0).poll_write(cx, &bytes[..count])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

type Pipe = Narrow<Async<UnixStream>>;

/// Both ends of a pipe that moves so many bytes at once.
fn pipe(width: usize) -> (Pipe, Pipe) {
    let (one, other) = Async::<UnixStream>::pair().unwrap();
    (Narrow(one, width, false), Narrow(other, width, false))
}

/// What both ends need.
fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(Arc::new(super::super::provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    server.key_log = Arc::new(channel::Exporter);
    server.ticketer = ring::Ticketer::new().unwrap();
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    (Arc::new(server), TlsConnector::from(Arc::new(client)))
}

type Client = futures_rustls::client::TlsStream<Pipe>;

/// A connection after its handshake.
async fn connected(
    version: &'static SupportedProtocolVersion,
    width: usize,
) -> (Box<TlsStream<Pipe>>, Client) {
    let (server, connector) = configs(version);
    let (here, there) = pipe(width);
    let name = "localhost".try_into().unwrap();
    let (server, client) = zip(TlsStream::accept(here, server), connector.connect(name, there)).await;
    (server.unwrap(), client.unwrap())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn holds_nothing(stream: &TlsStream<Pipe>) -> bool {
    stream.incoming.capacity() + stream.plaintext.bytes.capacity() + stream.outgoing.bytes.capacity() == 0
}

#[test]
fn bytes_come_back_as_they_went_and_nothing_is_kept_afterwards() {
    for (version, width) in [(&TLS13, 1), (&TLS12, 3), (&TLS13, WIDE), (&TLS12, WIDE)] {
        block_on(async {
            let (mut server, mut client) = connected(version, width).await;
            assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
            for length in [1, 100, 16_384, 16_385, 40_000] {
                let (sent, mut back) = (pattern(length), vec![0; length]);
                let echo = async {
                    let mut got = vec![0; length];
                    server.read_exact(&mut got).await.unwrap();
                    server.write_all(&got).await.unwrap();
                    server.flush().await.unwrap();
                };
                let ask = async {
                    client.write_all(&sent).await.unwrap();
                    client.flush().await.unwrap();
                    client.read_exact(&mut back).await.unwrap();
                };
                zip(echo, ask).await;
                assert!(sent == back, "{length} bytes, {width} at once");
                assert!(holds_nothing(&server), "{length} bytes, {width} at once");
            }
        });
    }
}

#[test]
fn both_ends_know_the_same_of_their_connection_and_nobody_else_does() {
    let exported = |width| {
        block_on(async {
            let (mut server, client) = connected(&TLS13, width).await;
            let there = client.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
            let here = server.take_channel().unwrap();
            assert_eq!(*here, Channel::from_bytes(there));
            assert!(server.take_channel().is_none(), "once");
            there
        })
    };
    assert_ne!(exported(WIDE), exported(1), "each connection has its own");
    let (mut before, _client) = block_on(connected(&TLS12, WIDE));
    assert!(before.take_channel().is_none(), "TLS 1.2 has nothing that is safe for this");
}

#[test]
fn a_reader_takes_what_it_has_room_for() {
    block_on(async {
        let (mut server, mut client) = connected(&TLS13, WIDE).await;
        client.write_all(b"a few words").await.unwrap();
        client.flush().await.unwrap();
        let (mut first, mut rest) = ([0; 1], [0; 10]);
        server.read_exact(&mut first).await.unwrap();
        server.read_exact(&mut rest).await.unwrap();
        assert_eq!((&first, &rest), (b"a", b" few words"));
        // The tickets still wait for something to go with.
        assert!(!server.outgoing.is_empty());
        server.flush().await.unwrap();
        assert!(holds_nothing(&server));
        assert!(poll_once(server.read(&mut first)).await.is_none(), "no more came");
        assert_eq!(server.read(&mut []).await.unwrap(), 0);
    });
}

#[test]
fn the_end_is_told_from_a_cut() {
    for version in [&TLS13, &TLS12] {
        block_on(async {
            let (mut server, mut client) = connected(version, WIDE).await;
            client.close().await.unwrap();
            assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
            assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "and so it stays");

            let (mut server, client) = connected(version, WIDE).await;
            drop(client);
            let cut = server.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);

            let (mut server, mut client) = connected(version, WIDE).await;
            server.write_all(b"bye").await.unwrap();
            server.close().await.unwrap();
            assert!(server.write_all(b"more").await.is_err());
            drop(server);
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"bye", "with a goodbye, which the library demands");
        });
    }
}

#[test]
fn whoever_speaks_no_tls_is_told() {
    block_on(async {
        let (config, _) = configs(&TLS13);
        let (here, mut there) = pipe(WIDE);
        let speak = async {
            there.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            there.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let (accepted, answer) = zip(TlsStream::accept(here, config), speak).await;
        assert_eq!(accepted.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
        // An alert (RFC 8446 section 6), and fatal.
        assert_eq!((answer[0], answer.len(), answer[5]), (21, 7, 2));
    });
}

#[test]
fn a_record_that_was_changed_ends_the_connection_with_an_alert() {
    block_on(async {
        let (mut server, mut client) = connected(&TLS13, WIDE).await;
        // One of application data that nobody encrypted.
        let forged = [23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0];
        client.get_mut().0.write_all(&forged).await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let told = client.read(&mut [0; 8]).await.unwrap_err();
        assert!(told.to_string().contains("BadRecordMac"), "{told}");
    });
}
