//! Whom the device trusts to be the broker's TLS end. The broker itself is
//! never trusted; TLS keeps strangers from watching who meets whom.

mod pinned;

use std::path::Path;
use std::sync::Arc;

use farm_protocol::channel::{Channel, EXPORTER_LABEL};
use farm_protocol::key_pin::{KeyPin, KeyPinError};
use futures_rustls::TlsConnector;
use futures_rustls::rustls::pki_types::UnixTime;
use futures_rustls::rustls::time_provider::TimeProvider;
use futures_rustls::rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, crypto::ring};

use crate::clock::Clock;
use pinned::Pinned;

/// The certificate authorities to accept.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust(..)")
    }
}

/// A file of certificates that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file can't be read.
    #[error("can't read the certificate file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// No usable certificate in the file.
    #[error("{0} holds no usable PEM certificate")]
    Empty(String),
    /// The pinned key is none.
    #[error(transparent)]
    Pin(#[from] KeyPinError),
    /// The TLS library refused the settings.
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] futures_rustls::rustls::Error),
}

impl Trust {
    /// The public authorities that browsers trust.
    ///
    /// # Errors
    /// [`TrustError::Setup`].
    pub fn public() -> Result<Self, TrustError> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Self::with_roots(roots)
    }

    /// Only the authorities in a PEM file: an operator's own.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn from_pem(path: &Path) -> Result<Self, TrustError> {
        let shown = || path.display().to_string();
        let pem = std::fs::read(path).map_err(|source| TrustError::Read { path: shown(), source })?;
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut &pem[..]) {
            let certificate = certificate.map_err(|source| TrustError::Read { path: shown(), source })?;
            roots.add(certificate)?;
        }
        if roots.is_empty() {
            return Err(TrustError::Empty(shown()));
        }
        Self::with_roots(roots)
    }

    /// Nobody but who has this key.
    ///
    /// # Errors
    /// [`TrustError::Setup`].
    pub fn pinned(pin: KeyPin) -> Result<Self, TrustError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::new(pin)))
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }

    fn with_roots(roots: RootCertStore) -> Result<Self, TrustError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }

    /// Judges certificates by this clock instead of the system's: a device
    /// that starts in 1970 would find all of them not yet valid.
    #[must_use]
    pub fn by(mut self, clock: &Clock) -> Self {
        Arc::make_mut(&mut self.config).time_provider = Arc::new(ByClock(clock.clone()));
        self
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.config.clone())
    }
}

/// What the other end of this connection alone knows, too. `None` before TLS
/// 1.3, where it may be known to others (RFC 9266 section 3).
pub(super) fn channel(session: &ClientConnection) -> Option<Channel> {
    if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    let exported = session.export_keying_material([0; 32], EXPORTER_LABEL, None).ok()?;
    Some(Channel::from_bytes(exported))
}

#[derive(Debug)]
struct ByClock(Clock);

impl TimeProvider for ByClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.now().time))
    }
}
