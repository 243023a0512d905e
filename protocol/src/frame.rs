//! Frames of the multiplexer: what travels on a carrier's `data` channel.
//!
//! Offsets are absolute within a stream and direction and outlive the
//! carrier, so an ack both grants credit and trims the sender's replay
//! buffer, and resuming on a new carrier is one exchange of [`StreamState`]s.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::codec::{self, CodecError};

/// Number of a stream in its session: chosen by the phone, growing by one,
/// never used twice in a session.
pub type StreamId = u32;

/// The longest target of an [`Frame::Open`], in bytes: a service's name
/// (see [`crate::service`]) with room for a future prefix.
pub const MAX_TARGET: usize = 64;

/// Most bytes of payload in one [`Frame::Data`]: what fits [`codec::MAX_MESSAGE`]
/// beside the largest head of a frame (26 bytes), kept to a round number.
pub const MAX_PAYLOAD: usize = 60 * 1024;

/// The largest offset: what a JavaScript number holds exactly, and 285 years
/// at a megabyte a second. Also keeps sums of offsets from overflowing.
pub const MAX_OFFSET: u64 = (1 << 53) - 1;

/// Why a stream was reset. The text form is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// The program at the sender's end of the stream went away.
    Aborted,
    /// The farm has no service of that name.
    UnknownService,
    /// The service is there by name, but did not accept the connection.
    ServiceUnavailable,
    /// The sender's end restarted and no longer knows the stream.
    Restarted,
    /// The session was parked for longer than streams are kept.
    Expired,
    /// A limit was reached: streams per session or bytes kept for replay.
    Limit,
    /// The session ended: replaced, revoked or closed.
    SessionEnded,
    /// The other end broke the protocol.
    ProtocolError,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

impl ResetReason {
    /// The reason as a person reads it.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Aborted => "the program at the other end closed the connection",
            Self::UnknownService => "the farm has no such service",
            Self::ServiceUnavailable => "the service at the farm did not answer",
            Self::Restarted => "the other end restarted",
            Self::Expired => "the connection was away for too long",
            Self::Limit => "a limit was reached",
            Self::SessionEnded => "the session ended",
            Self::ProtocolError => "the other end broke the protocol",
            Self::Other => "a reason this version does not know",
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The phone opens a stream to a service. Repeated on a new carrier until
    /// it is acknowledged; a farm that knows the stream ignores it.
    Open {
        /// The new stream.
        stream: StreamId,
        /// The service's name, at most [`MAX_TARGET`] bytes.
        target: String,
        /// Absolute offset up to which the farm may send.
        credit: u64,
    },
    /// Bytes at an absolute offset; what the receiver has already is skipped.
    Data {
        /// The stream.
        stream: StreamId,
        /// Offset of the first byte.
        offset: u64,
        /// At most [`MAX_PAYLOAD`] bytes.
        bytes: Bytes,
    },
    /// What the sender of the ack has received, and how far it can take more.
    /// The end of the stream counts as one byte. The first ack also says
    /// that the stream is open.
    Ack {
        /// The stream.
        stream: StreamId,
        /// Offset up to which everything has been received.
        received: u64,
        /// Absolute offset up to which the other side may send; never shrinks.
        credit: u64,
    },
    /// No bytes will follow in this direction.
    Fin {
        /// The stream.
        stream: StreamId,
        /// Offset after the last byte.
        offset: u64,
    },
    /// The stream is over in both directions, at once.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: ResetReason,
    },
}

/// Where one stream stands, as a side says in its hello on a new carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// The stream.
    #[serde(rename = "s")]
    pub stream: StreamId,
    /// As in [`Frame::Ack`].
    #[serde(rename = "r", deserialize_with = "offset")]
    pub received: u64,
    /// As in [`Frame::Ack`].
    #[serde(rename = "c", deserialize_with = "offset")]
    pub credit: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wire<'a> {
    Open(StreamId, #[serde(borrow)] &'a str, u64),
    Data(StreamId, u64, #[serde(borrow)] &'a serde_bytes::Bytes),
    Ack(StreamId, u64, u64),
    Fin(StreamId, u64),
    Reset(StreamId, ResetReason),
}

impl Frame {
    /// The stream this frame is about.
    pub fn stream(&self) -> StreamId {
        match self {
            Self::Open { stream, .. }
            | Self::Data { stream, .. }
            | Self::Ack { stream, .. }
            | Self::Fin { stream, .. }
            | Self::Reset { stream, .. } => *stream,
        }
    }

    /// The frame as one message of the `data` channel.
    ///
    /// # Errors
    /// [`CodecError`] where a payload, target or offset is over its limit.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        self.check()?;
        let wire = match self {
            Self::Open { stream, target, credit } => Wire::Open(*stream, target, *credit),
            Self::Data { stream, offset, bytes } => {
                Wire::Data(*stream, *offset, serde_bytes::Bytes::new(bytes))
            }
            Self::Ack { stream, received, credit } => Wire::Ack(*stream, *received, *credit),
            Self::Fin { stream, offset } => Wire::Fin(*stream, *offset),
            Self::Reset { stream, reason } => Wire::Reset(*stream, *reason),
        };
        codec::encode(&wire)
    }

    /// Reads a frame; the payload shares `message`'s memory.
    ///
    /// # Errors
    /// [`CodecError`], also where a payload, target or offset is over its limit.
    pub fn decode(message: &Bytes) -> Result<Self, CodecError> {
        let frame = match codec::decode::<Wire<'_>>(message)? {
            Wire::Open(stream, target, credit) => Self::Open { stream, target: target.to_owned(), credit },
            Wire::Data(stream, offset, bytes) => {
                Self::Data { stream, offset, bytes: message.slice_ref(bytes) }
            }
            Wire::Ack(stream, received, credit) => Self::Ack { stream, received, credit },
            Wire::Fin(stream, offset) => Self::Fin { stream, offset },
            Wire::Reset(stream, reason) => Self::Reset { stream, reason },
        };
        frame.check()?;
        Ok(frame)
    }

    /// The limits, the same both ways.
    fn check(&self) -> Result<(), CodecError> {
        match self {
            Self::Open { target, credit, .. } => {
                check_target(target)?;
                check_offset(*credit, 0)
            }
            Self::Data { offset, bytes, .. } => {
                check_payload(bytes)?;
                check_offset(*offset, bytes.len() as u64)
            }
            Self::Ack { received, credit, .. } => {
                check_offset(*received, 0)?;
                check_offset(*credit, 0)
            }
            // The end counts as one byte.
            Self::Fin { offset, .. } => check_offset(*offset, 1),
            Self::Reset { .. } => Ok(()),
        }
    }
}

