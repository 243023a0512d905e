//! Readings: what a phone and a farm say on a stream to the reserved target
//! [`TARGET`]. The phone says [`Request`] once; the farm answers with
//! [`Answer`]s, each with its length before it (see [`frame`]).
//!
//! They travel on a stream, not on the channel `control`, for the stream's
//! credit: a phone that reads slowly holds up nothing else.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::codec::{self, CodecError};
use crate::frame::MAX_OFFSET;

/// The target of the stream. No service can have this name.
pub const TARGET: &str = "@readings";

/// Longest name of a reading, in bytes.
pub const MAX_NAME: usize = 64;

/// Longest unit of a reading, in bytes.
pub const MAX_UNIT: usize = 16;

/// Most readings in one message: at most 37 KB.
pub const MAX_READINGS: usize = 256;

/// Longest message on the stream, in bytes: its length stands in two bytes.
pub const MAX_MESSAGE: usize = 65_535;

/// From the phone, once, first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Every reading after a sequence number.
    Follow(Follow),
}

/// See [`Request::Follow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// The newest sequence number that the phone has; 0 for none.
    #[serde(deserialize_with = "safe")]
    pub after: u64,
    /// Go on with what is recorded later; otherwise the farm ends the stream
    /// after [`Answer::CaughtUp`].
    pub live: bool,
}

/// From the farm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The next readings, by growing sequence number: the receiver checks.
    Readings(#[serde(deserialize_with = "some_readings")] Vec<Reading>),
    /// Readings that the farm no longer has.
    Gap(Gap),
    /// Everything that was durable when it was sent has been said. Once.
    CaughtUp(Newest),
    /// The phone has a sequence number that this farm has not given yet: an
    /// old copy of the farm's state was put back. The farm ends the stream.
    Behind(Newest),
}

/// See [`Answer::Gap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first number of the gap.
    #[serde(deserialize_with = "safe")]
    pub first: u64,
    /// The last number of the gap.
    #[serde(deserialize_with = "safe")]
    pub last: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why readings are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The log is bounded: the oldest were removed.
    Pruned,
    /// The card lost them. Not each number of such a gap need have been used.
    Damaged,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// See [`Answer::CaughtUp`], [`Answer::Behind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// The newest sequence number; 0 for none.
    #[serde(deserialize_with = "safe")]
    pub newest: u64,
}

/// One reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Its sequence number: from 1, growing, never used twice at one farm.
    #[serde(rename = "n", deserialize_with = "safe")]
    pub sequence: u64,
    /// When it was recorded, milliseconds since 1970.
    #[serde(rename = "t", deserialize_with = "safe")]
    pub time: u64,
    /// What the time is worth.
    #[serde(rename = "c")]
    pub clock: Clock,
    /// What was read, see [`check_name`].
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// How much; finite.
    #[serde(deserialize_with = "finite")]
    pub value: f64,
    /// Of what, see [`check_unit`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "unit")]
    pub unit: Option<String>,
}

/// What the time of a reading is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The farm's clock was right when it was recorded.
    Set,
    /// It was not, became right in the same boot, and the time was corrected.
    Corrected,
    /// It was not; the time is the earliest that it can have been.
    Guessed,
    /// Of a newer version.
    #[serde(other)]
    Other,
}

/// A name or a unit that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The name.
    #[error(
        "the name {0:?} is not usable: 1 to {MAX_NAME} bytes, a letter or digit first, then letters, digits, and _ - . : / or single blanks inside"
    )]
    Name(String),
    /// The unit.
    #[error("the unit {0:?} is not usable: 1 to {MAX_UNIT} bytes of letters, digits and % ° ′ ″ / * ^ . · -")]
    Unit(String),
}

/// Whether a reading may be called this: letters of any script, but nothing
/// that a terminal or a page could take for an order.
///
/// # Errors
/// [`LabelError::Name`] with the rule.
pub fn check_name(text: &str) -> Result<(), LabelError> {
    let fits = (1..=MAX_NAME).contains(&text.len())
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | ' '))
        && text.starts_with(char::is_alphanumeric)
        && !text.ends_with(' ')
        && !text.contains("  ");
    if fits { Ok(()) } else { Err(LabelError::Name(text.chars().take(MAX_NAME).collect())) }
}

/// Whether this can be a unit.
///
/// # Errors
/// [`LabelError::Unit`] with the rule.
pub fn check_unit(text: &str) -> Result<(), LabelError> {
    let sign = |c| matches!(c, '%' | '°' | '′' | '″' | '/' | '*' | '^' | '.' | '·' | '-');
    let fits = (1..=MAX_UNIT).contains(&text.len()) && text.chars().all(|c| c.is_alphanumeric() || sign(c));
    if fits { Ok(()) } else { Err(LabelError::Unit(text.chars().take(MAX_UNIT).collect())) }
}

