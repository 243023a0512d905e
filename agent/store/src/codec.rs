//! Everything this crate knows about CBOR, and the checksum around each value.
//!
//! `serde_cbor` is unmaintained: this module is the only one that names it.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes a checksum adds to a value.
pub(crate) const CHECKSUM_BYTES: usize = 4;

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    serde_cbor::to_vec(value).map_err(|e| e.to_string())
}

/// Behind a trait object, so that the parser is in the program once and not
/// once for each type.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut reader = serde_cbor::Deserializer::from_slice(bytes);
    let value = erased_serde::deserialize(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut reader))
        .map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    Ok(value)
}

/// What is stored for a value: the CRC32 of key and value, then the value. The
/// key is part of it so that a value under a wrong key is noticed too.
pub(crate) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(CHECKSUM_BYTES + value.len());
    out.extend_from_slice(&checksum(key, value).to_be_bytes());
    out.extend_from_slice(value);
    out
}

/// The value inside, or `None` when its checksum does not hold.
pub(crate) fn unseal<'a>(key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, value) = stored.split_first_chunk::<CHECKSUM_BYTES>()?;
    (u32::from_be_bytes(*sum) == checksum(key, value)).then_some(value)
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_a_wrong_key_are_noticed() {
        let stored = seal(b"key", b"the value");
        assert_eq!(unseal(b"key", &stored), Some(b"the value".as_slice()));
        assert_eq!(unseal(b"kez", &stored), None);
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(b"key", &flipped), None, "bit {bit}");
        }
        for len in 0..stored.len() {
            assert_eq!(unseal(b"key", &stored[..len]), None, "cut to {len}");
        }
    }
}
