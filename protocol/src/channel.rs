//! A proof of a device's key that goes with the request for its WebSocket, so
//! that letting it in takes no round trip for a challenge.
//!
//! In place of the challenge it is made over a value that only the two ends of
//! this one TLS connection know, which both had a random part in (RFC 9266).
//! A broker that can't check it (TLS ends at a proxy, an earlier version), or
//! that has more to ask, sends a challenge as ever.

use std::fmt;

use crate::base64url;
use crate::broker::{Authenticate, ToBroker};
use crate::codec;

/// The header of the request: an `authenticate` message in base64url, without
/// an enrollment token.
pub const CLAIM_HEADER: &str = "farm-tunnel-claim";

/// The label of the exporter (RFC 9266 section 4.2); its context is empty.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Longest header, in bytes: all fields at their longest are 1.2 kB.
const MAX_HEADER: usize = 2048;

/// What the two ends of one TLS 1.3 connection alone know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Channel([u8; 32]);

impl Channel {
    /// What the TLS library exports, see [`EXPORTER_LABEL`].
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel(..)")
    }
}

/// The header's value. `None` for a claim that must not go there, with a token,
/// or that no broker would take.
pub fn to_header(claim: Authenticate) -> Option<String> {
    if claim.enrollment_token.is_some() {
        return None;
    }
    let bytes = codec::encode(&ToBroker::Authenticate(Box::new(claim))).ok()?;
    Some(base64url::encode(&bytes)).filter(|text| text.len() <= MAX_HEADER)
}

/// The claim in a header, its signature still to be checked; `None` where there
/// is none.
pub fn from_header(value: &[u8]) -> Option<Box<Authenticate>> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= MAX_HEADER)?;
    match codec::decode(&base64url::decode(text)?).ok()? {
        ToBroker::Authenticate(claim) if claim.enrollment_token.is_none() => Some(claim),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Claim, Role};
    use crate::epoch::Epoch;
    use crate::id::{BootId, Slot};
    use crate::keys::{DeviceKey, KeyError, Nonce};

    fn signed(channel: [u8; 32]) -> Authenticate {
        let key = DeviceKey::from_seed([7; 32]).unwrap();
        let claim = Claim {
            role: Role::Farm,
            slot: Slot::default(),
            boot: BootId::from_bytes([1; 16]),
            epoch: Epoch::of_start(1),
            broker: "broker.example.org".to_owned(),
        };
        Authenticate::sign_for_channel(&key, &Channel::from_bytes(channel), claim)
    }

    #[test]
    fn a_claim_comes_back_from_its_header_and_is_good_on_its_channel_alone() {
        let claim = signed([3; 32]);
        let header = to_header(claim.clone()).unwrap();
        assert_eq!(from_header(header.as_bytes()).as_deref(), Some(&claim));
        assert_eq!(claim.verify_for_channel(&Channel::from_bytes([3; 32])), Ok(()));
        let other = Channel::from_bytes([4; 32]);
        assert_eq!(claim.verify_for_channel(&other), Err(KeyError::BadSignature));
    }

    #[test]
    fn a_claim_for_a_channel_answers_no_challenge_and_the_other_way_round() {
        // Even where the challenge is the beginning of the channel's secret.
        let claim = signed([3; 32]);
        assert_eq!(claim.verify(&Nonce::from_bytes([3; 16])), Err(KeyError::BadSignature));
        let key = DeviceKey::from_seed([7; 32]).unwrap();
        let asked = Claim {
            role: Role::Farm,
            slot: claim.slot,
            boot: claim.boot,
            epoch: claim.epoch,
            broker: claim.broker.clone(),
        };
        let answer = Authenticate::sign(&key, &Nonce::from_bytes([3; 16]), asked);
        assert_eq!(answer.verify_for_channel(&Channel::from_bytes([3; 32])), Err(KeyError::BadSignature));
    }

    #[test]
    fn a_token_never_goes_into_a_header() {
        let mut claim = signed([3; 32]);
        claim.enrollment_token = Some("secret".to_owned());
        assert_eq!(to_header(claim.clone()), None);
        let bytes = codec::encode(&ToBroker::Authenticate(Box::new(claim))).unwrap();
        assert_eq!(from_header(base64url::encode(&bytes).as_bytes()), None);
    }

    #[test]
    fn what_is_no_claim_is_none() {
        let goodbye = base64url::encode(&codec::encode(&ToBroker::Goodbye).unwrap());
        let long = "A".repeat(MAX_HEADER + 4);
        for text in ["", "AA", "=", goodbye.as_str(), long.as_str()] {
            assert_eq!(from_header(text.as_bytes()), None, "{text}");
        }
        assert_eq!(from_header(&[0xff, 0xfe]), None);
        let mut long = signed([3; 32]);
        long.name = Some("x".repeat(MAX_HEADER));
        assert_eq!(to_header(long), None);
    }
}
