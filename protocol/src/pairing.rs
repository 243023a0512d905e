//! Pairing: both sides prove that they know the invitation's secret, the farm
//! also signs. Pure functions; the broker between the two learns nothing and
//! can alter nothing.

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::id::{InvitationId, PhoneId, Slot};
use crate::invitation::{MAX_TRIES, Secret};
use crate::keys::{DeviceKey, Mac, Nonce, PublicKey, Purpose, Signature};

/// Longest name of a phone or farm, in bytes.
pub const MAX_NAME: usize = 64;

/// A phone asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairRequest {
    /// Which invitation.
    pub invitation: InvitationId,
    /// The phone's key, kept by the farm.
    pub phone: PublicKey,
    /// Where the answer goes.
    pub slot: Slot,
    /// Fresh; the answer is bound to it.
    pub nonce: Nonce,
    /// What the phone's owner calls it, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// Over all of the above, with the invitation's secret.
    pub mac: Mac,
}

/// The farm's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PairAnswer {
    /// Paired: the farm keeps the phone's key, the phone pins the farm's.
    Accepted {
        /// The farm's key.
        farm: PublicKey,
        /// The farm's own fresh nonce.
        farm_nonce: Nonce,
        /// The request's.
        nonce: Nonce,
        /// What the farm's owner calls it.
        name: String,
        /// Over request and answer, with the invitation's secret.
        mac: Mac,
        /// Over the same, with the farm's key.
        signature: Signature,
    },
    /// Not paired. A hint only: it proves nothing about who says it.
    Refused {
        /// The request's.
        nonce: Nonce,
        /// Why.
        reason: PairRefused,
    },
}

/// Why a farm does not pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairRefused {
    /// No such invitation (never was, expired long ago, or another farm's).
    UnknownInvitation,
    /// Its time is over.
    Expired,
    /// It let another phone in already.
    Used,
    /// The proof does not match the secret.
    WrongProof,
    /// Too many wrong proofs: the invitation is void.
    TooManyTries,
    /// The farm has as many phones as it can keep.
    TooManyPhones,
    /// The request can't be used as it is (a name too long, say).
    Malformed,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

impl PairRefused {
    /// What a person is told, and what to do.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::UnknownInvitation => {
                "the farm does not know this invitation: make a new one with `farm-agent invite`"
            }
            Self::Expired => "the invitation has expired: make a new one with `farm-agent invite`",
            Self::Used => {
                "the invitation was used by another device: make a new one with `farm-agent invite`"
            }
            Self::WrongProof => "the invitation's secret is wrong: copy the whole link",
            Self::TooManyTries => {
                "the invitation is void after too many wrong tries: make a new one with `farm-agent invite`"
            }
            Self::TooManyPhones => "the farm has too many devices: remove one with `farm-agent revoke`",
            Self::Malformed => {
                "the farm could not use this device's request: use a shorter name or update it"
            }
            Self::Other => "the farm gave a reason that this version does not know: update this device",
        }
    }
}

/// An answer that is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The farm refused.
    #[error("{}", .0.explanation())]
    Refused(PairRefused),
    /// Not from the farm of the invitation, or altered on the way.
    #[error(
        "the answer does not come from the farm of this invitation: somebody is in between; do not go on"
    )]
    Forged,
    /// The answer to another request.
    #[error("the answer belongs to another request")]
    OtherRequest,
}

fn request_content(request: &PairRequest) -> Vec<u8> {
    let mut out = b"farm-tunnel.v1 pair request\0".to_vec();
    out.extend_from_slice(request.invitation.as_bytes());
    out.extend_from_slice(request.phone.as_bytes());
    out.push(request.slot.number());
    out.extend_from_slice(request.nonce.as_bytes());
    out.extend_from_slice(request.name.as_bytes());
    out
}

