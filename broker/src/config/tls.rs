//! What the config says about TLS.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::server::tls::CertificateFiles;

/// The table `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate chain in PEM, the broker's own first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
    /// A plain port that sends browsers on to `https`.
    pub redirect: Option<SocketAddr>,
}

impl TlsSettings {
    /// Where the certificate is.
    pub fn files(&self) -> CertificateFiles {
        CertificateFiles { certificate: self.certificate.clone(), key: self.key.clone() }
    }
}
