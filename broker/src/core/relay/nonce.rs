//! Nonces that need no table: each says when it was made and carries a MAC
//! over that and the client's address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

/// How long a nonce is taken: a recorded request can be replayed from the same
/// address for so long, a client asks for a new one as often.
pub(super) const NONCE_LASTS: Duration = Duration::from_secs(600);

/// Bytes of the MAC: 64 bits, guessed only by asking, which is limited.
const MAC: usize = 8;

/// Makes and checks nonces.
#[derive(Debug)]
pub(super) struct Nonces {
    key: hmac::Key,
    started: Instant,
}

impl Nonces {
    pub(super) fn new(seed: &[u8; 32], started: Instant) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, seed), started }
    }

    /// A nonce of 16 characters.
    pub(super) fn make(&self, client: SocketAddr, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.started).as_secs() as u32;
        let mut bytes = [0; 4 + MAC];
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        bytes[4..].copy_from_slice(&self.mac(seconds, client));
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// Whether it was made here, for this client, not long ago. Nothing
    /// depends on its being secret: the time of comparing does not matter.
    pub(super) fn is_fresh(&self, nonce: &[u8], client: SocketAddr, now: Instant) -> bool {
        let Ok(bytes) = BASE64URL_NOPAD.decode(nonce) else {
            return false;
        };
        let Some((seconds, mac)) = bytes.split_first_chunk::<4>() else {
            return false;
        };
        let seconds = u32::from_be_bytes(*seconds);
        let made = self.started + Duration::from_secs(seconds.into());
        mac == self.mac(seconds, client) && now < made + NONCE_LASTS
    }

    fn mac(&self, seconds: u32, client: SocketAddr) -> [u8; MAC] {
        let content = format!("{seconds} {client}");
        let tag = hmac::sign(&self.key, content.as_bytes());
        *tag.as_ref().first_chunk().expect("a tag has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_for_one_client_and_a_while() {
        let start = Instant::now();
        let nonces = Nonces::new(&[7; 32], start);
        let (client, other) = ("192.0.2.1:5".parse().unwrap(), "192.0.2.1:6".parse().unwrap());
        let now = start + Duration::from_secs(100);
        let nonce = nonces.make(client, now);
        assert_eq!(nonce.len(), 16);
        let fresh = |client, at| nonces.is_fresh(nonce.as_bytes(), client, at);
        assert!(fresh(client, now) && !fresh(other, now));
        assert!(fresh(client, now + NONCE_LASTS - Duration::from_secs(1)));
        assert!(!fresh(client, now + NONCE_LASTS));
        assert!(!Nonces::new(&[8; 32], start).is_fresh(nonce.as_bytes(), client, now));
        for bad in ["", "AAAA", "AAAAAAAAAAAAAAAA", "not a nonce, at all"] {
            assert!(!nonces.is_fresh(bad.as_bytes(), client, now), "{bad}");
        }
    }
}
