//! What phone and farm say to each other through the broker: signed offers,
//! answers and candidates. The broker can drop or delay them, nothing more.

use serde::{Deserialize, Serialize};

use crate::broker::Role;
use crate::byte_string;
use crate::codec::{self, CodecError};
use crate::epoch::Epoch;
use crate::id::{BootId, FarmId, SessionId};
use crate::keys::{DeviceKey, KeyError, Nonce, PublicKey, Purpose, Signature};
use crate::pairing::{PairAnswer, PairRequest};

/// Largest session description, in bytes: a data-only one with eight
/// candidates has about 1.5 KiB.
pub const MAX_SDP: usize = 16 * 1024;

/// Longest candidate line, in bytes.
pub const MAX_CANDIDATE: usize = 512;

/// What [`crate::broker::Signal::payload`] holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// Between a paired phone and its farm.
    Signed(Signed),
    /// A phone with an invitation asks to be paired.
    PairRequest(Box<PairRequest>),
    /// The farm's answer to that.
    PairAnswer(Box<PairAnswer>),
}

/// A signal's exact bytes and the sender's signature over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// An encoded [`PeerSignal`]. Signed as it stands, so that no canonical
    /// form is needed.
    #[serde(serialize_with = "serde_bytes::serialize", deserialize_with = "byte_string::any")]
    pub body: Vec<u8>,
    /// The sender's.
    pub signature: Signature,
}

/// One signal between a phone and its farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSignal {
    /// Who says it.
    pub from: Role,
    /// The farm.
    pub farm: FarmId,
    /// The session.
    pub session: SessionId,
    /// Which carrier of the session this is about.
    pub epoch: Epoch,
    /// What is said.
    pub content: Content,
}

/// What a [`PeerSignal`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Content {
    /// The phone offers a carrier.
    Offer {
        /// Fresh; the answer repeats it.
        nonce: Nonce,
        /// This run of the phone's program: another one than before starts a
        /// session of its own in the slot.
        phone_boot: BootId,
        /// The run of the farm that the phone means: an offer recorded before
        /// a restart can't be replayed after it.
        farm_boot: BootId,
        /// Session description with the DTLS fingerprint.
        sdp: String,
    },
    /// The farm answers.
    Answer {
        /// The offer's.
        nonce: Nonce,
        /// Session description with the DTLS fingerprint.
        sdp: String,
    },
    /// One more way to reach the sender.
    Candidate {
        /// As in the session description: `candidate:…`.
        candidate: String,
    },
    /// The farm won't take this offer.
    Refused {
        /// The offer's.
        nonce: Nonce,
        /// Why.
        reason: OfferRefused,
        /// The farm's present run.
        farm_boot: BootId,
        /// What the session's next epoch must exceed.
        newest: Epoch,
    },
    /// The sender gives this carrier up.
    Goodbye {},
}

/// Why a farm refuses an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferRefused {
    /// The offer was meant for another run of the farm.
    OtherBoot,
    /// A newer epoch of this session is known.
    StaleEpoch,
    /// The phone is not paired (any more).
    NotPaired,
    /// Too many sessions or offers.
    Limit,
    /// The description could not be used.
    BadDescription,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

impl OfferRefused {
    /// What a person is told.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::OtherBoot => "the farm has restarted",
            Self::StaleEpoch => "the farm knows a newer connection of this device",
            Self::NotPaired => "the farm no longer knows this device: pair again",
            Self::Limit => "the farm has too many connections",
            Self::BadDescription => "the farm could not use this device's connection offer",
            Self::Other => "the farm gave a reason that this version does not know: update this device",
        }
    }
}

