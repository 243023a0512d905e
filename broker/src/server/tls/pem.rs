//! A certificate in PEM files that somebody else renews: certbot, a company's
//! own authority.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::pki_types::pem::{self, PemObject};
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::sign::CertifiedKey;
use futures_rustls::rustls::{self, CertificateError as Refusal};

use super::current::Current;

/// How often the files are looked at. They change every few weeks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Most certificates of a chain; public authorities send two to four.
const MAX_CHAIN: usize = 16;

/// Where the certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the broker's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read.
    #[error("can't read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} holds no usable {what}: {why}; PEM is expected, as certbot writes it")]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// What was found.
        why: String,
    },
    /// Key and certificate are not a pair.
    #[error("the key in {key} does not belong to the certificate in {certificate}: {source}")]
    NoPair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the library says.
        source: rustls::Error,
    },
}

/// Files whose content is in use, and how they looked when they were read.
pub(super) struct Watched {
    files: CertificateFiles,
    current: Arc<Current>,
    seen: Option<[Look; 2]>,
}

/// What changes when a file is written or another one put in its place.
type Look = (u64, u64, i64, i64, u64);

impl Watched {
    pub(super) fn open(files: CertificateFiles) -> Result<Self, CertificateError> {
        // Before reading: a change meanwhile is then seen.
        let seen = looks(&files)?;
        let key = load(&files)?;
        let current = Arc::new(Current::default());
        current.set(key);
        Ok(Self { files, current, seen: Some(seen) })
    }

    pub(super) fn current(&self) -> &Arc<Current> {
        &self.current
    }

    /// Reads the files again if they changed or somebody `asked`; whether a
    /// certificate came into use. One that can't be used is told once, and
    /// the one before stays.
    pub(super) fn look(&mut self, asked: bool) -> Result<bool, CertificateError> {
        let seen = looks(&self.files);
        let (Ok(found), false) = (&seen, asked) else {
            return match seen {
                Ok(seen) => self.read(seen),
                // Gone: told once. Whoever renews may be at it.
                Err(_) if self.seen.is_none() && !asked => Ok(false),
                Err(error) => {
                    self.seen = None;
                    Err(error)
                }
            };
        };
        if self.seen.as_ref() == Some(found) {
            return Ok(false);
        }
        let found = *found;
        self.read(found)
    }

    fn read(&mut self, seen: [Look; 2]) -> Result<bool, CertificateError> {
        self.seen = Some(seen);
        let key = load(&self.files)?;
        self.current.set(key);
        Ok(true)
    }
}

fn looks(files: &CertificateFiles) -> Result<[Look; 2], CertificateError> {
    let look = |path: &Path| {
        let metadata = std::fs::metadata(path)
            .map_err(|source| CertificateError::Read { path: path.to_owned(), source })?;
        Ok(look_of(&metadata))
    };
    Ok([look(&files.certificate)?, look(&files.key)?])
}

fn look_of(metadata: &Metadata) -> Look {
    (metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size())
}

fn load(files: &CertificateFiles) -> Result<CertifiedKey, CertificateError> {
    let wrong = |path: &Path, what| {
        let path = path.to_owned();
        move |error| match error {
            pem::Error::Io(source) => CertificateError::Read { path, source },
            other => CertificateError::Content { path, what, why: other.to_string() },
        }
    };
    let path = &files.certificate;
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(|found| found.take(MAX_CHAIN).collect::<Result<Vec<_>, _>>())
        .map_err(wrong(path, "certificate"))?;
    if chain.is_empty() {
        return Err(wrong(path, "certificate")(pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(wrong(&files.key, "private key"))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|source| match source {
        rustls::Error::InvalidCertificate(Refusal::BadEncoding) => {
            CertificateError::Content { path: path.clone(), what: "certificate", why: source.to_string() }
        }
        source => CertificateError::NoPair { certificate: path.clone(), key: files.key.clone(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = data_encoding::BASE64.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    struct Pair(tempfile::TempDir);

    impl Pair {
        fn new() -> Self {
            let pair = Self(tempfile::tempdir().unwrap());
            pair.renew();
            pair
        }

        fn files(&self) -> CertificateFiles {
            CertificateFiles { certificate: self.0.path().join("c.pem"), key: self.0.path().join("k.pem") }
        }

        /// As certbot does: new files in the place of the old ones.
        fn renew(&self) {
            let made = rcgen::generate_simple_self_signed(vec!["broker.test".to_owned()]).unwrap();
            let CertificateFiles { certificate, key } = self.files();
            let replace = |path: &Path, text: String| {
                let new = path.with_extension("new");
                std::fs::write(&new, text).unwrap();
                std::fs::rename(new, path).unwrap();
            };
            replace(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der()));
            replace(&certificate, pem("CERTIFICATE", made.cert.der()));
        }
    }

    fn shown(watched: &Watched) -> Vec<u8> {
        watched.current.key().unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_renewed_certificate_comes_into_use_once() {
        let pair = Pair::new();
        let mut watched = Watched::open(pair.files()).unwrap();
        let first = shown(&watched);
        assert!(!watched.look(false).unwrap(), "nothing changed");
        assert!(watched.look(true).unwrap(), "asked: read again all the same");
        pair.renew();
        assert!(watched.look(false).unwrap());
        assert_ne!(shown(&watched), first);
        assert!(!watched.look(false).unwrap());
    }

    #[test]
    fn what_cannot_be_used_is_told_once_and_the_old_one_stays() {
        let pair = Pair::new();
        let mut watched = Watched::open(pair.files()).unwrap();
        let first = shown(&watched);
        std::fs::write(&pair.files().key, Pair::new_key()).unwrap();
        assert!(matches!(watched.look(false), Err(CertificateError::NoPair { .. })));
        assert!(!watched.look(false).unwrap(), "told already");
        std::fs::write(&pair.files().certificate, "not PEM at all").unwrap();
        assert!(matches!(watched.look(false), Err(CertificateError::Content { .. })));
        std::fs::remove_file(&pair.files().certificate).unwrap();
        assert!(matches!(watched.look(false), Err(CertificateError::Read { .. })));
        assert!(!watched.look(false).unwrap(), "told already");
        assert_eq!(shown(&watched), first);
        pair.renew();
        assert!(watched.look(false).unwrap(), "it heals by itself");
        assert_ne!(shown(&watched), first);
    }

    impl Pair {
        fn new_key() -> String {
            pem("PRIVATE KEY", &rcgen::KeyPair::generate().unwrap().serialize_der())
        }
    }

    #[test]
    fn mistakes_name_the_file() {
        let pair = Pair::new();
        let CertificateFiles { certificate, key } = pair.files();
        let swapped = CertificateFiles { certificate: key.clone(), key: certificate.clone() };
        let error = Watched::open(swapped).err().unwrap().to_string();
        assert!(error.contains("k.pem") && error.contains("certificate"), "{error}");
        let gone = CertificateFiles { certificate, key: "/nonexistent/k.pem".into() };
        let error = Watched::open(gone).err().unwrap().to_string();
        assert!(error.contains("/nonexistent/k.pem"), "{error}");
    }
}
