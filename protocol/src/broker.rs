//! Messages between a device and the broker, over one WebSocket.
//!
//! The broker introduces the two sides and is never trusted: what matters is
//! signed end to end inside [`ToBroker::Signal`], which it routes and never
//! parses.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::byte_string;
use crate::channel::Channel;
use crate::epoch::Epoch;
use crate::id::{BootId, FarmId, InvitationId, PhoneId, SessionId, Slot};
use crate::keys::{DeviceKey, KeyError, Nonce, PublicKey, Purpose, Signature};
use crate::relay::Relay;

/// Most phones of one farm.
pub const MAX_PHONES: usize = 256;

/// Most invitations that one farm keeps open.
pub const MAX_INVITATIONS: usize = 8;

/// Most phones of which a farm says that it knew them once.
pub const MAX_FORMER: usize = 32;

/// Most farms that one phone watches.
pub const MAX_WATCHED: usize = 256;

/// Largest payload of a signal, in bytes: an offer with all its candidates is
/// about 2 KiB; 24 KiB leave room and keep floods small.
pub const MAX_SIGNAL: usize = 24 * 1024;

/// Longest enrollment token, software name or detail text, in bytes.
pub const MAX_TEXT: usize = 256;

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A farm's agent.
    Farm,
    /// A phone, or its desktop twin.
    Phone,
}

/// Where a signal goes or comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// A farm.
    Farm(FarmId),
    /// One program on a phone.
    Phone(SessionId),
    /// Whichever farm holds this invitation: how a phone that was only told a
    /// typed code finds the farm.
    Invitation(InvitationId),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Farm(id) => write!(f, "farm {}", &id.to_string()[..8]),
            Self::Phone(id) => write!(f, "phone {id}"),
            Self::Invitation(_) => f.write_str("an invitation"),
        }
    }
}

/// From a device to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToBroker {
    /// Answers the [`FromBroker::Challenge`]; the first message.
    Authenticate(Box<Authenticate>),
    /// A farm's word on who may reach it: replaces what it said before.
    Access(Access),
    /// I am here. Every minute, and at once on a change.
    Heartbeat(Heartbeat),
    /// Something for another device, opaque to the broker.
    Signal(Signal),
    /// A phone's farms, to be told of their presence: replaces what it said before.
    Watch(Watch),
    /// The device leaves on purpose.
    Goodbye,
}

/// From the broker to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromBroker {
    /// The first message: prove your key.
    Challenge(Challenge),
    /// The device is in.
    Welcome(Welcome),
    /// The device is not in; the broker closes after this.
    Refused(Refused),
    /// Answers a heartbeat.
    HeartbeatAnswer(HeartbeatAnswer),
    /// A watched farm came, went or changed.
    Presence(Presence),
    /// From another device.
    Signal(Signal),
    /// A signal could not be handed on.
    Undelivered(Undelivered),
    /// The broker goes away, or is full: come back after this.
    RetryAfter(RetryAfter),
}

/// See [`FromBroker::Challenge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Fresh for each connection.
    pub nonce: Nonce,
}

/// See [`ToBroker::Authenticate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authenticate {
    /// The device's role.
    pub role: Role,
    /// The device's key; its id follows from it.
    pub key: PublicKey,
    /// Which program on the phone; 0 for a farm.
    pub slot: Slot,
    /// This run of the program.
    pub boot: BootId,
    /// The newest epoch of this run.
    pub epoch: Epoch,
    /// The name by which the device called the broker (host and port as in
    /// its URL): a signature made for one broker is worthless at another.
    pub broker: String,
    /// Over all of the above and the challenge.
    pub signature: Signature,
    /// A farm's own word on its presence, see [`presence_proof`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<Signature>,
    /// A farm's one-time enrollment token, on its first start only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrollment_token: Option<String>,
    /// The farm's name as its owner calls it, for the operator's list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What a device says of itself when it authenticates.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The device's role.
    pub role: Role,
    /// Which program on the phone.
    pub slot: Slot,
    /// This run of the program.
    pub boot: BootId,
    /// The newest epoch of this run.
    pub epoch: Epoch,
    /// The name by which the device called the broker.
    pub broker: String,
}

impl Authenticate {
    /// Signs a claim for one challenge.
    pub fn sign(key: &DeviceKey, nonce: &Nonce, claim: Claim) -> Self {
        Self::sign_over(key, (Purpose::Authenticate, nonce.as_bytes()), claim)
    }

    /// Signs a claim for one TLS connection.
    pub fn sign_for_channel(key: &DeviceKey, channel: &Channel, claim: Claim) -> Self {
        Self::sign_over(key, (Purpose::Channel, channel.as_bytes()), claim)
    }

