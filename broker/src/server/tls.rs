//! TLS at the listener: who the broker is, proved by a certificate that is
//! renewed while it runs.

mod pem;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::server::ResolvesServerCert;
use futures_rustls::rustls::{self, ServerConfig, crypto::ring};
use futures_rustls::server::TlsStream;
use futures_util::{AsyncRead, AsyncWrite};
use smol::Timer;
use smol::future::or;

use pem::Watched;
pub use pem::{CertificateError, CertificateFiles};

/// A handshake must be done within this time, also when it trickles in: four
/// flights at the worst round trip of a satellite link are below 4 s.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Session tickets given after a TLS 1.3 handshake: a device comes back once.
const TICKETS: usize = 1;

/// Why TLS can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate can't be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The library refused the settings.
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// The listener's end of TLS. Clones share the certificate.
#[derive(Clone)]
pub(super) struct Tls {
    acceptor: TlsAcceptor,
}

/// Keeps the certificate up to date.
pub(super) struct Renewal {
    watched: Watched,
    asked: Receiver<()>,
}

impl Tls {
    /// With the certificate in these files, which is read again when they
    /// change, or when asked. Blocks on the disk for a moment.
    pub(super) fn from_files(files: CertificateFiles) -> Result<(Self, Renewal, Sender<()>), TlsError> {
        let watched = Watched::open(files)?;
        tell(&watched, "speaking TLS");
        let acceptor = config(watched.current())?.into();
        let (ask, asked) = async_channel::bounded(1);
        Ok((Self { acceptor }, Renewal { watched, asked }, ask))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// What the peer did wrong, or that it took too long.
    pub(super) async fn handshake<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        or(self.acceptor.accept(stream), async {
            Timer::after(HANDSHAKE_WITHIN).await;
            Err(io::ErrorKind::TimedOut.into())
        })
        .await
    }
}

impl Renewal {
    /// Runs until the broker ends.
    pub(super) async fn run(mut self) {
        loop {
            let asked = async { self.asked.recv().await.ok().map(|()| true) };
            let late = async {
                Timer::after(pem::LOOK_EVERY).await;
                Some(false)
            };
            // Nobody can ask any more: the broker is going.
            let Some(asked) = or(asked, late).await else { return };
            match self.watched.look(asked) {
                Ok(false) => {}
                Ok(true) => tell(&self.watched, "the certificate was read again: new connections get it"),
                Err(error) => tracing::error!(%error, "the old certificate stays in use"),
            }
        }
    }
}

/// With the key, which a device's config may hold (`broker_key`).
fn tell(watched: &Watched, what: &str) {
    let key = watched.pin().map_or_else(|| "unknown".to_owned(), |pin| pin.to_string());
    tracing::info!(%key, "{what}");
}

/// TLS 1.2 and 1.3 with the library's safe choice of ciphers.
fn config(certificate: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    // The second for the relay's clients (RFC 7443), which come to the same port.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"stun.turn".to_vec()];
    // Devices that come back after a restart of the network resume for a
    // fraction of the work; the tickets' keys rotate and are never stored.
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = TICKETS;
    Ok(Arc::new(config))
}
