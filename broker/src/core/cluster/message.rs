//! What brokers of one cluster tell each other: CBOR like everything else.
//!
//! The envelope is the same for ever, so that a broker of another version is
//! recognised as one and not taken for noise.

use std::fmt;
use std::net::IpAddr;

use farm_protocol::broker::{Access, Address, UndeliveredReason};
use farm_protocol::codec::{self, CodecError};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId};
use farm_protocol::keys::Signature;
use serde::{Deserialize, Serialize};

/// The version of [`Body`] that this program speaks.
pub const SCHEMA: u16 = 1;

/// Longest name of a broker that is kept, in characters.
pub const MAX_NAME: usize = 64;

/// Claims in one message: about 250 bytes each, far below the codec's 64 KiB.
pub const MAX_CLAIMS: usize = 64;

/// One run of a broker: drawn anew at each start, so that what an earlier run
/// said is never taken for the present one's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BrokerId(pub u64);

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A message between two brokers, or from one to all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerMessage {
    /// Who says it.
    pub from: BrokerId,
    /// How many numbered messages it has said to all, this one included: what
    /// is missing is noticed.
    pub sequence: u64,
    /// What it says.
    pub body: Body,
}

/// See [`PeerMessage::body`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// To all, every second: I am here.
    Beat(Beat),
    /// To all, numbered: these devices are with me.
    Here(Vec<Claim>),
    /// To all, numbered: this device is with me no more.
    Gone(Address),
    /// To all, numbered: whom a farm of mine lets know.
    Access(FarmAccess),
    /// To all, numbered: all that is with me follows.
    Begin,
    /// To all, numbered: that was all.
    End,
    /// To all, meant for one: say all again.
    Ask(BrokerId),
    /// To one: a device of mine says this to one of yours.
    Signal(PeerSignal),
    /// To one: what your device said could not be handed on.
    Undelivered(PeerUndelivered),
}

impl Body {
    /// Whether it is one of those that are counted.
    pub fn is_numbered(&self) -> bool {
        matches!(self, Self::Here(_) | Self::Gone(_) | Self::Access(_) | Self::Begin | Self::End)
    }
}

/// See [`Body::Beat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// What the operator calls this broker, for logs.
    pub name: String,
    /// How many devices are with it.
    pub devices: u64,
}

/// A device is with a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The device: a farm or a phone.
    pub device: Address,
    /// Its run.
    pub boot: BootId,
    /// Its newest epoch.
    pub epoch: Epoch,
    /// How many times it has changed its broker: what decides between two
    /// claims of the same epoch.
    pub turn: u32,
    /// A farm's presence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farm: Option<FarmHere>,
}

/// What is told of a farm's presence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmHere {
    /// The farm's own word on boot and epoch.
    pub proof: Signature,
    /// Where its connection comes from.
    pub address: IpAddr,
    /// Seconds since it came.
    pub since_seconds: u64,
}

/// See [`Body::Access`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmAccess {
    /// The farm.
    pub farm: FarmId,
    /// Its word.
    pub access: Access,
}

/// See [`Body::Signal`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSignal {
    /// Who says it: a device of the broker at which it began.
    pub sender: Address,
    /// Whom it is for, as the sender named it.
    pub receiver: Address,
    /// The broker that is told if it can't be handed on.
    pub origin: BrokerId,
    /// How many brokers have handed it on before.
    pub hops: u8,
    /// Opaque.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// See [`Body::Undelivered`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerUndelivered {
    /// Who said it.
    pub sender: Address,
    /// Whom it was for, as the sender named it.
    pub receiver: Address,
    /// Why not.
    pub reason: UndeliveredReason,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    schema: u16,
    from: BrokerId,
    sequence: u64,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
}

/// Why a message of a broker can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The sender is of another version.
    #[error("broker {from} speaks version {schema} between brokers, this one {SCHEMA}")]
    Version {
        /// The sender.
        from: BrokerId,
        /// What it speaks.
        schema: u16,
    },
    /// It is no message of a broker.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl PeerMessage {
    /// As it is sent.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let body = codec::encode(&self.body)?;
        codec::encode(&Envelope { schema: SCHEMA, from: self.from, sequence: self.sequence, body })
    }

    /// Reads what came.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let envelope: Envelope = codec::decode(bytes)?;
        let Envelope { schema, from, sequence, body } = envelope;
        if schema != SCHEMA {
            return Err(MessageError::Version { from, schema });
        }
        Ok(Self { from, sequence, body: codec::decode(&body)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(body: Body) -> PeerMessage {
        PeerMessage { from: BrokerId(7), sequence: 9, body }
    }

    #[test]
    fn a_message_round_trips() {
        let farm = FarmId::from_bytes([3; FarmId::LEN]);
        let claim = Claim {
            device: Address::Farm(farm),
            boot: BootId::from_bytes([1; 16]),
            epoch: Epoch::of_start(4),
            turn: 2,
            farm: Some(FarmHere {
                proof: Signature::from_bytes([5; 64]),
                address: "2001:db8::1".parse().unwrap(),
                since_seconds: 11,
            }),
        };
        for body in [
            Body::Beat(Beat { name: "b1".into(), devices: 4 }),
            Body::Here(vec![claim; MAX_CLAIMS]),
            Body::Ask(BrokerId(u64::MAX)),
            Body::Begin,
        ] {
            let message = message(body);
            assert_eq!(PeerMessage::decode(&message.encode().unwrap()).unwrap(), message);
        }
    }

    #[test]
    fn another_version_is_known_for_one_whatever_it_says() {
        let envelope =
            Envelope { schema: SCHEMA + 1, from: BrokerId(3), sequence: 0, body: b"future".to_vec() };
        let bytes = codec::encode(&envelope).unwrap();
        let error = PeerMessage::decode(&bytes).unwrap_err();
        assert!(matches!(error, MessageError::Version { from: BrokerId(3), .. }), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PeerMessage::decode(&bytes);
        }
    }
}
