//! What is kept on disk between orders: the account's key and the newest
//! certificate, in files that only the broker's user can read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::sign::CertifiedKey;

/// The certificate's file.
const CERTIFICATE: &str = "certificate.pem";

/// Most bytes of a file: a chain is below 10 KiB.
const MAX_FILE: u64 = 256 * 1024;

/// The folder of one broker's certificate.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    dir: PathBuf,
    /// What a certificate must have been ordered for, as its first line.
    order: String,
    account: String,
}

impl Kept {
    /// In `dir`, for these names from this authority.
    pub(super) fn new(dir: PathBuf, domains: &[String], contact: &[String], directory: &str) -> Self {
        let account = [&[directory.to_owned()], contact].concat().join("\n");
        let hash = ::ring::digest::digest(&::ring::digest::SHA256, account.as_bytes());
        // 64 bits tell a handful of accounts apart; a name, no secret.
        let hash: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            dir,
            order: format!("# {} from {directory}\n", domains.join(" ")),
            account: format!("account-{hash}.der"),
        }
    }

    /// The newest certificate, and whether it is for what is wanted now.
    pub(super) fn certificate(&self) -> io::Result<Option<(CertifiedKey, bool)>> {
        let Some(bytes) = read(&self.dir.join(CERTIFICATE))? else { return Ok(None) };
        let wanted = bytes.starts_with(self.order.as_bytes());
        Ok(Some((parse(&bytes)?, wanted)))
    }

    pub(super) fn keep_certificate(&self, pem: &[u8]) -> io::Result<()> {
        self.write(CERTIFICATE, &[self.order.as_bytes(), pem].concat())
    }

    pub(super) fn account(&self) -> io::Result<Option<Vec<u8>>> {
        read(&self.dir.join(&self.account))
    }

    pub(super) fn keep_account(&self, key: &[u8]) -> io::Result<()> {
        self.write(&self.account, key)
    }

    /// Whole and durable, or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let new = self.dir.join(format!("{name}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, self.dir.join(name))?;
        File::open(&self.dir)?.sync_all()
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Key and chain from one PEM file.
pub(super) fn parse(pem: &[u8]) -> io::Result<CertifiedKey> {
    let unusable = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("no usable certificate and key: {error}"))
    };
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| unusable(&error))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| unusable(&error))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| unusable(&error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pem() -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec!["broker.test".to_owned()]).unwrap();
        let block = |label: &str, der: &[u8]| {
            let text = data_encoding::BASE64.encode(der);
            format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
        };
        let key = block("PRIVATE KEY", &made.signing_key.serialize_der());
        (key + &block("CERTIFICATE", made.cert.der())).into_bytes()
    }

    #[test]
    fn a_certificate_for_other_names_is_only_a_stopgap() {
        let dir = tempfile::tempdir().unwrap();
        let kept = |domain: &str| {
            let names = [domain.to_owned()];
            Kept::new(dir.path().join("acme"), &names, &[], "https://authority.test/directory")
        };
        let first = kept("a.test");
        assert!(first.certificate().unwrap().is_none());
        first.keep_certificate(&pem()).unwrap();
        let (shown, wanted) = first.certificate().unwrap().unwrap();
        assert!(wanted && shown.cert.len() == 1);
        assert!(matches!(kept("b.test").certificate().unwrap(), Some((_, false))));
        let path = dir.path().join("acme").join(CERTIFICATE);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "torn").unwrap();
        assert!(first.certificate().is_err());
    }

    #[test]
    fn each_authority_has_an_account_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let kept = |directory: &str| Kept::new(dir.path().into(), &[], &[], directory);
        kept("https://one.test/").keep_account(b"key").unwrap();
        assert_eq!(kept("https://one.test/").account().unwrap().unwrap(), b"key");
        assert!(kept("https://two.test/").account().unwrap().is_none());
    }
}
