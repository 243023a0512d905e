//! Time-limited credentials: what the broker gives to devices, and what the
//! relay checks without a table of users.
//!
//! User name `EXPIRY:NAME`, password base64(HMAC-SHA1(secret, user name)): the
//! scheme that coturn calls `use-auth-secret`, so that both may serve. The
//! name is 32 hexadecimal digits: the account that pays (a farm's), and the
//! holder (the device), both pseudonyms under the same secret.

use std::fmt;

use data_encoding::BASE64;
use md5::{Digest, Md5};
use ring::hmac;

/// The realm of the embedded relay: as short as an answer to a stranger
/// should be.
pub const REALM: &str = "farm";

/// Shortest secret, in bytes, that may come from a config: 128 bits if random.
pub const MIN_SECRET: usize = 16;

/// Bytes of a secret that is made here: as long as SHA-1's output, more adds
/// nothing.
pub const SECRET_BYTES: usize = 20;

/// Who pays for what is relayed: a farm's pseudonym.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account(pub u64);

/// Who holds a credential: a device's pseudonym.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub u64);

/// A credential's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Who pays.
    pub account: Account,
    /// Who holds it.
    pub holder: Holder,
}

/// What makes and checks credentials: shared by broker and relay, never shown.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// From random bytes, or from what an external relay was configured with.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, bytes))
    }

    /// The password of a user name.
    pub fn password(&self, username: &str) -> String {
        BASE64.encode(hmac::sign(&self.0, username.as_bytes()).as_ref())
    }

    /// The pseudonym of a device, or of a farm that pays: the same for as long
    /// as the secret is.
    pub fn pseudonym(&self, purpose: &str, id: &[u8]) -> u64 {
        // No user name begins with a letter: a tag is never a password.
        let content = [b"pseudonym ", purpose.as_bytes(), &[0], id].concat();
        let tag = hmac::sign(&self.0, &content);
        u64::from_be_bytes(*tag.as_ref().first_chunk().expect("a tag has 20 bytes"))
    }

    /// The key of a request's integrity (RFC 8489 section 9.2.2): MD5, because
    /// browsers and the `webrtc` crate know nothing newer in TURN. What it
    /// hashes has 160 secret bits, so that MD5's weakness to collisions is of
    /// no use.
    pub fn integrity_key(&self, username: &str) -> hmac::Key {
        let content = [username, ":", REALM, ":", &self.password(username)].concat();
        hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &Md5::digest(content))
    }
}

/// The user name of a credential that is good until `expires` (seconds since
/// 1970).
pub fn username(name: Name, expires: u64) -> String {
    format!("{expires}:{:016x}{:016x}", name.account.0, name.holder.0)
}

/// Name and expiry of a user name as [`username`] writes it.
pub fn read_username(text: &str) -> Option<(Name, u64)> {
    let (expires, name) = text.split_once(':')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_hexdigit());
    if name.len() != 32 || !digits(name) || !expires.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let number = |text| u64::from_str_radix(text, 16).ok();
    let name = Name { account: Account(number(&name[..16])?), holder: Holder(number(&name[16..])?) };
    Some((name, expires.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_the_one_that_other_relays_check() {
        // `printf %s 1433895918:filmo | openssl dgst -sha1 -hmac north -binary | base64`
        let secret = Secret::new(b"north");
        assert_eq!(secret.password("1433895918:filmo"), "3+cmgknuEcu/rMGfijFAJofSIl0=");
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = Name { account: Account(0x0123), holder: Holder(u64::MAX) };
        let text = username(name, 1_795_305_600);
        assert_eq!(text, "1795305600:0000000000000123ffffffffffffffff");
        assert_eq!(read_username(&text), Some((name, 1_795_305_600)));
        for bad in ["", ":", "1:", "1:0123", "x:0000000000000123ffffffffffffffff"] {
            assert_eq!(read_username(bad), None, "{bad}");
        }
        for bad in
            ["1:+000000000000123ffffffffffffffff", "99999999999999999999:0000000000000123ffffffffffffffff"]
        {
            assert_eq!(read_username(bad), None, "{bad}");
        }
    }

    #[test]
    fn pseudonyms_tell_purposes_and_secrets_apart() {
        let (one, other) = (Secret::new(b"one"), Secret::new(b"other"));
        assert_eq!(one.pseudonym("farm", b"x"), one.pseudonym("farm", b"x"));
        assert_ne!(one.pseudonym("farm", b"x"), one.pseudonym("phone", b"x"));
        assert_ne!(one.pseudonym("farm", b"x"), other.pseudonym("farm", b"x"));
        assert_eq!(format!("{one:?}"), "Secret");
    }
}