fn answer_content(request: &PairRequest, farm: &PublicKey, farm_nonce: &Nonce, name: &str) -> Vec<u8> {
    let mut out = b"farm-tunnel.v1 pair answer\0".to_vec();
    out.extend_from_slice(request.invitation.as_bytes());
    out.extend_from_slice(farm.as_bytes());
    out.extend_from_slice(request.phone.as_bytes());
    out.extend_from_slice(request.nonce.as_bytes());
    out.extend_from_slice(farm_nonce.as_bytes());
    out.extend_from_slice(name.as_bytes());
    out
}

fn mac(secret: &Secret, content: &[u8]) -> Mac {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hmac::sign(&key, content).as_ref());
    Mac::from_bytes(bytes)
}

/// In constant time.
fn mac_matches(secret: &Secret, content: &[u8], mac: &Mac) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, content, mac.as_bytes()).is_ok()
}

/// The phone's request.
pub fn request(secret: &Secret, phone: PublicKey, slot: Slot, nonce: Nonce, name: &str) -> PairRequest {
    let mut request = PairRequest {
        invitation: secret.id(),
        phone,
        slot,
        nonce,
        name: name.to_owned(),
        mac: Mac::from_bytes([0; 32]),
    };
    request.mac = mac(secret, &request_content(&request));
    request
}

/// Checks the farm's answer on the phone: the farm's key and name.
///
/// # Errors
/// [`PairError`]; `pinned` is the key from the link, if there was one.
pub fn check_answer(
    secret: &Secret,
    request: &PairRequest,
    pinned: Option<&PublicKey>,
    answer: &PairAnswer,
) -> Result<(PublicKey, String), PairError> {
    match answer {
        PairAnswer::Refused { nonce, .. } | PairAnswer::Accepted { nonce, .. } if *nonce != request.nonce => {
            Err(PairError::OtherRequest)
        }
        PairAnswer::Refused { reason, .. } => Err(PairError::Refused(*reason)),
        PairAnswer::Accepted { farm, farm_nonce, name, mac, signature, .. } => {
            let content = answer_content(request, farm, farm_nonce, name);
            let genuine = mac_matches(secret, &content, mac)
                && farm.verify(Purpose::Pairing, &content, signature).is_ok()
                && pinned.is_none_or(|pinned| pinned == farm)
                && name.len() <= MAX_NAME;
            if genuine { Ok((*farm, name.clone())) } else { Err(PairError::Forged) }
        }
    }
}

/// An invitation as the farm keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvitation {
    /// The secret.
    pub secret: Secret,
    /// Seconds since 1970 after which it is void.
    pub expires: u64,
    /// Wrong proofs so far.
    pub tries: u8,
    /// The phone that it let in.
    pub used_by: Option<PhoneId>,
}

impl OpenInvitation {
    /// Judges a request for this invitation. A phone that was let in and asks
    /// again (its answer was lost) is let in again; nobody else is.
    ///
    /// # Errors
    /// [`PairRefused`]; a wrong proof is counted.
    pub fn judge(&mut self, request: &PairRequest, now: u64) -> Result<PhoneId, PairRefused> {
        if self.tries >= MAX_TRIES {
            return Err(PairRefused::TooManyTries);
        }
        if now >= self.expires {
            return Err(PairRefused::Expired);
        }
        if request.name.len() > MAX_NAME {
            return Err(PairRefused::Malformed);
        }
        if !mac_matches(&self.secret, &request_content(request), &request.mac) {
            self.tries += 1;
            return Err(PairRefused::WrongProof);
        }
        let phone = PhoneId::of(&request.phone);
        match self.used_by {
            Some(other) if other != phone => Err(PairRefused::Used),
            _ => {
                self.used_by = Some(phone);
                Ok(phone)
            }
        }
    }

