//! The broker's TLS key, pinned by a device: for brokers without a certificate
//! of a public authority.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use ring::digest::{SHA256, digest};

/// How a pin begins in text.
const PREFIX: &str = "sha256/";

/// SHA-256 of a public key as certificates hold it (SubjectPublicKeyInfo in
/// DER, RFC 5280 section 4.1), the way RFC 7469 section 2.4 counts it: it
/// stays when a certificate is renewed with the same key. In text `sha256/`
/// and 44 characters of base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPin([u8; 32]);

/// Text that is no pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pinned key: sha256/ and 44 characters are expected, as the broker logs them at its start"
)]
pub struct KeyPinError(String);

impl KeyPin {
    /// The pin of a key.
    pub fn of(subject_public_key_info: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, subject_public_key_info).as_ref());
        Self(hash)
    }
}

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode(&self.0))
    }
}

impl FromStr for KeyPin {
    type Err = KeyPinError;

    fn from_str(text: &str) -> Result<Self, KeyPinError> {
        let wrong = || KeyPinError(text.chars().take(80).collect());
        let digits = text.trim().strip_prefix(PREFIX).ok_or_else(wrong)?;
        let bytes = BASE64.decode(digits.as_bytes()).map_err(|_| wrong())?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let pin = KeyPin::of(b"a key");
        assert_eq!(pin.to_string().parse(), Ok(pin));
        assert_eq!(pin.to_string().len(), "sha256/".len() + 44);
        assert_ne!(pin, KeyPin::of(b"another key"));
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        for wrong in ["", "sha256/", "sha256/AAAA", "sha1/AAAA", &KeyPin::of(b"x").to_string()[7..]] {
            assert!(wrong.parse::<KeyPin>().is_err(), "{wrong}");
        }
    }
}