fn check_target(target: &str) -> Result<(), CodecError> {
    match target.len() {
        1..=MAX_TARGET => Ok(()),
        len => Err(CodecError::Malformed(format!("target of {len} bytes, 1 to {MAX_TARGET} are allowed"))),
    }
}

fn check_payload(bytes: &[u8]) -> Result<(), CodecError> {
    match bytes.len() {
        0 => Err(CodecError::Malformed("data frame without data".to_owned())),
        1..=MAX_PAYLOAD => Ok(()),
        len => Err(CodecError::TooLarge(len)),
    }
}

fn check_offset(offset: u64, len: u64) -> Result<(), CodecError> {
    match offset.checked_add(len) {
        Some(0..=MAX_OFFSET) => Ok(()),
        _ => Err(CodecError::Malformed(format!("offset {offset} with {len} bytes is over {MAX_OFFSET}"))),
    }
}

fn offset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let offset = u64::deserialize(deserializer)?;
    check_offset(offset, 0).map_err(de::Error::custom)?;
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_frame_fits_a_message() {
        let bytes = Bytes::from(vec![1; MAX_PAYLOAD]);
        let frame = Frame::Data { stream: u32::MAX, offset: MAX_OFFSET - MAX_PAYLOAD as u64, bytes };
        let message = Bytes::from(frame.encode().unwrap());
        assert_eq!(Frame::decode(&message).unwrap(), frame);
    }

    #[test]
    fn a_small_frame_costs_little() {
        let frame = Frame::Data { stream: 3, offset: 70_000, bytes: Bytes::from_static(b"x") };
        assert!(frame.encode().unwrap().len() <= 18);
    }

    #[test]
    fn limits_are_refused_both_ways() {
        let long = Frame::Open { stream: 1, target: "a".repeat(MAX_TARGET + 1), credit: 0 };
        assert!(long.encode().is_err());
        let sneaky = codec::encode(&Wire::Open(1, &"a".repeat(MAX_TARGET + 1), 0)).unwrap();
        assert!(Frame::decode(&Bytes::from(sneaky)).is_err());
        let empty = codec::encode(&Wire::Data(1, 0, serde_bytes::Bytes::new(b""))).unwrap();
        assert!(Frame::decode(&Bytes::from(empty)).is_err());
        for wire in [
            Wire::Open(1, "a", MAX_OFFSET + 1),
            Wire::Data(1, u64::MAX, serde_bytes::Bytes::new(b"ab")),
            Wire::Data(1, MAX_OFFSET, serde_bytes::Bytes::new(b"a")),
            Wire::Ack(1, u64::MAX, 0),
            Wire::Ack(1, 0, u64::MAX),
            Wire::Fin(1, MAX_OFFSET),
        ] {
            let far = Bytes::from(codec::encode(&wire).unwrap());
            assert!(Frame::decode(&far).is_err(), "{far:x}");
        }
        let state = StreamState { stream: 1, received: MAX_OFFSET, credit: u64::MAX };
        assert!(codec::decode::<StreamState>(&codec::encode(&state).unwrap()).is_err());
    }

    #[test]
    fn a_reason_from_the_future_is_read() {
        let mut message = Frame::Reset { stream: 1, reason: ResetReason::Limit }.encode().unwrap();
        let at = message.windows(5).position(|w| w == b"limit").unwrap();
        message[at..at + 5].copy_from_slice(b"fluke");
        assert_eq!(
            Frame::decode(&Bytes::from(message)).unwrap(),
            Frame::Reset { stream: 1, reason: ResetReason::Other }
        );
    }
}
