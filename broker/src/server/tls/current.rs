//! The certificate in use, shared by whoever shows it and whoever renews it.

use std::sync::{Arc, Mutex, PoisonError};

use farm_protocol::key_pin::KeyPin;
use futures_rustls::rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use futures_rustls::rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

/// From when to when a certificate is good, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Validity {
    /// Read from the first certificate of a chain.
    pub(super) fn of(key: &CertifiedKey) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(key.cert.first()?).ok()?;
        let validity = parsed.validity();
        Some(Self {
            from: validity.not_before.timestamp().try_into().ok()?,
            until: validity.not_after.timestamp().try_into().ok()?,
        })
    }
}

/// The certificate in use; none at first where it has yet to be ordered.
#[derive(Debug, Default)]
pub(super) struct Current(Mutex<Option<Arc<CertifiedKey>>>);

impl Current {
    /// What the next connections get.
    pub(super) fn set(&self, key: CertifiedKey) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(key));
    }

    pub(super) fn key(&self) -> Option<Arc<CertifiedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What devices may pin instead of trusting an authority.
    pub(super) fn pin(&self) -> Option<KeyPin> {
        let key = self.key()?;
        let own = ParsedCertificate::try_from(key.cert.first()?).ok()?;
        Some(KeyPin::of(&own.subject_public_key_info()))
    }

    pub(super) fn validity(&self) -> Option<Validity> {
        Validity::of(&*self.key()?)
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key()
    }
}
