//! A batch: writes that become durable together or not at all.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    error::Error,
    key::Key,
    table::{Table, VITAL},
};

/// The most a batch may hold, keys and values together, in bytes. Small enough
/// that a full queue of them stays bounded memory (128 x 64 KiB), large enough
/// for a few hundred readings.
pub const MAX_BATCH_BYTES: usize = 64 << 10;

/// Raw writes in key order; `None` removes.
pub(crate) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Writes that become durable together or not at all. A later write to a key
/// replaces an earlier one.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    writes: Writes,
    bytes: usize,
    schema: Option<u32>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores a value under a key.
    ///
    /// # Errors
    /// When key, value or the batch would be too large, or the value can't be
    /// encoded; the batch is then as it was.
    pub fn put<K: Key, V: Serialize>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<&mut Self, Error> {
        let raw = table.raw_key(key)?;
        let stored = table.seal(&raw, value)?;
        self.write(table.name(), raw, Some(stored))
    }

    /// Removes the value under a key, if there is one.
    ///
    /// # Errors
    /// When the key or the batch would be too large; the batch is then as it
    /// was.
    pub fn remove<K: Key, V>(&mut self, table: &Table<K, V>, key: &K) -> Result<&mut Self, Error> {
        let raw = table.raw_key(key)?;
        self.write(table.name(), raw, None)
    }

    /// Records that with this batch the data is of schema `schema`: the last
    /// batch of a migration carries it.
    pub fn migrated_to(&mut self, schema: u32) -> &mut Self {
        self.schema = Some(schema);
        self
    }

    /// Whether the batch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.schema.is_none()
    }

    /// Bytes of keys and values in it, at most [`MAX_BATCH_BYTES`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn into_parts(self) -> (Writes, Option<u32>) {
        (self.writes, self.schema)
    }

    fn write(
        &mut self,
        table: &'static str,
        raw: Vec<u8>,
        stored: Option<Vec<u8>>,
    ) -> Result<&mut Self, Error> {
        let replaced = self.writes.get(&raw).map_or(0, |old| write_bytes(&raw, old.as_deref()));
        let bytes = self.bytes - replaced + write_bytes(&raw, stored.as_deref());
        if bytes > MAX_BATCH_BYTES {
            return Err(Error::BatchTooLarge { table, bytes });
        }
        self.bytes = bytes;
        self.writes.insert(raw, stored);
        Ok(self)
    }
}

/// What a write counts for in the bounds.
pub(crate) fn write_bytes(raw: &[u8], stored: Option<&[u8]>) -> usize {
    raw.len() + stored.map_or(0, <[u8]>::len)
}

/// Whether a raw key belongs to a vital table.
pub(crate) fn is_vital(raw: &[u8]) -> bool {
    raw.first() == Some(&VITAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::MAX_VALUE_BYTES;

    const BLOBS: Table<u64, serde_bytes::ByteBuf> = Table::new("blobs");

    #[test]
    fn a_full_batch_refuses_more_and_stays_usable() {
        let value = serde_bytes::ByteBuf::from(vec![7; MAX_VALUE_BYTES - 3]);
        let mut batch = Batch::new();
        let mut fitted = 0;
        while batch.put(&BLOBS, &fitted, &value).is_ok() {
            fitted += 1;
        }
        assert_eq!(fitted, 15);
        let before = batch.bytes();
        assert!(matches!(batch.put(&BLOBS, &99, &value), Err(Error::BatchTooLarge { .. })));
        assert_eq!(batch.bytes(), before);
        // Replacing a write is not one more, and removing frees its bytes.
        batch.put(&BLOBS, &0, &value).unwrap();
        assert_eq!(batch.bytes(), before);
        batch.remove(&BLOBS, &0).unwrap();
        assert!(batch.bytes() < before);
        assert!(!batch.is_empty());
    }
}
