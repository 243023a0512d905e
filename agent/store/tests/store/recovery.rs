//! What an open makes of directories that are unfinished, moved, newer, held,
//! or lost.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use farm_store::{Alarm, Batch, Error, OpenError, Vital};

use crate::common::{PHONES, READINGS, State, all, options, put};

fn two_phones() -> State {
    let state = State::new();
    let (store, report) = state.open();
    assert!(report.created && report.alarms.is_empty());
    put(&store, &PHONES, 1, "Ada");
    put(&store, &PHONES, 2, "Grace");
    put(&store, &READINGS, 1, "21.5");
    store.close_blocking();
    // sled writes its snapshot when it opens something new.
    state.open().0.close_blocking();
    state
}

/// Damage that sled notices.
fn damage_snapshot(state: &State) {
    let snapshots = state.snapshots();
    assert_eq!(snapshots.len(), 1);
    fs::write(&snapshots[0], "rubbish of some length").expect("a damaged file");
}

fn assert_phones(state: &State) -> Vec<Alarm> {
    let (store, report) = state.open();
    let expected = BTreeMap::from([(1, "Ada".to_owned()), (2, "Grace".to_owned())]);
    assert_eq!(all(&store, &PHONES), expected);
    store.close_blocking();
    report.alarms
}

#[test]
fn a_new_directory_is_private_and_an_ordinary_start_says_nothing() {
    let state = two_phones();
    let mode = fs::metadata(state.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(state.file("store/ok").exists());
    let (store, report) = state.open();
    assert!(!report.created);
    assert_eq!((report.schema, report.commits, report.vital_restored), (1, 3, 0));
    assert_eq!(report.alarms, []);
    assert_eq!(store.counters().mirror_writes, 0);
}

#[test]
fn a_creation_that_never_finished_is_moved_aside_without_alarm() {
    let state = State::new();
    fs::create_dir_all(state.file("store/blobs")).unwrap();
    fs::write(state.file("store/conf"), "segm").unwrap();
    fs::write(state.file("store/db"), [7; 100]).unwrap();
    let (store, report) = state.open();
    assert!(report.created);
    assert_eq!(report.alarms, []);
    put(&store, &PHONES, 1, "Ada");
    store.close_blocking();
    let aside = state.names("unfinished-");
    assert_eq!(aside, ["unfinished-1790000000"]);
    let kept = fs::read(state.path().join(&aside[0]).join("db")).unwrap();
    assert_eq!(kept, [7; 100]);
}

#[test]
fn a_vanished_marker_costs_no_vital_record_and_keeps_the_rest_aside() {
    let state = two_phones();
    fs::remove_file(state.file("store/ok")).unwrap();
    let alarms = assert_phones(&state);
    assert!(matches!(&alarms[..], [Alarm::Unfinished { to }] if to.join("db").exists()));
    assert_eq!(assert_phones(&state), []);
}

#[test]
fn a_vanished_database_is_noticed() {
    let state = two_phones();
    fs::remove_dir_all(state.file("store")).unwrap();
    assert_eq!(assert_phones(&state), [Alarm::DatabaseMissing]);
    assert_eq!(assert_phones(&state), []);
}

#[test]
fn a_torn_snapshot_is_nothing() {
    let state = two_phones();
    fs::write(state.file("store/snap.00000000000FFFFF.generating"), "torn").unwrap();
    assert_eq!(assert_phones(&state), []);
}

#[test]
fn an_older_database_under_a_newer_mirror_is_noticed() {
    let state = two_phones();
    let older = state.copy();
    let (store, _) = state.open();
    put(&store, &READINGS, 2, "22.0");
    let mut batch = Batch::new();
    batch.remove(&PHONES, &2).unwrap();
    batch.put(&PHONES, &3, &"Edsger".to_owned()).unwrap();
    store.commit_blocking(batch).unwrap();
    store.close_blocking();
    // Exactly what a damaged tail looks like.
    fs::copy(state.file("vital.cbor"), older.file("vital.cbor")).unwrap();
    let (store, report) = older.open();
    assert_eq!(report.alarms, [Alarm::TailLost { expected: 5, found: 3 }]);
    assert_eq!(report.vital_restored, 2);
    let expected = BTreeMap::from([(1, "Ada".to_owned()), (3, "Edsger".to_owned())]);
    assert_eq!(all(&store, &PHONES), expected, "a revoked phone must not come back");
    assert_eq!(all(&store, &READINGS).len(), 1);
}

#[test]
fn a_lost_tail_of_ordinary_commits_is_noticed() {
    let state = two_phones();
    let older = state.copy();
    let (store, _) = state.open();
    for i in 0..200 {
        put(&store, &READINGS, i, "22.0");
    }
    // Not closed in order: the mark is at most 64 commits old.
    let mirror = state.copy();
    drop(store);
    fs::copy(mirror.file("vital.cbor"), older.file("vital.cbor")).unwrap();
    let (_store, report) = older.open();
    assert!(
        matches!(report.alarms[..], [Alarm::TailLost { expected, found: 3 }] if expected > 203 - 64),
        "{:?}",
        report.alarms
    );
}

#[test]
fn a_damaged_mirror_is_written_anew() {
    for files in [vec!["vital.cbor"], vec!["vital.cbor.1"], vec!["vital.cbor", "vital.cbor.1"]] {
        let state = two_phones();
        for file in &files {
            fs::write(state.file(file), "rubbish").unwrap();
        }
        let alarms = assert_phones(&state);
        let damaged: Vec<String> = alarms
            .iter()
            .map(|alarm| match alarm {
                Alarm::MirrorDamaged { file, .. } => file.file_name().unwrap().to_string_lossy().into_owned(),
                other => panic!("{files:?}: {other}"),
            })
            .collect();
        assert_eq!(damaged, files);
        assert_eq!(assert_phones(&state), []);
        // It serves again.
        fs::remove_dir_all(state.file("store")).unwrap();
        assert_eq!(assert_phones(&state), [Alarm::DatabaseMissing]);
    }
}

#[test]
fn a_missing_mirror_is_noticed_and_written_anew() {
    let state = two_phones();
    fs::remove_file(state.file("vital.cbor")).unwrap();
    fs::remove_file(state.file("vital.cbor.1")).unwrap();
    let alarms = assert_phones(&state);
    assert!(matches!(&alarms[..], [Alarm::MirrorDamaged { .. }]), "{alarms:?}");
    assert_eq!(assert_phones(&state), []);
}

/// sled takes a file it can't make sense of for an empty one.
#[test]
fn a_database_of_rubbish_is_quarantined() {
    let state = two_phones();
    fs::write(state.file("store/db"), "rubbish").unwrap();
    fs::remove_file(&state.snapshots()[0]).unwrap();
    let alarms = assert_phones(&state);
    assert!(matches!(&alarms[..], [Alarm::Quarantined { .. }]), "{alarms:?}");
    assert_eq!(assert_phones(&state), []);
}

#[test]
fn with_everything_lost_it_still_opens_and_says_so() {
    let state = two_phones();
    for file in ["vital.cbor", "vital.cbor.1", "store/db"] {
        fs::write(state.file(file), "rubbish").unwrap();
    }
    damage_snapshot(&state);
    let (store, report) = state.open();
    assert!(report.created);
    assert!(report.alarms.contains(&Alarm::VitalLost), "{:?}", report.alarms);
    assert!(all(&store, &PHONES).is_empty());
    put(&store, &PHONES, 9, "Barbara");
    store.close_blocking();
    let (store, report) = state.open();
    assert_eq!(report.alarms, []);
    assert_eq!(store.get(&PHONES, &9), Ok(Some("Barbara".to_owned())));
    // For a look at it, and for whoever wants to try to save something.
    assert_eq!(state.names("corrupt-").len(), 1);
    assert!(state.file("vital.cbor.damaged").exists());
}

#[test]
fn only_the_newest_quarantines_are_kept() {
    let state = two_phones();
    for _ in 0..5 {
        damage_snapshot(&state);
        let alarms = assert_phones(&state);
        assert!(matches!(&alarms[..], [Alarm::Quarantined { .. }]), "{alarms:?}");
        assert_eq!(assert_phones(&state), []);
    }
    assert_eq!(state.names("corrupt-"), ["corrupt-1790000002", "corrupt-1790000003", "corrupt-1790000004"]);
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let state = State::new();
    let (store, _) = farm_store::open(&state.path(), options(7)).unwrap();
    put(&store, &PHONES, 1, "Ada");
    store.close_blocking();
    let refused = farm_store::open(&state.path(), options(6)).unwrap_err();
    assert!(matches!(refused, OpenError::NewerSchema { found: 7, supported: 6, .. }), "{refused}");
    assert!(!refused.may_pass());
    // Also when only one of the two copies can tell.
    let lone = state.copy();
    fs::remove_dir_all(lone.file("store")).unwrap();
    assert!(farm_store::open(&lone.path(), options(6)).is_err());
    let lone = state.copy();
    fs::remove_file(lone.file("vital.cbor")).unwrap();
    fs::remove_file(lone.file("vital.cbor.1")).unwrap();
    assert!(farm_store::open(&lone.path(), options(6)).is_err());
    let (store, report) = farm_store::open(&state.path(), options(7)).unwrap();
    assert_eq!(report.alarms, []);
    assert_eq!(store.get(&PHONES, &1), Ok(Some("Ada".to_owned())));
}

#[test]
fn a_migration_is_recorded_with_its_last_batch() {
    let state = two_phones();
    let (store, report) = farm_store::open(&state.path(), options(2)).unwrap();
    assert_eq!(report.schema, 1);
    let mut batch = Batch::new();
    batch.put(&READINGS, &1, &"migrated".to_owned()).unwrap();
    batch.migrated_to(2);
    store.commit_blocking(batch).unwrap();
    store.close_blocking();
    let (store, report) = farm_store::open(&state.path(), options(2)).unwrap();
    assert_eq!((report.schema, report.alarms), (2, vec![]));
    store.close_blocking();
    assert!(farm_store::open(&state.path(), options(1)).is_err());
    // The mirror knows too.
    fs::remove_dir_all(state.file("store")).unwrap();
    assert!(farm_store::open(&state.path(), options(1)).is_err());
}

#[test]
fn the_vital_records_can_be_read_while_the_store_cannot() {
    let state = two_phones();
    assert_eq!(Vital::read(&state.file("nowhere")).unwrap(), None);
    let (_held, _) = state.open();
    let vital = Vital::read(&state.path()).unwrap().unwrap();
    assert_eq!(vital.get(&PHONES, &2), Ok(Some("Grace".to_owned())));
    assert_eq!(vital.range(&PHONES, ..).unwrap().len(), 2);
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = vital.range(&PHONES, 9..2);
    assert_eq!(backwards, Ok(vec![]));
}

#[test]
fn two_stores_in_one_directory_are_refused() {
    let state = State::new();
    let (store, _) = state.open();
    let impatient = farm_store::Options { lock_wait: std::time::Duration::from_millis(50), ..options(1) };
    let refused = farm_store::open(&state.path(), impatient).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    assert!(refused.may_pass());
    // And the first one goes on.
    put(&store, &PHONES, 1, "Ada");
    assert_eq!(store.get(&PHONES, &1), Ok::<_, Error>(Some("Ada".to_owned())));
}
