//! Ed25519 (RFC 8032) keys and signatures, each signature bound to a purpose.

use std::fmt;

use ring::rand::SecureRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::byte_string;

/// A key or signature that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The stored private key is not one.
    #[error("the stored private key is damaged: restore it from a backup or pair again")]
    DamagedKey,
    /// The signature was not made by this key over this content.
    #[error("the signature does not match")]
    BadSignature,
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    NoRandomness,
}

/// What a signature is for. A signature made for one purpose is worthless for
/// every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A device proves its key to a broker, by the broker's challenge.
    Authenticate,
    /// The same by the TLS connection between the two, see [`crate::channel`].
    Channel,
    /// An offer, answer, candidate or goodbye between phone and farm.
    Signal,
    /// A farm accepts a phone.
    Pairing,
    /// A farm states its boot and epoch, for its phones, through the broker.
    Presence,
}

impl Purpose {
    /// The bytes put before what is signed; none is a prefix of another.
    pub fn context(self) -> &'static [u8] {
        match self {
            Self::Authenticate => b"farm-tunnel.v1 authenticate\0",
            Self::Channel => b"farm-tunnel.v1 channel\0",
            Self::Signal => b"farm-tunnel.v1 signal\0",
            Self::Pairing => b"farm-tunnel.v1 pairing\0",
            Self::Presence => b"farm-tunnel.v1 presence\0",
        }
    }
}

macro_rules! wire_bytes {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Its length on the wire, in bytes.
            pub const LEN: usize = $bytes;

            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes on the wire.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                byte_string::array(deserializer, $what).map(Self)
            }
        }
    };
}

wire_bytes!(
    /// An Ed25519 public key.
    PublicKey, 32, "an Ed25519 public key of 32 bytes"
);
wire_bytes!(
    /// An Ed25519 signature.
    Signature, 64, "an Ed25519 signature of 64 bytes"
);
wire_bytes!(
    /// A number used once: fresh randomness that binds an answer to its question.
    Nonce, 16, "a nonce of 16 bytes"
);
wire_bytes!(
    /// An HMAC-SHA256 (RFC 2104).
    Mac, 32, "a MAC of 32 bytes"
);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", crate::base64url::encode(&self.0[..6]))
    }
}

macro_rules! opaque_debug {
    ($($name:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )+};
}
opaque_debug!(Signature, Nonce, Mac, DeviceKey);

impl PublicKey {
    /// Checks a signature over `content` made for `purpose`.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`].
    pub fn verify(&self, purpose: Purpose, content: &[u8], signature: &Signature) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(&in_context(purpose, content), &signature.0)
            .map_err(|_| KeyError::BadSignature)
    }
}

/// A device's key pair. Its `Debug` shows nothing.
pub struct DeviceKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
}

impl DeviceKey {
    /// Makes a new key from the given randomness.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        random.fill(&mut seed).map_err(|_| KeyError::NoRandomness)?;
        Self::from_seed(seed)
    }

    /// Restores a key from the 32 bytes that [`DeviceKey::seed`] gave.
    ///
    /// # Errors
    /// [`KeyError::DamagedKey`].
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::DamagedKey)?;
        Ok(Self { pair, seed })
    }

    /// The secret to store. Never logged, never sent.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    /// Signs `content` for one purpose.
    pub fn sign(&self, purpose: Purpose, content: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(&in_context(purpose, content)).as_ref());
        Signature(signature)
    }
}

impl Nonce {
    /// A fresh one.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let mut nonce = [0; 16];
        random.fill(&mut nonce).map_err(|_| KeyError::NoRandomness)?;
        Ok(Self(nonce))
    }
}

fn in_context(purpose: Purpose, content: &[u8]) -> Vec<u8> {
    [purpose.context(), content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_8032_section_7_1_test_1() {
        // The raw algorithm, without a purpose, to hold `ring` to the RFC.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let public = DeviceKey::from_seed(seed).unwrap().public();
        assert_eq!(public.as_bytes()[..4], [0xd7, 0x5a, 0x98, 0x01]);
    }

    #[test]
    fn a_signature_holds_for_its_purpose_only() {
        let key = DeviceKey::from_seed([1; 32]).unwrap();
        let signature = key.sign(Purpose::Signal, b"hello");
        assert!(key.public().verify(Purpose::Signal, b"hello", &signature).is_ok());
        assert!(key.public().verify(Purpose::Pairing, b"hello", &signature).is_err());
        assert!(key.public().verify(Purpose::Signal, b"hellO", &signature).is_err());
        let stranger = DeviceKey::from_seed([2; 32]).unwrap().public();
        assert!(stranger.verify(Purpose::Signal, b"hello", &signature).is_err());
    }

    #[test]
    fn secrets_do_not_show() {
        let key = DeviceKey::from_seed([0xab; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "DeviceKey(..)");
    }
}
