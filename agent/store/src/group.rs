//! Several batches made one group commit. Pure.

use crate::{
    batch::{Batch, Writes, is_vital, write_bytes},
    error::Error,
    meta::{META_KEY, Meta},
    vital::{MAX_VITAL_BYTES, Vital},
};

/// The most batches in one group: all that the queue can hold.
pub(crate) const MAX_GROUP_BATCHES: usize = 128;

/// No further batch joins a group of this size, in bytes: half a segment, so
/// that a group spans two at most and an fsync stays short.
pub(crate) const MAX_GROUP_BYTES: usize = 256 << 10;

/// Batches on their way to the disk together, in the order they came.
#[derive(Debug)]
pub(crate) struct Group {
    meta: Meta,
    writes: Writes,
    bytes: usize,
    batches: usize,
    vital_bytes: usize,
    atomic: bool,
}

impl Group {
    /// The group after `meta`, over these vital records.
    pub(crate) fn after(meta: &Meta, vital: &Vital) -> Self {
        Group {
            meta: Meta { commit: meta.commit + 1, ..*meta },
            writes: Writes::new(),
            bytes: 0,
            batches: 0,
            vital_bytes: vital.bytes(),
            atomic: false,
        }
    }

    /// Whether another batch may join.
    pub(crate) fn has_room(&self) -> bool {
        self.batches < MAX_GROUP_BATCHES && self.bytes < MAX_GROUP_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Adds a batch; where it writes a key that is in the group already, it
    /// replaces that write.
    ///
    /// # Errors
    /// When the vital tables would be too large; the group is then as it was.
    pub(crate) fn add(&mut self, batch: Batch, vital: &Vital) -> Result<(), Error> {
        let bytes = batch.bytes();
        let (writes, schema) = batch.into_parts();
        let mut vital_bytes = self.vital_bytes;
        for (raw, stored) in writes.iter().filter(|(raw, _)| is_vital(raw)) {
            let replaced = match self.writes.get(raw) {
                Some(written) => written.as_deref(),
                None => vital.raw_get(raw),
            };
            vital_bytes -= replaced.map_or(0, |old| write_bytes(raw, Some(old)));
            vital_bytes += stored.as_deref().map_or(0, |new| write_bytes(raw, Some(new)));
        }
        // Shrinking is always allowed.
        if vital_bytes > MAX_VITAL_BYTES && vital_bytes > self.vital_bytes {
            return Err(Error::VitalFull { bytes: vital_bytes });
        }
        self.vital_bytes = vital_bytes;
        let touches_vital = writes.keys().any(|raw| is_vital(raw));
        // Batches need not share their fate, and a lone ordinary record may be
        // there before the record about it, unacknowledged. A vital one not:
        // it would look damaged next to the mirror. Nor a schema.
        self.atomic |= writes.len() > 1 || touches_vital || schema.is_some();
        if touches_vital || schema.is_some() {
            // A new schema counts: the mirror must know it.
            self.meta.vital_commit = self.meta.commit;
        }
        self.meta.schema = schema.unwrap_or(self.meta.schema);
        self.writes.extend(writes);
        self.writes.insert(META_KEY.to_vec(), Some(self.meta.seal()));
        self.bytes += bytes;
        self.batches += 1;
        Ok(())
    }

    /// Everything to be written, the store's own record included.
    pub(crate) fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Whether all of it must become durable together.
    pub(crate) fn is_atomic(&self) -> bool {
        self.atomic
    }

    /// Where the store stands when it is written.
    pub(crate) fn meta(&self) -> Meta {
        self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;

    const PHONES: Table<u64, u64> = Table::vital("phones");
    const READINGS: Table<u64, u64> = Table::new("readings");
    const LARGE: Table<u64, serde_bytes::ByteBuf> = Table::vital("large");

    fn start() -> (Meta, Vital) {
        let meta = Meta { schema: 1, commit: 10, vital_commit: 4 };
        (meta, Vital::default())
    }

    #[test]
    fn later_batches_win_and_only_vital_ones_move_the_vital_mark() {
        let (meta, vital) = start();
        let mut group = Group::after(&meta, &vital);
        assert!(group.is_empty());
        for value in 0..3 {
            let mut batch = Batch::new();
            batch.put(&READINGS, &1, &value).unwrap();
            group.add(batch, &vital).unwrap();
        }
        assert_eq!(group.writes().len(), 2, "one key, and the record itself");
        assert_eq!((group.meta().commit, group.meta().vital_commit), (11, 4));
        let raw = READINGS.raw_key(&1).unwrap();
        let stored = group.writes()[&raw].clone().unwrap();
        assert_eq!(READINGS.unseal(&raw, &stored).unwrap(), 2);

        let mut batch = Batch::new();
        batch.put(&PHONES, &1, &1).unwrap();
        group.add(batch, &vital).unwrap();
        assert_eq!(group.meta().vital_commit, 11);
        let stored = group.writes()[META_KEY].clone().unwrap();
        assert_eq!(Meta::unseal(&stored), Some(group.meta()));
    }

    #[test]
    fn only_what_belongs_together_costs_an_atomic_batch() {
        let (meta, vital) = start();
        let mut group = Group::after(&meta, &vital);
        for key in 0..3 {
            let mut batch = Batch::new();
            batch.put(&READINGS, &key, &0).unwrap();
            group.add(batch, &vital).unwrap();
        }
        assert!(!group.is_atomic());
        assert_eq!(group.writes().keys().last().map(Vec::as_slice), Some(META_KEY));
        let mut schema = Batch::new();
        schema.migrated_to(2);
        let mut pair = Batch::new();
        pair.put(&READINGS, &7, &0).unwrap();
        pair.remove(&READINGS, &8).unwrap();
        let mut phone = Batch::new();
        phone.put(&PHONES, &7, &0).unwrap();
        for batch in [schema, pair, phone] {
            let mut group = Group::after(&meta, &vital);
            group.add(batch, &vital).unwrap();
            assert!(group.is_atomic());
        }
    }

    #[test]
    fn the_vital_bound_refuses_growth_and_only_that() {
        let (meta, mut vital) = start();
        let value = serde_bytes::ByteBuf::from(vec![7; 4000]);
        let mut key = 0;
        // Fill up to the bound through groups.
        let refused = loop {
            let mut group = Group::after(&meta, &vital);
            let mut batch = Batch::new();
            batch.put(&LARGE, &key, &value).unwrap();
            match group.add(batch, &vital) {
                Ok(()) => vital.apply(group.writes()),
                Err(e) => break e,
            }
            key += 1;
        };
        assert!(matches!(refused, Error::VitalFull { bytes } if bytes > MAX_VITAL_BYTES));
        assert!(vital.bytes() <= MAX_VITAL_BYTES);
        let mut group = Group::after(&meta, &vital);
        let mut batch = Batch::new();
        batch.remove(&LARGE, &0).unwrap();
        batch.put(&LARGE, &key, &value).unwrap();
        group.add(batch, &vital).unwrap();
        let mut batch = Batch::new();
        batch.put(&READINGS, &1, &1).unwrap();
        group.add(batch, &vital).unwrap();
    }

    #[test]
    fn a_group_is_bounded() {
        let (meta, vital) = start();
        let mut group = Group::after(&meta, &vital);
        let mut batches = 0;
        while group.has_room() {
            let mut batch = Batch::new();
            batch.put(&READINGS, &batches, &0).unwrap();
            group.add(batch, &vital).unwrap();
            batches += 1;
        }
        assert_eq!(batches as usize, MAX_GROUP_BATCHES);
    }
}
