//! Identifiers of farms, phones, boots and sessions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::base32;
use crate::byte_string;
use crate::keys::PublicKey;

/// Text that is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: {expected} characters of 0-9 and a-z are expected")]
pub struct IdError {
    text: String,
    what: &'static str,
    expected: usize,
}

macro_rules! identifier {
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

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base32::encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                // Bounded before decoding: the text may be a pasted book.
                (text.len() <= 4 * $bytes)
                    .then(|| base32::decode(text))
                    .flatten()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| IdError {
                        text: text.chars().take(64).collect(),
                        what: $what,
                        expected: ($bytes * 8usize).div_ceil(5),
                    })
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

identifier!(
    /// A farm: the first 160 bits of the hash of its public key. Nothing to
    /// look up and nothing to spoof; 32 characters, so that
    /// `SERVICE--FARM` fits one label of a host name (63, RFC 1035 2.3.4).
    FarmId, 20, "a farm id"
);
identifier!(
    /// A phone (or desktop twin), derived from its public key like a farm's.
    PhoneId, 20, "a phone id"
);
identifier!(
    /// One run of a program: random, chosen at its start. Tells a restart
    /// from a reconnect, and two devices with the same key from one.
    BootId, 16, "a boot id"
);
identifier!(
    /// A pending invitation as the broker sees it: derived from the secret,
    /// tells nothing about it.
    InvitationId, 16, "an invitation id"
);

/// Domain separation of the two kinds of device ids.
const FARM_ID_CONTEXT: &[u8] = b"farm-tunnel.v1 farm id\0";
const PHONE_ID_CONTEXT: &[u8] = b"farm-tunnel.v1 phone id\0";

fn derive(context: &[u8], key: &PublicKey) -> [u8; 20] {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(context);
    hash.update(key.as_bytes());
    let mut id = [0; 20];
    id.copy_from_slice(&hash.finish().as_ref()[..20]);
    id
}

impl FarmId {
    /// The id that belongs to a farm's public key.
    pub fn of(key: &PublicKey) -> Self {
        Self(derive(FARM_ID_CONTEXT, key))
    }
}

impl PhoneId {
    /// The id that belongs to a phone's public key.
    pub fn of(key: &PublicKey) -> Self {
        Self(derive(PHONE_ID_CONTEXT, key))
    }
}

/// One of several programs that share a phone's key (two terminals, two
/// tabs): each has its own session, and a restarted one takes its old slot
/// and so supersedes its own former session only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Slot(u8);

impl Slot {
    /// Programs at once with one key: more than anyone has windows for, and
    /// a bound on what one key can make a farm hold.
    pub const COUNT: u8 = 8;

    /// `None` past [`Slot::COUNT`].
    pub fn new(number: u8) -> Option<Self> {
        (number < Self::COUNT).then_some(Self(number))
    }

    /// The number on the wire.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Every slot, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        Self::new(number)
            .ok_or_else(|| de::Error::custom(format_args!("slot {number} is over {}", Self::COUNT - 1)))
    }
}

/// A session at a farm: which phone, and which of its programs. It lives as
/// long as that program and outlives every carrier.
///
/// Part of what is signed, so nothing unknown is read past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionId {
    /// The phone.
    pub phone: PhoneId,
    /// The program on that phone.
    pub slot: Slot,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", &self.phone.to_string()[..8], self.slot.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn ids_of_one_key_differ_by_role() {
        let key = PublicKey::from_bytes([7; 32]);
        assert_ne!(FarmId::of(&key).as_bytes(), PhoneId::of(&key).as_bytes());
        assert_eq!(FarmId::of(&key).to_string().len(), 32);
    }

    #[test]
    fn text_and_wire_round_trip() {
        let id = FarmId::of(&PublicKey::from_bytes([9; 32]));
        assert_eq!(id.to_string().parse::<FarmId>().unwrap(), id);
        assert_eq!(decode::<FarmId>(&encode(&id).unwrap()).unwrap(), id);
        assert!(decode::<BootId>(&encode(&id).unwrap()).is_err());
        let message = "nonsense!".parse::<FarmId>().unwrap_err().to_string();
        assert!(message.contains("nonsense!") && message.contains("32"), "{message}");
    }

    #[test]
    fn a_slot_past_the_last_is_refused() {
        assert!(decode::<Slot>(&encode(&Slot::COUNT).unwrap()).is_err());
        assert_eq!(Slot::all().count(), usize::from(Slot::COUNT));
    }
}