    fn sign_over(key: &DeviceKey, (purpose, fresh): (Purpose, &[u8]), claim: Claim) -> Self {
        let signature = key.sign(purpose, &transcript(fresh, &key.public(), &claim));
        let presence = (claim.role == Role::Farm)
            .then(|| presence_proof(key, FarmId::of(&key.public()), claim.boot, claim.epoch));
        let Claim { role, slot, boot, epoch, broker } = claim;
        Self {
            role,
            key: key.public(),
            slot,
            boot,
            epoch,
            broker,
            signature,
            presence,
            enrollment_token: None,
            name: None,
        }
    }

    /// Checks the signature against the challenge that was sent.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`].
    pub fn verify(&self, nonce: &Nonce) -> Result<(), KeyError> {
        self.verify_over(Purpose::Authenticate, nonce.as_bytes())
    }

    /// Checks the signature against the TLS connection on which it came.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`].
    pub fn verify_for_channel(&self, channel: &Channel) -> Result<(), KeyError> {
        self.verify_over(Purpose::Channel, channel.as_bytes())
    }

    fn verify_over(&self, purpose: Purpose, fresh: &[u8]) -> Result<(), KeyError> {
        let claim = Claim {
            role: self.role,
            slot: self.slot,
            boot: self.boot,
            epoch: self.epoch,
            broker: self.broker.clone(),
        };
        self.key.verify(purpose, &transcript(fresh, &self.key, &claim), &self.signature)
    }
}

/// Fixed-length fields first, the only variable one last: unambiguous without lengths.
fn transcript(fresh: &[u8], key: &PublicKey, claim: &Claim) -> Vec<u8> {
    let mut out = Vec::with_capacity(112 + claim.broker.len());
    out.extend_from_slice(fresh);
    out.extend_from_slice(key.as_bytes());
    out.push(match claim.role {
        Role::Farm => 0,
        Role::Phone => 1,
    });
    out.push(claim.slot.number());
    out.extend_from_slice(claim.boot.as_bytes());
    out.extend_from_slice(&claim.epoch.number().to_be_bytes());
    out.extend_from_slice(claim.broker.as_bytes());
    out
}

fn presence_content(farm: FarmId, boot: BootId, epoch: Epoch) -> Vec<u8> {
    [&farm.as_bytes()[..], &boot.as_bytes()[..], &epoch.number().to_be_bytes()[..]].concat()
}

/// A farm's signature over its boot and epoch, so that its phones need not
/// believe the broker about them.
pub fn presence_proof(key: &DeviceKey, farm: FarmId, boot: BootId, epoch: Epoch) -> Signature {
    key.sign(Purpose::Presence, &presence_content(farm, boot, epoch))
}

/// See [`ToBroker::Access`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The paired phones, at most [`MAX_PHONES`]: strangers are dropped by the
    /// broker already. Whether one may really reach the farm is the farm's
    /// decision alone.
    pub phones: Vec<PhoneId>,
    /// The open invitations, at most [`MAX_INVITATIONS`].
    pub invitations: Vec<InvitationId>,
    /// Phones that the farm knew once, at most [`MAX_FORMER`]: what they say
    /// is handed on, so that the farm can tell them, but they learn nothing
    /// of its presence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<PhoneId>,
}

/// See [`ToBroker::Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up within a connection.
    #[serde(rename = "n")]
    pub sequence: u32,
    /// The newest epoch; a newer one than before says that addresses changed.
    #[serde(rename = "e")]
    pub epoch: Epoch,
    /// A farm's [`presence_proof`], where the epoch is a new one.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<Signature>,
}

/// See [`FromBroker::HeartbeatAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// Of the heartbeat.
    #[serde(rename = "n")]
    pub sequence: u32,
    /// New credentials for the relay, once half of the former ones' life is
    /// over: they replace those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
}

/// See [`ToBroker::Signal`] (`peer` is whom it is for) and
/// [`FromBroker::Signal`] (`peer` is whom it is from).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The other device.
    pub peer: Address,
    /// At most [`MAX_SIGNAL`] bytes, see [`crate::signal::Payload`].
    #[serde(serialize_with = "serde_bytes::serialize", deserialize_with = "byte_string::any")]
    pub payload: Vec<u8>,
}

/// See [`ToBroker::Watch`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// At most [`MAX_WATCHED`].
    pub farms: Vec<FarmId>,
}

/// See [`FromBroker::Welcome`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The device's address as the broker sees it: `IP:PORT`.
    pub observed: String,
    /// Seconds between heartbeats that this broker wants.
    pub heartbeat_seconds: u16,
    /// The broker's UDP port for STUN binding requests, if it answers any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stun_port: Option<u16>,
    /// Where packets may be relayed. Absent: nothing new, or no relay, or a
    /// phone that no farm lists yet. What the device has it may keep using
    /// until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
    /// The broker's clock, seconds since 1970: a floor for a device without one.
    pub time: u64,
}

