//! Typed tables over the one ordered map that the database is.

use std::{
    marker::PhantomData,
    ops::{Bound, RangeBounds},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{codec, error::Error, key::Key};

/// The longest encoded value, in bytes.
///
/// sled puts what is over a quarter of a segment (128 KiB) into `blobs/`, which
/// it never fsyncs; and it writes a leaf, not a value. A leaf is split above 16
/// entries and merged with a sibling below 4, so it holds up to about 21: at
/// 4 KiB a value and 256 bytes a key that is 92 KiB. (At 8 KiB a value blobs
/// do appear.)
pub const MAX_VALUE_BYTES: usize = 4 << 10;

/// The longest encoded key, the table's name included, in bytes. Index pages
/// hold up to about 320 keys and must stay under the same 128 KiB.
pub const MAX_KEY_BYTES: usize = 256;

/// The longest name of a table, in bytes.
const MAX_NAME_BYTES: usize = 32;

/// First byte of the raw keys, one per kind.
const ORDINARY: u8 = b't';
pub(crate) const VITAL: u8 = b'v';

/// A table: a name, and the types of its keys and values.
///
/// Make it a constant: `const READINGS: Table<u64, Reading> = Table::new("readings");`
/// Changing a table between ordinary and vital makes it another table.
pub struct Table<K, V> {
    name: &'static str,
    kind: u8,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> Table<K, V> {
    /// An ordinary table.
    ///
    /// # Panics
    /// When the name is not 1–32 characters of `a-z`, `0-9`, `-`, `_`: for a
    /// constant, at compile time.
    pub const fn new(name: &'static str) -> Self {
        Self::named(name, ORDINARY)
    }

    /// A table of small, irreplaceable records (identity, paired phones): also
    /// kept in the mirror file and in memory, restored when the database is
    /// lost. All vital tables together hold at most
    /// [`MAX_VITAL_BYTES`](crate::MAX_VITAL_BYTES), and each commit that changes
    /// one writes the mirror anew.
    ///
    /// # Panics
    /// As [`Table::new`].
    pub const fn vital(name: &'static str) -> Self {
        Self::named(name, VITAL)
    }

    const fn named(name: &'static str, kind: u8) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty(), "a table needs a name");
        assert!(bytes.len() <= MAX_NAME_BYTES, "a table's name is too long");
        let mut i = 0;
        while i < bytes.len() {
            assert!(
                matches!(bytes[i], b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'),
                "a table's name is made of a-z, 0-9, - and _"
            );
            i += 1;
        }
        Table { name, kind, types: PhantomData }
    }

    /// The table's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn is_vital(&self) -> bool {
        self.kind == VITAL
    }

    /// What all raw keys of this table begin with. Names hold no NUL, so no
    /// table's prefix begins another's.
    fn prefix(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.name.len() + 2 + 16);
        raw.push(self.kind);
        raw.extend_from_slice(self.name.as_bytes());
        raw.push(0);
        raw
    }
}

impl<K: Key, V> Table<K, V> {
    pub(crate) fn raw_key(&self, key: &K) -> Result<Vec<u8>, Error> {
        let mut raw = self.prefix();
        key.write(&mut raw);
        if raw.len() > MAX_KEY_BYTES {
            return Err(Error::KeyTooLarge { table: self.name, bytes: raw.len() });
        }
        Ok(raw)
    }

    pub(crate) fn read_key(&self, raw: &[u8]) -> Result<K, Error> {
        raw.get(self.name.len() + 2..)
            .and_then(K::read)
            .ok_or(Error::Decode { table: self.name, why: "a key is not of the table's key type".to_owned() })
    }

    /// The range of raw keys for a range of keys.
    pub(crate) fn raw_range(&self, range: &impl RangeBounds<K>) -> RawRange {
        let raw = |key: &K| {
            let mut raw = self.prefix();
            key.write(&mut raw);
            raw
        };
        let low = match range.start_bound() {
            Bound::Included(key) => Bound::Included(raw(key)),
            Bound::Excluded(key) => Bound::Excluded(raw(key)),
            Bound::Unbounded => Bound::Included(self.prefix()),
        };
        let high = match range.end_bound() {
            Bound::Included(key) => Bound::Included(raw(key)),
            Bound::Excluded(key) => Bound::Excluded(raw(key)),
            Bound::Unbounded => Bound::Excluded(successor(self.prefix())),
        };
        RawRange { low, high }
    }

    /// The range of raw keys that begin with the bytes of `first`.
    pub(crate) fn raw_prefix(&self, first: &impl Key) -> RawRange {
        let mut raw = self.prefix();
        first.write(&mut raw);
        RawRange { high: Bound::Excluded(successor(raw.clone())), low: Bound::Included(raw) }
    }
}

impl<K, V: Serialize> Table<K, V> {
    pub(crate) fn seal(&self, raw_key: &[u8], value: &V) -> Result<Vec<u8>, Error> {
        let encoded = codec::encode(value).map_err(|why| Error::Encode { table: self.name, why })?;
        if encoded.len() > MAX_VALUE_BYTES {
            return Err(Error::ValueTooLarge { table: self.name, bytes: encoded.len() });
        }
        Ok(codec::seal(raw_key, &encoded))
    }
}

impl<K, V: DeserializeOwned> Table<K, V> {
    pub(crate) fn unseal(&self, raw_key: &[u8], stored: &[u8]) -> Result<V, Error> {
        let encoded = codec::unseal(raw_key, stored).ok_or(Error::Damaged { table: self.name })?;
        codec::decode(encoded).map_err(|why| Error::Decode { table: self.name, why })
    }
}

/// A range of raw keys.
#[derive(Debug, Clone)]
pub(crate) struct RawRange {
    pub(crate) low: Bound<Vec<u8>>,
    pub(crate) high: Bound<Vec<u8>>,
}

impl RawRange {
    /// Whether nothing can be inside; such ranges make the maps panic.
    pub(crate) fn is_empty(&self) -> bool {
        match (&self.low, &self.high) {
            (Bound::Included(low), Bound::Included(high)) => low > high,
            (Bound::Included(low) | Bound::Excluded(low), Bound::Excluded(high))
            | (Bound::Excluded(low), Bound::Included(high)) => low >= high,
            _ => false,
        }
    }
}

/// The first byte string that is greater than all that begin with `prefix`.
/// There is one: the kind byte is never 0xff.
fn successor(mut prefix: Vec<u8>) -> Vec<u8> {
    while prefix.last() == Some(&0xff) {
        prefix.pop();
    }
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Table<u64, u8> = Table::new("a");
    const LONGER: Table<u64, u8> = Table::new("a-b");
    const SAME_NAME: Table<u64, u8> = Table::vital("a");

    #[test]
    fn tables_do_not_share_keys() {
        let keys = [SMALL.raw_key(&7).unwrap(), LONGER.raw_key(&7).unwrap(), SAME_NAME.raw_key(&7).unwrap()];
        for (table, own) in [&SMALL, &LONGER, &SAME_NAME].into_iter().zip(0..) {
            let range = table.raw_range(&(..));
            for (i, key) in keys.iter().enumerate() {
                let inside = (range.low.clone(), range.high.clone()).contains(key);
                assert_eq!(inside, i == own, "table {own}, key {i}");
            }
            assert_eq!(table.read_key(&keys[own]).unwrap(), 7);
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let table: Table<String, serde_bytes::ByteBuf> = Table::new("blob");
        let raw = table.raw_key(&"k".to_owned()).unwrap();
        let fits = serde_bytes::ByteBuf::from(vec![1; MAX_VALUE_BYTES - 3]);
        assert!(table.seal(&raw, &fits).is_ok());
        let over = serde_bytes::ByteBuf::from(vec![1; MAX_VALUE_BYTES - 2]);
        assert!(matches!(table.seal(&raw, &over), Err(Error::ValueTooLarge { table: "blob", .. })));
        assert!(matches!(table.raw_key(&"k".repeat(MAX_KEY_BYTES)), Err(Error::KeyTooLarge { .. })));
    }

    #[test]
    fn the_successor_skips_full_bytes() {
        assert_eq!(successor(vec![1, 2]), [1, 3]);
        assert_eq!(successor(vec![1, 0xff, 0xff]), [2]);
        assert!(SMALL.raw_range(&(5..5)).is_empty());
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = SMALL.raw_range(&(5..=4));
        assert!(backwards.is_empty());
        assert!(!SMALL.raw_range(&(5..=5)).is_empty());
    }
}
