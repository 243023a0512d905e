//! Database against mirror: which of the two is right about the vital records.
//! Pure.
//!
//! A group commit is durable in the database before the mirror is written, so
//! in good times the mirror is equal or behind by what was never acknowledged.
//! A mirror that is ahead means that the database has lost its newest commits.

use crate::{batch::Writes, meta::Meta, mirror::Mirror, report::Alarm, vital::Vital};

/// What was read from a database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    /// `None` in a new one.
    pub(crate) meta: Option<Meta>,
    /// Its whole vital records.
    pub(crate) vital: Vital,
    /// Raw keys of vital records whose checksum does not hold.
    pub(crate) damaged: Vec<Vec<u8>>,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Where the store stands after `writes`.
    pub(crate) meta: Meta,
    /// The vital records after `writes`.
    pub(crate) vital: Vital,
    /// What to write into the database.
    pub(crate) writes: Writes,
    /// Whether anything must be written: `writes`, or `meta` alone.
    pub(crate) write_database: bool,
    /// Whether the mirror must be written.
    pub(crate) write_mirror: bool,
    /// Vital records taken from the mirror.
    pub(crate) restored: usize,
    pub(crate) alarms: Vec<Alarm>,
}

/// Decides. `schema` is that of a store that has neither database nor mirror.
///
/// # Errors
/// Why the database can't be used next to this mirror: put it aside.
pub(crate) fn reconcile(db: &Loaded, mirror: Option<&Mirror>, schema: u32) -> Result<Plan, &'static str> {
    let is_new = db.meta.is_none();
    let fallback = Meta { schema: mirror.map_or(schema, |mirror| mirror.meta.schema), ..Meta::default() };
    let found = db.meta.unwrap_or(fallback);
    let mut alarms = Vec::new();
    let mut meta = found;
    let mut vital = db.vital.clone();
    let mut restored = 0;

    if let Some(mirror) = mirror {
        let tail_lost = mirror.meta.commit > found.commit;
        if tail_lost && found.schema < mirror.meta.schema {
            return Err("it has lost its newest commits, a schema migration among them");
        }
        if tail_lost && !is_new {
            alarms.push(Alarm::TailLost { expected: mirror.meta.commit, found: found.commit });
        }
        meta.commit = found.commit.max(mirror.meta.commit);

        if mirror.meta.vital_commit >= found.vital_commit {
            restored = mirror.vital.difference_from(&db.vital).len();
            if restored > 0 && mirror.meta.vital_commit == found.vital_commit && !is_new {
                alarms.push(Alarm::VitalDamaged { restored, lost: 0 });
            }
            vital = mirror.vital.clone();
            meta.vital_commit = mirror.meta.vital_commit;
        } else if !db.damaged.is_empty() {
            // The mirror is behind: still better than nothing for these.
            for raw in &db.damaged {
                if let Some(stored) = mirror.vital.raw_get(raw) {
                    vital.set(raw.clone(), Some(stored.to_vec()));
                    restored += 1;
                }
            }
            alarms.push(Alarm::VitalDamaged { restored, lost: db.damaged.len() - restored });
        }
    } else if !db.damaged.is_empty() {
        alarms.push(Alarm::VitalDamaged { restored: 0, lost: db.damaged.len() });
    }

    let mut writes = vital.difference_from(&db.vital);
    for raw in &db.damaged {
        // Nothing can read it; left in place it would alarm for ever.
        writes.entry(raw.clone()).or_insert(None);
    }
    let write_database = is_new || !writes.is_empty() || meta != found;
    if write_database && !is_new {
        meta.commit += 1;
    }
    Ok(Plan {
        write_mirror: mirror.is_none_or(|mirror| {
            mirror.meta.vital_commit != meta.vital_commit || mirror.meta.schema != meta.schema
        }) || !alarms.is_empty(),
        meta,
        vital,
        writes,
        write_database,
        restored,
        alarms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta(schema: u32, commit: u64, vital_commit: u64) -> Meta {
        Meta { schema, commit, vital_commit }
    }

    fn vital(records: &[(u8, u8)]) -> Vital {
        let mut vital = Vital::default();
        for (key, value) in records {
            vital.set(vec![b'v', *key], Some(vec![*value]));
        }
        vital
    }

    fn loaded(meta: Meta, records: &[(u8, u8)]) -> Loaded {
        Loaded { meta: Some(meta), vital: vital(records), damaged: Vec::new() }
    }

    fn mirror(meta: Meta, records: &[(u8, u8)]) -> Mirror {
        Mirror { meta, vital: vital(records) }
    }

    #[test]
    fn first_start() {
        let plan = reconcile(&Loaded::default(), None, 4).unwrap();
        assert_eq!(plan.meta, meta(4, 0, 0));
        assert!(plan.write_database && plan.write_mirror && plan.alarms.is_empty());
    }

    #[test]
    fn an_ordinary_start_writes_nothing() {
        let db = loaded(meta(1, 90, 7), &[(1, 1)]);
        let plan = reconcile(&db, Some(&mirror(meta(1, 64, 7), &[(1, 1)])), 1).unwrap();
        assert!(!plan.write_database && !plan.write_mirror);
        assert_eq!((plan.meta, plan.restored), (meta(1, 90, 7), 0));
        assert!(plan.alarms.is_empty());
    }

    #[test]
    fn a_cut_between_database_and_mirror_is_no_alarm() {
        let db = loaded(meta(1, 9, 9), &[(1, 2), (3, 3)]);
        let plan = reconcile(&db, Some(&mirror(meta(1, 8, 8), &[(1, 1), (2, 2)])), 1).unwrap();
        assert_eq!(plan.vital, vital(&[(1, 2), (3, 3)]));
        assert!(plan.write_mirror && !plan.write_database && plan.alarms.is_empty());
    }

    #[test]
    fn a_lost_tail_takes_the_vital_records_from_the_mirror() {
        let db = loaded(meta(1, 5, 4), &[(1, 1), (9, 9)]);
        let plan = reconcile(&db, Some(&mirror(meta(1, 8, 8), &[(1, 2), (2, 2)])), 1).unwrap();
        assert_eq!(plan.vital, vital(&[(1, 2), (2, 2)]));
        assert_eq!(plan.writes.len(), 3, "a revoked phone must not come back");
        assert_eq!(plan.meta, meta(1, 9, 8));
        assert_eq!(plan.restored, 3);
        assert_eq!(plan.alarms, [Alarm::TailLost { expected: 8, found: 5 }]);
    }

    #[test]
    fn a_lost_tail_of_ordinary_records_leaves_the_vital_ones() {
        let db = loaded(meta(1, 5, 4), &[(1, 1)]);
        let plan = reconcile(&db, Some(&mirror(meta(1, 8, 4), &[(1, 1)])), 1).unwrap();
        assert_eq!((plan.restored, plan.alarms.len()), (0, 1));
        assert_eq!(plan.meta, meta(1, 9, 4), "numbers are not used twice");
        assert!(plan.write_database && plan.write_mirror);
    }

    #[test]
    fn equal_numbers_with_other_records_are_damage() {
        let db = loaded(meta(1, 5, 4), &[(1, 7)]);
        let plan = reconcile(&db, Some(&mirror(meta(1, 5, 4), &[(1, 1)])), 1).unwrap();
        assert_eq!(plan.vital, vital(&[(1, 1)]));
        assert_eq!(plan.alarms, [Alarm::VitalDamaged { restored: 1, lost: 0 }]);
    }

    #[test]
    fn damaged_records_come_from_a_mirror_even_if_it_is_behind() {
        let mut db = loaded(meta(1, 5, 5), &[(1, 7)]);
        db.damaged = vec![vec![b'v', 2], vec![b'v', 3]];
        let older = mirror(meta(1, 4, 4), &[(1, 1), (2, 2)]);
        let plan = reconcile(&db, Some(&older), 1).unwrap();
        assert_eq!(plan.vital, vital(&[(1, 7), (2, 2)]));
        assert_eq!(plan.writes.get([b'v', 3].as_slice()), Some(&None));
        assert_eq!(plan.alarms, [Alarm::VitalDamaged { restored: 1, lost: 1 }]);
    }

    #[test]
    fn a_lost_migration_makes_the_database_unusable() {
        let db = loaded(meta(1, 5, 4), &[]);
        assert!(reconcile(&db, Some(&mirror(meta(2, 8, 8), &[])), 2).is_err());
        // Not so where the migration just did not reach the mirror.
        let db = loaded(meta(2, 9, 9), &[]);
        assert!(reconcile(&db, Some(&mirror(meta(1, 8, 8), &[])), 2).is_ok());
    }

    #[test]
    fn a_new_database_takes_everything_from_the_mirror() {
        let old = mirror(meta(3, 70, 12), &[(1, 1), (2, 2)]);
        let plan = reconcile(&Loaded::default(), Some(&old), 5).unwrap();
        assert_eq!(plan.meta, meta(3, 70, 12), "the old schema, to be migrated");
        assert_eq!(plan.vital, old.vital);
        assert_eq!((plan.restored, plan.writes.len()), (2, 2));
        assert!(plan.write_database);
    }

    fn records() -> impl Strategy<Value = Vec<(u8, u8)>> {
        prop::collection::vec((0u8..6, any::<u8>()), 0..6)
    }

    proptest! {
        #[test]
        fn a_second_look_finds_nothing_to_do(
            db in prop::option::of((1u64..9, 0u64..9, records())),
            damaged in prop::collection::vec(6u8..9, 0..2),
            old in prop::option::of((1u64..9, 0u64..9, records())),
        ) {
            let db = db.map_or_else(Loaded::default, |(commit, vital_commit, records)| Loaded {
                damaged: damaged.iter().map(|key| vec![b'v', *key]).collect(),
                ..loaded(meta(1, commit, vital_commit.min(commit)), &records)
            });
            let old = old.map(|(commit, vital_commit, records)| {
                mirror(meta(1, commit, vital_commit.min(commit)), &records)
            });
            let plan = reconcile(&db, old.as_ref(), 1).unwrap();
            // Carry it out.
            let mut after = db.vital.clone();
            after.apply(&plan.writes);
            prop_assert_eq!(&after, &plan.vital);
            let db = Loaded { meta: Some(plan.meta), vital: after, damaged: Vec::new() };
            let old = if plan.write_mirror {
                Some(Mirror { meta: plan.meta, vital: plan.vital.clone() })
            } else {
                old
            };
            let again = reconcile(&db, old.as_ref(), 1).unwrap();
            prop_assert!(!again.write_database && !again.write_mirror, "{:?}", again);
            prop_assert!(again.alarms.is_empty() && again.restored == 0);
            prop_assert_eq!(again.vital, plan.vital);
        }
    }
}