/// Why a device is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedReason {
    /// The farm is not enrolled and brought no token.
    NotEnrolled,
    /// The enrollment token is wrong, used or expired.
    BadToken,
    /// The signature does not match.
    BadSignature,
    /// The device called the broker by a name that is not the broker's.
    WrongBrokerName,
    /// Another run of the same device has a newer epoch, see [`Refused::newest`].
    StaleEpoch,
    /// A newer connection of the same device took over.
    Superseded,
    /// The message broke the protocol.
    ProtocolError,
    /// Too many connections or messages.
    Limit,
    /// The operator removed the farm.
    Revoked,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

impl RefusedReason {
    /// What a person is told, and what to do about it.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::NotEnrolled => {
                "this farm is not enrolled at the broker: put a token from `farm-broker enroll` into the config as enrollment_token"
            }
            Self::BadToken => {
                "the enrollment token is wrong, used or expired: get a new one from `farm-broker enroll`"
            }
            Self::BadSignature => "the broker could not verify this device's signature",
            Self::WrongBrokerName => {
                "the broker is not known by the name in the config's broker URL: use the broker's public URL"
            }
            Self::StaleEpoch => {
                "another run with this device's key is newer: is its state in use on another machine, too?"
            }
            Self::Superseded => {
                "a newer connection with this device's key took over: is its state in use on another machine, too?"
            }
            Self::ProtocolError => "the broker did not understand this device: update the older side",
            Self::Limit => "the broker is full or this device asks too often",
            Self::Revoked => "the broker's operator removed this farm",
            Self::Other => "the broker gave a reason that this version does not know: update this device",
        }
    }

    /// Whether trying the same again soon can help without anybody's doing. A
    /// stale epoch needs another one first.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Limit)
    }
}

/// See [`FromBroker::Refused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub reason: RefusedReason,
    /// With [`RefusedReason::StaleEpoch`]: what a new epoch must exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Epoch>,
}

/// See [`FromBroker::Presence`]. A hint: only an answered ping proves life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The farm.
    pub farm: FarmId,
    /// Its state; `None` for a farm that is not known here or does not know
    /// this phone (the broker does not say which).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PresenceState>,
}

/// Whether a farm is there, and in which run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceState {
    /// Whether the farm has a live connection to the broker.
    pub online: bool,
    /// Its run.
    pub boot: BootId,
    /// Its newest epoch.
    pub epoch: Epoch,
    /// The farm's own word on boot and epoch.
    pub proof: Signature,
    /// Seconds since this state began.
    pub since_seconds: u64,
}

impl PresenceState {
    /// Checks the farm's own signature; whether it is online stays the
    /// broker's word.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`].
    pub fn verify(&self, farm_key: &PublicKey) -> Result<(), KeyError> {
        let content = presence_content(FarmId::of(farm_key), self.boot, self.epoch);
        farm_key.verify(Purpose::Presence, &content, &self.proof)
    }
}

/// Why a signal was not handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndeliveredReason {
    /// The other device has no connection now, or is not known to the sender.
    Offline,
    /// Too many signals.
    Limit,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// See [`FromBroker::Undelivered`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// Whom it was for.
    pub peer: Address,
    /// Why.
    pub reason: UndeliveredReason,
}

/// See [`FromBroker::RetryAfter`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryAfter {
    /// How long to stay away.
    pub milliseconds: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(broker: &str) -> Claim {
        Claim {
            role: Role::Farm,
            slot: Slot::default(),
            boot: BootId::from_bytes([1; 16]),
            epoch: Epoch::of_start(4),
            broker: broker.to_owned(),
        }
    }

    #[test]
    fn a_signature_is_for_one_challenge_and_one_broker() {
        let key = DeviceKey::from_seed([5; 32]).unwrap();
        let nonce = Nonce::from_bytes([6; 16]);
        let good = Authenticate::sign(&key, &nonce, claim("broker.example.org"));
        assert!(good.verify(&nonce).is_ok());
        assert!(good.verify(&Nonce::from_bytes([7; 16])).is_err());
        for change in [
            |a: &mut Authenticate| a.broker = "evil.example.org".to_owned(),
            |a: &mut Authenticate| a.role = Role::Phone,
            |a: &mut Authenticate| a.epoch = a.epoch.next(),
            |a: &mut Authenticate| a.boot = BootId::from_bytes([2; 16]),
            |a: &mut Authenticate| a.slot = Slot::new(1).unwrap(),
        ] {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(bad.verify(&nonce).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn presence_is_the_farms_own_word() {
        let key = DeviceKey::from_seed([5; 32]).unwrap();
        let (boot, epoch) = (BootId::from_bytes([1; 16]), Epoch::of_start(2));
        let proof = presence_proof(&key, FarmId::of(&key.public()), boot, epoch);
        let state = PresenceState { online: true, boot, epoch, proof, since_seconds: 3 };
        assert!(state.verify(&key.public()).is_ok());
        let lie = PresenceState { epoch: epoch.next(), ..state.clone() };
        assert!(lie.verify(&key.public()).is_err());
    }
}
