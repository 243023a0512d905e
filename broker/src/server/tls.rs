//! TLS at the listener: who the broker is, proved by a certificate that is
//! renewed while it runs.

mod acme;
mod authorities;
mod channel;
mod current;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod exchange;
mod pem;
mod stream;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_rustls::rustls::crypto::{CryptoProvider, ring};
use futures_rustls::rustls::server::ResolvesServerCert;
use futures_rustls::rustls::{self, CipherSuite, ServerConfig};
use futures_util::{AsyncRead, AsyncWrite};
use smol::future::or;

use super::reactor::Alarm;
use acme::Acme;
pub use acme::{AcmeOptions, LETS_ENCRYPT, MAX_DOMAINS};
pub(super) use authorities::client;
use current::Current;
use pem::Watched;
pub use pem::{CertificateError, CertificateFiles};
pub(super) use stream::TlsStream;

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

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// From files that somebody else renews.
    Files(CertificateFiles),
    /// From an authority, by ACME.
    Acme(AcmeOptions),
}

impl From<CertificateFiles> for CertificateSource {
    fn from(files: CertificateFiles) -> Self {
        Self::Files(files)
    }
}

/// The listener's end of TLS. Clones share the certificate.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ServerConfig>,
}

/// Keeps the certificate up to date.
pub(super) struct Renewal {
    source: Source,
    asked: Receiver<()>,
}

enum Source {
    Files(Watched),
    Acme(Box<Acme>),
}

/// Shows when the certificate in use ends.
#[derive(Clone)]
pub(super) struct Expiry(Arc<Current>);

impl Expiry {
    /// Seconds since 1970; `None` while there is no certificate.
    pub(super) fn until(&self) -> Option<u64> {
        self.0.validity().map(|validity| validity.until)
    }
}

/// What [`Tls::open`] brings up.
pub(super) struct Opened {
    pub(super) tls: Tls,
    pub(super) renewal: Renewal,
    /// Asks for a renewal.
    pub(super) renew: Sender<()>,
    pub(super) expiry: Expiry,
}

impl Tls {
    /// With a certificate that is renewed when it is time, or when asked.
    /// Blocks on the disk for a moment.
    pub(super) fn open(source: CertificateSource) -> Result<Opened, TlsError> {
        let (ask, asked) = async_channel::bounded(1);
        let (resolver, source, current): (Arc<dyn ResolvesServerCert>, _, _) = match source {
            CertificateSource::Files(files) => {
                let watched = Watched::open(files)?;
                tell(&watched, "speaking TLS");
                let current = watched.current().clone();
                (current.clone(), Source::Files(watched), current)
            }
            CertificateSource::Acme(options) => {
                let acme = Acme::open(options)?;
                let current = acme.current().clone();
                (acme.shown(), Source::Acme(Box::new(acme)), current)
            }
        };
        let by_acme = matches!(source, Source::Acme(_));
        let config = config(resolver, by_acme)?;
        let renewal = Renewal { source, asked };
        Ok(Opened { tls: Self { config }, renewal, renew: ask, expiry: Expiry(current) })
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// What the peer did wrong, or that it took too long.
    pub(super) async fn handshake<S>(&self, stream: S) -> io::Result<Box<TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = or(TlsStream::accept(stream, self.config.clone()), async {
            Alarm::after(HANDSHAKE_WITHIN).await;
            Err(io::ErrorKind::TimedOut.into())
        })
        .await?;
        if stream.alpn_protocol() == Some(acme::CHALLENGE_PROTOCOL) {
            // RFC 8737 section 3: the handshake was all that it is about.
            return Err(io::Error::other("it was an authority's challenge"));
        }
        Ok(stream)
    }
}

impl Renewal {
    /// Runs until the broker ends.
    pub(super) async fn run(self) {
        match self.source {
            Source::Files(watched) => watch(watched, self.asked).await,
            Source::Acme(acme) => acme.run(self.asked).await,
        }
    }
}

async fn watch(mut watched: Watched, asked: Receiver<()>) {
    loop {
        let by_hand = async { asked.recv().await.ok().map(|()| true) };
        let late = async {
            Alarm::after(pem::LOOK_EVERY).await;
            Some(false)
        };
        // Nobody can ask any more: the broker is going.
        let Some(by_hand) = or(by_hand, late).await else { return };
        match watched.look(by_hand) {
            Ok(false) => {}
            Ok(true) => tell(&watched, "the certificate was read again: new connections get it"),
            Err(error) => tracing::error!(%error, "the old certificate stays in use"),
        }
    }
}

/// With the key, which a device's config may hold (`broker_key`).
fn tell(watched: &Watched, what: &str) {
    let key = watched.current().pin().map_or_else(|| "unknown".to_owned(), |pin| pin.to_string());
    tracing::info!(%key, "{what}");
}

/// The library's safe choice of ciphers, without those of AES-256: they go with
/// SHA-384, which processors have no instructions for and which is a twentieth
/// of a handshake. AES-128 is what all of TLS 1.3 must have (RFC 8446 section
/// 9.1), and ChaCha20 stays for who has no instructions for AES.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        )
    });
    // Where it is fast: for other processors its authors have no code of their own.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    for group in &mut provider.kx_groups {
        if group.name() == rustls::NamedGroup::X25519 {
            *group = &exchange::FastX25519;
        }
    }
    provider
}

/// TLS 1.2 and 1.3.
fn config(
    certificate: Arc<dyn ResolvesServerCert>,
    by_acme: bool,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    // The second for the relay's clients (RFC 7443), which come to the same port.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"stun.turn".to_vec()];
    if by_acme {
        // Last: whoever speaks something else too gets that.
        config.alpn_protocols.push(acme::CHALLENGE_PROTOCOL.to_vec());
    }
    // Devices that come back after a restart of the network resume for a
    // fraction of the work; the tickets' keys rotate and are never stored.
    config.key_log = Arc::new(channel::Exporter);
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = TICKETS;
    Ok(Arc::new(config))
}
