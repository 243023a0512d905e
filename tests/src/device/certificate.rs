//! A certificate that only those who were given it trust.

use std::io;
use std::path::{Path, PathBuf};

/// The name in it, which is also the broker's.
pub(super) const NAME: &str = "localhost";

/// Where a broker's certificate lies.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain, in PEM.
    pub chain: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// The certificate alone, in DER: what clients trust.
    pub der: PathBuf,
}

impl Certificate {
    /// Makes one for `localhost` (ECDSA P-256, as public authorities issue) in
    /// this directory.
    ///
    /// # Errors
    /// When the files can't be written.
    pub fn make(dir: &Path) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).map_err(io::Error::other)?;
        let made_at =
            Self { chain: dir.join("chain.pem"), key: dir.join("key.pem"), der: dir.join("cert.der") };
        std::fs::write(&made_at.chain, pem("CERTIFICATE", made.cert.der()))?;
        std::fs::write(&made_at.key, pem("PRIVATE KEY", &made.signing_key.serialize_der()))?;
        std::fs::write(&made_at.der, made.cert.der())?;
        Ok(made_at)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
