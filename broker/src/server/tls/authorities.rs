//! Whom the broker trusts where it is the client itself.

use std::path::Path;
use std::sync::Arc;

use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::pki_types::CertificateDer;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::{ClientConfig, RootCertStore};

use super::TlsError;
use super::pem::CertificateError;

/// A client that trusts the authorities of this PEM file, else the public ones.
pub(in crate::server) fn client(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let wrong = |why: String| CertificateError::Content {
                path: path.to_owned(),
                what: "certificate of an authority",
                why,
            };
            let found: Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(path).and_then(|found| found.collect());
            for certificate in found.map_err(|error| wrong(error.to_string()))? {
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("none is in it".to_owned()).into());
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