/// A signal that is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Malformed.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Signed by another key than the peer's, or altered on the way.
    #[error("signal is not signed by the peer's key")]
    BadSignature(#[from] KeyError),
    /// Properly signed, but for another farm, session or direction.
    #[error("signal is for another {0}")]
    Misdirected(&'static str),
    /// A part is larger than allowed.
    #[error("{0} in the signal is too large")]
    TooLarge(&'static str),
}

/// What a signal must be about to be let in.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The peer's key: pinned at pairing.
    pub key: &'a PublicKey,
    /// The peer's role.
    pub from: Role,
    /// The farm of the two.
    pub farm: FarmId,
    /// The session.
    pub session: SessionId,
}

impl PeerSignal {
    /// Encodes and signs.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`].
    pub fn sign(&self, key: &DeviceKey) -> Result<Signed, CodecError> {
        let body = codec::encode(self)?;
        let signature = key.sign(Purpose::Signal, &body);
        Ok(Signed { body, signature })
    }
}

impl Signed {
    /// Verifies, decodes, and checks that the signal is meant for us. In that
    /// order: nothing of a stranger's is even parsed.
    ///
    /// # Errors
    /// [`SignalError`].
    pub fn open(&self, expected: Expected<'_>) -> Result<PeerSignal, SignalError> {
        expected.key.verify(Purpose::Signal, &self.body, &self.signature)?;
        let signal: PeerSignal = codec::decode(&self.body)?;
        let misdirected = |what| Err(SignalError::Misdirected(what));
        if signal.from != expected.from {
            return misdirected("direction");
        }
        if signal.farm != expected.farm {
            return misdirected("farm");
        }
        if signal.session != expected.session {
            return misdirected("session");
        }
        match &signal.content {
            Content::Offer { sdp, .. } | Content::Answer { sdp, .. } if sdp.len() > MAX_SDP => {
                Err(SignalError::TooLarge("session description"))
            }
            Content::Candidate { candidate } if candidate.len() > MAX_CANDIDATE => {
                Err(SignalError::TooLarge("candidate"))
            }
            Content::Offer { .. } if signal.from != Role::Phone => misdirected("direction"),
            Content::Answer { .. } | Content::Refused { .. } if signal.from != Role::Farm => {
                misdirected("direction")
            }
            _ => Ok(signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PhoneId, Slot};

    fn offer(phone: &DeviceKey, farm: FarmId) -> PeerSignal {
        PeerSignal {
            from: Role::Phone,
            farm,
            session: SessionId { phone: PhoneId::of(&phone.public()), slot: Slot::default() },
            epoch: Epoch::of_start(1),
            content: Content::Offer {
                nonce: Nonce::from_bytes([1; 16]),
                phone_boot: BootId::from_bytes([2; 16]),
                farm_boot: BootId::from_bytes([3; 16]),
                sdp: "v=0\r\n".to_owned(),
            },
        }
    }

    #[test]
    fn only_the_peers_words_for_us_are_let_in() {
        let (phone, stranger) =
            (DeviceKey::from_seed([1; 32]).unwrap(), DeviceKey::from_seed([2; 32]).unwrap());
        let farm = FarmId::from_bytes([9; 20]);
        let signal = offer(&phone, farm);
        let key = phone.public();
        let expected = Expected { key: &key, from: Role::Phone, farm, session: signal.session };
        let signed = signal.sign(&phone).unwrap();
        assert_eq!(signed.open(expected).unwrap(), signal);

        let forged = signal.sign(&stranger).unwrap();
        assert!(matches!(forged.open(expected), Err(SignalError::BadSignature(_))));
        let mut altered = signed.clone();
        let at = altered.body.len() - 3;
        altered.body[at] ^= 1;
        assert!(matches!(altered.open(expected), Err(SignalError::BadSignature(_))));
        let elsewhere = Expected { farm: FarmId::from_bytes([8; 20]), ..expected };
        assert!(matches!(signed.open(elsewhere), Err(SignalError::Misdirected("farm"))));
        let slot = SessionId { slot: Slot::new(1).unwrap(), ..signal.session };
        assert!(matches!(
            signed.open(Expected { session: slot, ..expected }),
            Err(SignalError::Misdirected("session"))
        ));
    }

    #[test]
    fn a_phone_cannot_answer_itself() {
        let phone = DeviceKey::from_seed([1; 32]).unwrap();
        let farm = FarmId::from_bytes([9; 20]);
        let mut signal = offer(&phone, farm);
        signal.content = Content::Answer { nonce: Nonce::from_bytes([1; 16]), sdp: String::new() };
        let key = phone.public();
        let expected = Expected { key: &key, from: Role::Phone, farm, session: signal.session };
        assert!(matches!(
            signal.sign(&phone).unwrap().open(expected),
            Err(SignalError::Misdirected("direction"))
        ));
    }

    #[test]
    fn unknown_fields_are_refused_in_what_is_signed() {
        let phone = DeviceKey::from_seed([1; 32]).unwrap();
        let farm = FarmId::from_bytes([9; 20]);
        let signal = offer(&phone, farm);
        let key = phone.public();
        let expected = Expected { key: &key, from: Role::Phone, farm, session: signal.session };
        // A map's head, and the same with room for one entry more.
        let whole = codec::encode(&signal).unwrap();
        for (outer, head) in [("", 0xa5u8), ("session", 0xa2), ("offer", 0xa4)] {
            let name = [&[0x60 | outer.len() as u8], outer.as_bytes()].concat();
            let at = match outer {
                "" => 2,
                _ => whole.windows(name.len()).position(|w| w == name).unwrap() + name.len(),
            };
            assert_eq!(whole[at], head, "{outer:?}");
            let mut body = whole.clone();
            body[at] += 1;
            body.splice(at + 1..at + 1, *b"\x65extra\xf6");
            let signed = Signed { signature: phone.sign(Purpose::Signal, &body), body };
            let refused = signed.open(expected).unwrap_err().to_string();
            assert!(refused.contains("unknown field `extra`"), "{outer:?}: {refused}");
        }
    }

    #[test]
    fn an_oversized_description_is_refused() {
        let phone = DeviceKey::from_seed([1; 32]).unwrap();
        let farm = FarmId::from_bytes([9; 20]);
        let mut signal = offer(&phone, farm);
        let Content::Offer { sdp, .. } = &mut signal.content else { panic!() };
        *sdp = "x".repeat(MAX_SDP + 1);
        let key = phone.public();
        let expected = Expected { key: &key, from: Role::Phone, farm, session: signal.session };
        assert!(matches!(signal.sign(&phone).unwrap().open(expected), Err(SignalError::TooLarge(_))));
    }
}