    /// The answer that lets the phone in.
    pub fn accept(
        &self,
        request: &PairRequest,
        key: &DeviceKey,
        farm_nonce: Nonce,
        name: &str,
    ) -> PairAnswer {
        let content = answer_content(request, &key.public(), &farm_nonce, name);
        PairAnswer::Accepted {
            farm: key.public(),
            farm_nonce,
            nonce: request.nonce,
            name: name.to_owned(),
            mac: mac(&self.secret, &content),
            signature: key.sign(Purpose::Pairing, &content),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        farm: DeviceKey,
        phone: DeviceKey,
        open: OpenInvitation,
    }

    fn case() -> Case {
        Case {
            farm: DeviceKey::from_seed([1; 32]).unwrap(),
            phone: DeviceKey::from_seed([2; 32]).unwrap(),
            open: OpenInvitation {
                secret: Secret::from_bytes(&[9; 16]).unwrap(),
                expires: 1000,
                tries: 0,
                used_by: None,
            },
        }
    }

    fn ask(case: &Case, secret: &Secret) -> PairRequest {
        request(secret, case.phone.public(), Slot::default(), Nonce::from_bytes([4; 16]), "Anna's phone")
    }

    #[test]
    fn both_sides_end_up_with_each_others_keys() {
        let mut c = case();
        let request = ask(&c, &c.open.secret);
        let phone = c.open.judge(&request, 10).unwrap();
        assert_eq!(phone, PhoneId::of(&c.phone.public()));
        let answer = c.open.accept(&request, &c.farm, Nonce::from_bytes([5; 16]), "North field");
        let pinned = c.farm.public();
        let (key, name) = check_answer(&c.open.secret, &request, Some(&pinned), &answer).unwrap();
        assert_eq!((key, name.as_str()), (c.farm.public(), "North field"));
        assert!(c.open.judge(&request, 11).is_ok(), "the same phone may ask again");
    }

    #[test]
    fn an_invitation_lets_one_phone_in() {
        let mut c = case();
        c.open.judge(&ask(&c, &c.open.secret), 10).unwrap();
        c.phone = DeviceKey::from_seed([3; 32]).unwrap();
        let second = ask(&c, &c.open.secret);
        assert_eq!(c.open.judge(&second, 10), Err(PairRefused::Used));
    }

    #[test]
    fn guesses_are_counted_and_end() {
        let mut c = case();
        let good = ask(&c, &c.open.secret);
        let mut guess = ask(&c, &Secret::from_bytes(&[8; 16]).unwrap());
        guess.invitation = c.open.secret.id();
        for _ in 0..MAX_TRIES {
            assert_eq!(c.open.judge(&guess, 10), Err(PairRefused::WrongProof));
        }
        assert_eq!(c.open.judge(&good, 10), Err(PairRefused::TooManyTries));
    }

    #[test]
    fn time_runs_out() {
        let mut c = case();
        let request = ask(&c, &c.open.secret);
        assert_eq!(c.open.judge(&request, 1000), Err(PairRefused::Expired));
    }

    #[test]
    fn somebody_in_between_is_noticed() {
        let c = case();
        let request = ask(&c, &c.open.secret);
        let mallory = DeviceKey::from_seed([6; 32]).unwrap();
        let pinned = c.farm.public();
        // Does not know the secret.
        let ignorant = OpenInvitation { secret: Secret::from_bytes(&[1; 16]).unwrap(), ..c.open.clone() };
        let answer = ignorant.accept(&request, &mallory, Nonce::from_bytes([5; 16]), "North field");
        assert_eq!(check_answer(&c.open.secret, &request, None, &answer), Err(PairError::Forged));
        // Knows the secret, but is not the farm of the link.
        let answer = c.open.accept(&request, &mallory, Nonce::from_bytes([5; 16]), "North field");
        assert_eq!(check_answer(&c.open.secret, &request, Some(&pinned), &answer), Err(PairError::Forged));
        // Puts another phone's key into the request.
        let mut swapped = request.clone();
        swapped.phone = mallory.public();
        assert_eq!(c.open.clone().judge(&swapped, 10), Err(PairRefused::WrongProof));
    }
}
