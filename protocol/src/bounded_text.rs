//! Texts whose length, in bytes of UTF-8, is bounded where they are read.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

/// Reads a text of `LEAST` to `MOST` bytes, for `#[serde(deserialize_with)]`.
pub(crate) fn required<'de, D: Deserializer<'de>, const LEAST: usize, const MOST: usize>(
    deserializer: D,
) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text::<LEAST, MOST>)
}

/// The same where the field may be absent.
pub(crate) fn optional<'de, D: Deserializer<'de>, const LEAST: usize, const MOST: usize>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_option(Maybe::<LEAST, MOST>)
}

struct Text<const LEAST: usize, const MOST: usize>;

impl<const LEAST: usize, const MOST: usize> Visitor<'_> for Text<LEAST, MOST> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of {LEAST} to {MOST} bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        if (LEAST..=MOST).contains(&text.len()) {
            Ok(text.to_owned())
        } else {
            Err(E::invalid_length(text.len(), &self))
        }
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<String, E> {
        let text = std::str::from_utf8(bytes).map_err(|_| E::custom("a text is UTF-8"))?;
        self.visit_str(text)
    }
}

struct Maybe<const LEAST: usize, const MOST: usize>;

impl<'de, const LEAST: usize, const MOST: usize> Visitor<'de> for Maybe<LEAST, MOST> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text::<LEAST, MOST>.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        required::<D, LEAST, MOST>(deserializer).map(Some)
    }
}
