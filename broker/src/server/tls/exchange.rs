//! The key exchange: X25519 (RFC 7748) by another library than the rest.
//!
//! It is the largest single part of a handshake, and AWS-LC does it in half the
//! time that *ring* takes; all back after an outage is this, ten thousand times.
//! Everything else stays with *ring* (docs/decisions/0020-key-exchange.md).

use aws_lc_rs::agreement::{EphemeralPrivateKey, PublicKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use futures_rustls::rustls::crypto::{ActiveKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup};
use futures_rustls::rustls::ffdhe_groups::FfdheGroup;
use futures_rustls::rustls::{Error, NamedGroup, PeerMisbehaved};

/// Bytes of a public key (RFC 7748 section 6.1).
const KEY: usize = 32;

/// For the TLS library.
#[derive(Debug)]
pub(super) struct FastX25519;

/// Our half, until the peer's is there.
struct Half {
    private: EphemeralPrivateKey,
    public: PublicKey,
}

impl SupportedKxGroup for FastX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let private =
            EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(|_| GetRandomFailed)?;
        let public = private.compute_public_key().map_err(|_| GetRandomFailed)?;
        Ok(Box::new(Half { private, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Half {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        // Only these bytes, of all that the library would read a key from. A
        // result of nothing but zeros it refuses itself (RFC 7748 section 6.1).
        if peer.len() != KEY {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        let peer = UnparsedPublicKey::new(&X25519, peer);
        let refused = Error::from(PeerMisbehaved::InvalidKeyShare);
        agree_ephemeral(self.private, peer, refused, |secret| Ok(SharedSecret::from(secret)))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use futures_rustls::rustls::crypto::ring;

    use super::*;

    fn halves() -> (Box<dyn ActiveKeyExchange>, Box<dyn ActiveKeyExchange>) {
        (FastX25519.start().unwrap(), ring::kx_group::X25519.start().unwrap())
    }

    #[test]
    fn both_libraries_come_to_the_same_secret() {
        for _ in 0..20 {
            let (ours, theirs) = halves();
            let (our_key, their_key) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
            let secret = ours.complete(&their_key).unwrap();
            assert_eq!(secret.secret_bytes(), theirs.complete(&our_key).unwrap().secret_bytes());
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        // Too short, too long, in another form, and of small order: 0 and 1 (RFC
        // 7748 section 6.1), which all give zeros.
        let mut one = [0; KEY];
        one[0] = 1;
        let mut wrapped = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00];
        wrapped.extend(halves().1.pub_key());
        for key in [&[][..], &[9; KEY - 1], &[9; KEY + 1], &wrapped, &[0; KEY], &one] {
            let refused = halves().0.complete(key).map(|_| ());
            assert_eq!(refused, Err(PeerMisbehaved::InvalidKeyShare.into()), "{key:02x?}");
        }
    }
}