/// A message as it stands on the stream: its length in two bytes, the more
/// significant one first, then the message.
///
/// # Errors
/// [`CodecError::TooLarge`].
pub fn frame<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let body = codec::encode(message)?;
    let length = u16::try_from(body.len()).map_err(|_| CodecError::TooLarge(body.len()))?;
    let mut out = Vec::with_capacity(2 + body.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&body);
    Ok(out)
}

/// Takes messages from the bytes of a stream, however these are cut. Holds at
/// most one unfinished message and what was pushed last.
#[derive(Debug, Default)]
pub struct Unframer {
    bytes: Vec<u8>,
    taken: usize,
}

impl Unframer {
    /// The next bytes of the stream. Ask [`Self::message`] until it is empty
    /// before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// [`CodecError`]; the stream is then of no more use.
    pub fn message<T: for<'a> Deserialize<'a>>(&mut self) -> Result<Option<T>, CodecError> {
        let rest = &self.bytes[self.taken..];
        let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = codec::decode(body)?;
        self.taken += 2 + length;
        Ok(Some(message))
    }

    /// Whether the stream may end here: no message has begun.
    pub fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }
}

/// A number that JavaScript holds exactly.
pub(crate) fn safe<'de, D: Deserializer<'de>>(reader: D) -> Result<u64, D::Error> {
    match u64::deserialize(reader)? {
        number if number <= MAX_OFFSET => Ok(number),
        number => Err(D::Error::custom(format!("{number} is not below 2^53"))),
    }
}

fn finite<'de, D: Deserializer<'de>>(reader: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(reader)?;
    if value.is_finite() { Ok(value) } else { Err(D::Error::custom("a value is not finite")) }
}

fn name<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    let text = String::deserialize(reader)?;
    check_name(&text).map_err(D::Error::custom)?;
    Ok(text)
}

fn unit<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(reader)?;
    if let Some(text) = &text {
        check_unit(text).map_err(D::Error::custom)?;
    }
    Ok(text)
}

fn some_readings<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<Reading>, D::Error> {
    let readings = Vec::<Reading>::deserialize(reader)?;
    match readings.len() {
        1..=MAX_READINGS => Ok(readings),
        count => Err(D::Error::custom(format!("{count} readings, 1 to {MAX_READINGS} are allowed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_and_harmless() {
        let longest = "x".repeat(MAX_NAME);
        for good in ["a", "soil_moisture", "Tank 2", "house/3.air:temp", "температура", "1", &longest]
        {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let over = "x".repeat(MAX_NAME + 1);
        let wide = "я".repeat(33);
        for bad in
            ["", " a", "a ", "a  b", "a\nb", "a\u{1b}[2J", "a\u{202e}b", "../x", "a\"b", "😀", &over, &wide]
        {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["%", "°C", "m³/h", "µS/cm", "kWh", "Ω"] {
            assert_eq!(check_unit(good), Ok(()), "{good}");
        }
        for bad in ["", " ", "\0", "kilowatt-hours-and-more", "<b>"] {
            assert!(check_unit(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_target_is_no_services_name() {
        assert!(crate::service::check_name(TARGET).is_err());
        assert!(TARGET.len() <= crate::frame::MAX_TARGET);
    }

    #[test]
    fn the_largest_message_fits() {
        let reading = |n: usize| Reading {
            sequence: MAX_OFFSET - (MAX_READINGS - n) as u64,
            time: MAX_OFFSET,
            clock: Clock::Corrected,
            name: "x".repeat(MAX_NAME),
            value: 0.1,
            unit: Some("x".repeat(MAX_UNIT)),
        };
        let all = Answer::Readings((0..MAX_READINGS).map(reading).collect());
        let bytes = frame(&all).unwrap();
        assert!(bytes.len() <= 37_000, "{} bytes", bytes.len());
        let mut stream = Unframer::default();
        for piece in bytes.chunks(1000) {
            assert_eq!(stream.message::<Answer>().unwrap(), None);
            stream.push(piece);
        }
        assert_eq!(stream.message::<Answer>().unwrap(), Some(all));
        assert!(stream.is_empty());
    }

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let messages = [Answer::CaughtUp(Newest { newest: 7 }), Answer::Behind(Newest { newest: 0 })];
        let bytes: Vec<u8> = messages.iter().flat_map(|m| frame(m).unwrap()).collect();
        for cut in 0..=bytes.len() {
            let (mut stream, mut found) = (Unframer::default(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                stream.push(part);
                while let Some(message) = stream.message::<Answer>().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, messages, "cut at {cut}");
            assert!(stream.is_empty());
        }
    }
}
