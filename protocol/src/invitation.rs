//! Invitations: a one-time secret that lets one phone in, as a link, a QR
//! code, or sixteen characters to type.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXUPPER_PERMISSIVE;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use crate::id::InvitationId;
use crate::keys::{KeyError, PublicKey};
use crate::{base32, base64url};

/// How long an invitation is good for, in seconds: long enough to walk to
/// the farmer's phone, short enough that a photographed screen is worthless
/// by the evening.
pub const VALID_SECONDS: u64 = 600;

/// Wrong proofs after which an invitation is void.
pub const MAX_TRIES: u8 = 5;

/// Bytes of a link's secret (128 bits).
const LINK_SECRET: usize = 16;

/// Bytes of a typed code (80 bits: 16 characters of 5 bits). Guessing is
/// bounded by [`MAX_TRIES`] and by [`VALID_SECONDS`].
const CODE_SECRET: usize = 10;

/// Longest invitation text that is looked at, in bytes.
const MAX_LINK: usize = 1024;

/// The secret of an invitation. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(#[serde(with = "serde_bytes")] Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// A fresh one for a link.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn for_link(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        Self::generate(random, LINK_SECRET)
    }

    /// A fresh one for a typed code.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn for_code(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        Self::generate(random, CODE_SECRET)
    }

    fn generate(random: &dyn SecureRandom, len: usize) -> Result<Self, KeyError> {
        let mut bytes = vec![0; len];
        random.fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// Takes a link's or a code's secret; `None` for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        matches!(bytes.len(), LINK_SECRET | CODE_SECRET).then(|| Self(bytes.to_vec()))
    }

    /// The secret itself: for MACs, links and codes only.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the broker and the wire see of it.
    pub fn id(&self) -> InvitationId {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(b"farm-tunnel.v1 invitation id\0");
        hash.update(&self.0);
        let mut id = [0; InvitationId::LEN];
        id.copy_from_slice(&hash.finish().as_ref()[..InvitationId::LEN]);
        InvitationId::from_bytes(id)
    }

    /// As sixteen characters in groups of four, where it is a typed code.
    pub fn code(&self) -> Option<String> {
        let text = (self.0.len() == CODE_SECRET).then(|| base32::encode(&self.0).to_uppercase())?;
        Some([&text[..4], &text[4..8], &text[8..12], &text[12..]].join("-"))
    }
}

/// What a phone is handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invitation {
    /// By link or QR code.
    Link(Link),
    /// Typed: the broker is the app's own, the farm is found by the secret.
    Code(Secret),
}

/// An invitation as a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where the app is served: everything before the `#`.
    pub app: String,
    /// The broker's URL.
    pub broker: String,
    /// The farm's key, pinned from now on.
    pub farm: PublicKey,
    /// The one-time secret.
    pub secret: Secret,
}

/// Text that is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// Neither a link nor a code.
    #[error("this is neither an invitation link (https://…/#v=1&b=…&k=…&s=…) nor a code of 16 characters")]
    NotAnInvitation,
    /// Another version.
    #[error("this invitation is of version {0}, this program knows version 1: update it")]
    Version(String),
    /// A part is missing or damaged.
    #[error("the invitation's part {0:?} is missing or damaged: copy the whole link")]
    Part(&'static str),
}

/// `%` and what would end the value are escaped (RFC 3986 section 3.5).
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if matches!(c, '%' | '&' | '#' | '=' | '+') || c.is_whitespace() || c.is_control() {
            let mut buffer = [0; 4];
            c.encode_utf8(&mut buffer).bytes().for_each(|b| out.push_str(&format!("%{b:02X}")));
        } else {
            out.push(c);
        }
        out
    })
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let hex = tail.get(..2)?;
            out.push(HEXUPPER_PERMISSIVE.decode(hex).ok()?[0]);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}#v=1&b={}&k={}&s={}",
            self.app,
            escape(&self.broker),
            base64url::encode(self.farm.as_bytes()),
            base64url::encode(self.secret.as_bytes())
        )
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let text = text.trim();
        if text.len() > MAX_LINK {
            return Err(InvitationError::NotAnInvitation);
        }
        let Some((app, fragment)) = text.split_once('#') else {
            return base32::decode(text)
                .filter(|bytes| bytes.len() == CODE_SECRET)
                .and_then(|bytes| Secret::from_bytes(&bytes))
                .map(Self::Code)
                .ok_or(InvitationError::NotAnInvitation);
        };
        let part = |name| fragment.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
        match part("v") {
            Some("1") => {}
            Some(other) => return Err(InvitationError::Version(other.chars().take(16).collect())),
            None => return Err(InvitationError::NotAnInvitation),
        }
        let broker =
            part("b").and_then(unescape).filter(|b| !b.is_empty()).ok_or(InvitationError::Part("b"))?;
        let farm = part("k")
            .and_then(base64url::decode)
            .and_then(|bytes| bytes.try_into().ok())
            .map(PublicKey::from_bytes)
            .ok_or(InvitationError::Part("k"))?;
        let secret = part("s")
            .and_then(base64url::decode)
            .and_then(|bytes| Secret::from_bytes(&bytes))
            .ok_or(InvitationError::Part("s"))?;
        Ok(Self::Link(Link { app: app.to_owned(), broker, farm, secret }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link() -> Link {
        Link {
            app: "https://app.example.org/".to_owned(),
            broker: "wss://broker.example.org:8443/a?b=c&d".to_owned(),
            farm: PublicKey::from_bytes([7; 32]),
            secret: Secret::from_bytes(&[3; 16]).unwrap(),
        }
    }

    #[test]
    fn a_link_round_trips_and_keeps_the_secret_in_the_fragment() {
        let text = link().to_string();
        let (before, fragment) = text.split_once('#').unwrap();
        assert!(!before.contains("s=") && fragment.contains("s="));
        assert_eq!(text.parse::<Invitation>().unwrap(), Invitation::Link(link()));
    }

    #[test]
    fn a_code_survives_being_typed() {
        let secret = Secret::from_bytes(&[0x11; 10]).unwrap();
        let code = secret.code().unwrap();
        assert_eq!(code.len(), 19);
        let sloppy = code.to_lowercase().replace('-', " ").replace('1', "l");
        assert_eq!(sloppy.parse::<Invitation>().unwrap(), Invitation::Code(secret));
    }

    #[test]
    fn each_damage_is_named() {
        let text = link().to_string();
        for (bad, part) in [
            (text.replace("&k=", "&q="), "k"),
            (text.replace("&s=", "&s=!"), "s"),
            (text.replace("b=wss", "b=%zz"), "b"),
            (text.replace("b=wss", "b=%+1"), "b"),
        ] {
            assert_eq!(bad.parse::<Invitation>(), Err(InvitationError::Part(part)), "{bad}");
        }
        assert!(matches!(text.replace("v=1", "v=2").parse::<Invitation>(), Err(InvitationError::Version(_))));
        assert_eq!("hello".parse::<Invitation>(), Err(InvitationError::NotAnInvitation));
    }

    #[test]
    fn secrets_do_not_show() {
        assert!(!format!("{:?}", link()).contains("03, 03"));
        assert!(format!("{:?}", link()).contains("Secret(..)"));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,200}") {
            let _ = text.parse::<Invitation>();
        }

        #[test]
        fn any_broker_round_trips(broker in "\\PC{1,60}") {
            let link = Link { broker, ..link() };
            prop_assert_eq!(link.to_string().parse::<Invitation>().unwrap(), Invitation::Link(link));
        }
    }
}
