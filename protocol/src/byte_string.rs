//! Byte strings are read from byte strings only: `serde_bytes` would take
//! text and arrays of numbers for them too, which other implementations don't.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};

/// Reads exactly `N` bytes; `what` is named where it fails.
pub(crate) fn array<'de, const N: usize, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
) -> Result<[u8; N], D::Error> {
    deserializer.deserialize_bytes(Bytes::<[u8; N]>(what, PhantomData))
}

/// Reads any number of bytes, for `#[serde(deserialize_with)]`.
pub(crate) fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    deserializer.deserialize_bytes(Bytes::<Vec<u8>>("a byte string", PhantomData))
}

struct Bytes<T>(&'static str, PhantomData<T>);

impl<T: for<'a> TryFrom<&'a [u8]>> Visitor<'_> for Bytes<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
        T::try_from(bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}
