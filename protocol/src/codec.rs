//! CBOR (RFC 8949) in and out: the one place that knows `serde_cbor`.
//!
//! Every message is a two-element array `[version, body]`, so that a reader
//! can refuse another version before it looks at the body.

use serde::de::{Deserialize, IgnoredAny};
use serde::ser::Serialize;

use crate::VERSION;

/// The largest message accepted or produced, in bytes (64 KiB): what one data
/// channel message may carry between all implementations without negotiation.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The message is larger than [`MAX_MESSAGE`].
    #[error("message of {0} bytes is over the limit of {MAX_MESSAGE}")]
    TooLarge(usize),
    /// The sender speaks another version of the protocol.
    #[error("message of protocol version {0}, this side speaks {VERSION}: update the older side")]
    Version(u8),
    /// Not CBOR, or not of the expected shape.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// Writes `[VERSION, body]`.
///
/// # Errors
/// [`CodecError::TooLarge`] where the result exceeds [`MAX_MESSAGE`].
pub fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = serde_cbor::to_vec(&(VERSION, body)).map_err(|e| CodecError::Malformed(e.to_string()))?;
    if bytes.len() > MAX_MESSAGE {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

/// Reads `[VERSION, body]` from bytes that may be hostile.
///
/// # Errors
/// [`CodecError`]; trailing bytes, duplicate fields, keys that are not text
/// and nesting deeper than 128 are malformed.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    match read::<(u8, T)>(bytes) {
        Ok((VERSION, body)) => Ok(body),
        Ok((other, _)) => Err(CodecError::Version(other)),
        // A body of another version may not fit our types: name the version
        // rather than the misfit.
        Err(e) => match read::<(u8, IgnoredAny)>(bytes) {
            Ok((other, _)) if other != VERSION => Err(CodecError::Version(other)),
            _ => Err(CodecError::Malformed(e.to_string())),
        },
    }
}

/// Without the library's own short forms (numbers for the names of fields,
/// arrays for enums): no other implementation would read or write them.
///
/// Behind a trait object: else the library's parser, 6 KB, would be in the
/// program once for each type that is read, 140 times.
fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, erased_serde::Error> {
    let mut reader =
        serde_cbor::Deserializer::from_slice(bytes).disable_packed_format().disable_legacy_enums();
    let value = erased_serde::deserialize(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut reader))?;
    reader.end().map_err(serde::de::Error::custom)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_named() {
        let bytes = serde_cbor::to_vec(&(9u8, "future")).unwrap();
        let err = decode::<u64>(&bytes).unwrap_err();
        assert!(matches!(err, CodecError::Version(9)), "{err}");
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u64).unwrap();
        assert_eq!(decode::<u64>(&bytes).unwrap(), 7);
        bytes.push(0);
        assert!(decode::<u64>(&bytes).is_err());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut bytes = vec![0x81; 60_000];
        bytes.push(0);
        assert!(decode::<IgnoredAny>(&bytes).is_err());
    }

    #[test]
    fn short_forms_of_one_library_are_refused() {
        use crate::broker::{FromBroker, RetryAfter};
        let message = FromBroker::RetryAfter(RetryAfter { milliseconds: 7 });
        let bytes = encode(&message).unwrap();
        assert_eq!(decode::<FromBroker>(&bytes).unwrap(), message);
        let name = |text: &'static str| serde_cbor::Value::Text(text.into());
        let seven = serde_cbor::Value::Integer(7);
        let packed = std::collections::BTreeMap::from([(serde_cbor::Value::Integer(0), seven.clone())]);
        let packed = std::collections::BTreeMap::from([(name("retry_after"), packed)]);
        let named = std::collections::BTreeMap::from([(name("milliseconds"), seven)]);
        for bytes in
            [serde_cbor::to_vec(&(VERSION, packed)), serde_cbor::to_vec(&(VERSION, ("retry_after", named)))]
        {
            assert!(decode::<FromBroker>(&bytes.unwrap()).is_err());
        }
    }

    #[test]
    fn the_limit_holds_both_ways() {
        let big = serde_bytes::ByteBuf::from(vec![0; MAX_MESSAGE]);
        assert!(matches!(encode(&big), Err(CodecError::TooLarge(_))));
        assert!(matches!(decode::<u64>(&vec![0; MAX_MESSAGE + 1]), Err(CodecError::TooLarge(_))));
    }
}
