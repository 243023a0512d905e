//! The small irreplaceable records, in memory.

use std::{collections::BTreeMap, ops::RangeBounds, path::Path};

use serde::de::DeserializeOwned;

use crate::{
    batch::{Writes, is_vital, write_bytes},
    error::{Error, OpenError},
    key::Key,
    layout::Layout,
    mirror,
    table::{RawRange, Table},
};

/// The most all vital tables together may hold, keys and values, in bytes:
/// they are kept in memory and written whole with each change. An agent has a
/// few kilobytes; a broker with 10,000 farms about 2 MiB.
pub const MAX_VITAL_BYTES: usize = 4 << 20;

/// The records of all vital tables, sealed as in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vital {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
}

impl Vital {
    /// Reads the vital records from the mirror alone, without the database and
    /// without taking the directory: for a program that must know who it is
    /// while the store can't be opened (disk full, file system read-only).
    /// `None` when there is no readable mirror.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn read(path: &Path) -> Result<Option<Self>, OpenError> {
        let found = mirror::find(&Layout::new(path.to_path_buf()))?;
        Ok(found.best.map(|mirror| mirror.vital))
    }

    /// The value under a key of a vital table.
    ///
    /// # Errors
    /// When the record is damaged or not of the table's type.
    pub fn get<K: Key, V: DeserializeOwned>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, Error> {
        let raw = table.raw_key(key)?;
        self.raw_get(&raw).map(|stored| table.unseal(&raw, stored)).transpose()
    }

    /// All records of a vital table whose keys are in `range`.
    ///
    /// # Errors
    /// When a record is damaged or not of the table's type.
    pub fn range<K: Key, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        range: impl RangeBounds<K>,
    ) -> Result<Vec<(K, V)>, Error> {
        self.raw_range(&table.raw_range(&range))
            .map(|(raw, stored)| Ok((table.read_key(raw)?, table.unseal(raw, stored)?)))
            .collect()
    }

    /// Number of records in all vital tables.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What the records take, in the measure of [`MAX_VITAL_BYTES`].
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn raw_get(&self, raw: &[u8]) -> Option<&[u8]> {
        self.records.get(raw).map(Vec::as_slice)
    }

    pub(crate) fn raw_range(&self, range: &RawRange) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        let bounds = (range.low.clone(), range.high.clone());
        // BTreeMap panics on a range that ends before it starts.
        (!range.is_empty())
            .then(|| self.records.range::<Vec<u8>, _>(bounds))
            .into_iter()
            .flatten()
            .map(|(raw, stored)| (raw.as_slice(), stored.as_slice()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records.iter().map(|(raw, stored)| (raw.as_slice(), stored.as_slice()))
    }

    pub(crate) fn set(&mut self, raw: Vec<u8>, stored: Option<Vec<u8>>) {
        let len = raw.len();
        let added = write_bytes(&raw, stored.as_deref());
        let replaced = match stored {
            Some(stored) => {
                self.bytes += added;
                self.records.insert(raw, stored)
            }
            None => self.records.remove(&raw),
        };
        self.bytes -= replaced.map_or(0, |old| len + old.len());
    }

    /// Takes over what of these writes is for vital tables.
    pub(crate) fn apply(&mut self, writes: &Writes) {
        for (raw, stored) in writes.iter().filter(|(raw, _)| is_vital(raw)) {
            self.set(raw.clone(), stored.clone());
        }
    }

    /// The writes that turn `other` into this.
    pub(crate) fn difference_from(&self, other: &Vital) -> Writes {
        let removed = other
            .records
            .keys()
            .filter(|raw| !self.records.contains_key(*raw))
            .map(|raw| (raw.clone(), None));
        let changed = self
            .records
            .iter()
            .filter(|(raw, stored)| other.records.get(*raw) != Some(stored))
            .map(|(raw, stored)| (raw.clone(), Some(stored.clone())));
        removed.chain(changed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vital_of(records: &BTreeMap<u8, Vec<u8>>) -> Vital {
        let mut vital = Vital::default();
        for (key, value) in records {
            vital.set(vec![b'v', *key], Some(value.clone()));
        }
        vital
    }

    proptest! {
        #[test]
        fn a_difference_applied_gives_the_other(
            a in prop::collection::btree_map(0u8..8, prop::collection::vec(any::<u8>(), 0..3), 0..6),
            b in prop::collection::btree_map(0u8..8, prop::collection::vec(any::<u8>(), 0..3), 0..6),
        ) {
            let (mut from, to) = (vital_of(&a), vital_of(&b));
            let writes = to.difference_from(&from);
            prop_assert_eq!(writes.is_empty(), a == b);
            from.apply(&writes);
            // Equality covers the byte count too.
            prop_assert_eq!(from, to);
        }
    }
}
