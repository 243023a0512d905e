//! A part of `make powercut` that takes about a minute.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use farm_powercut::campaign::{power_cuts, scratch};
use farm_powercut::shim::Shim;
use farm_powercut::{faults, kill};

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_powercut"))
}

fn place() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("powercut").tempdir_in(scratch()).unwrap()
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    let outcome = power_cuts(program(), 2000, 1, None).unwrap();
    assert_eq!(outcome.cuts, 2000);
    assert!(outcome.readings > 100_000, "only {} readings were looked for", outcome.readings);
    assert!(
        outcome.failures.is_empty(),
        "{} failures: {:#?}",
        outcome.failures.len(),
        &outcome.failures[..outcome.failures.len().min(5)]
    );
}

#[test]
fn a_missing_fsync_is_caught() {
    let outcome = power_cuts(program(), 100, 1, Some("/db")).unwrap();
    assert!(outcome.failures.len() > 10, "only {} of {} cuts", outcome.failures.len(), outcome.cuts);
}

#[test]
fn no_kill_loses_what_was_acknowledged() {
    // On a real disk.
    let place = tempfile::tempdir().unwrap();
    let outcome = kill::kills(program(), place.path(), 60, 1).unwrap();
    assert!(outcome.readings > 60, "{outcome:?}");
}

#[test]
fn flipped_bits_are_survived_and_told() {
    let place = place();
    let (tried, _) = faults::flipped_bits(place.path(), 12, 1).unwrap();
    assert!(tried >= 48, "{tried}");
}

#[test]
fn failing_calls_are_told_and_lose_nothing() {
    let place = place();
    let shim = Shim::build(place.path()).unwrap();
    for (at, fail) in
        ["fsync:60:1:5", "fsync:100:1000000:5", "pwrite:120:1:5", "pwrite:120:3:28"].iter().enumerate()
    {
        for rests in [false, true] {
            let dir: PathBuf = place.path().join(format!("{at}-{rests}"));
            let recorded = faults::failing_calls(&shim, program(), &dir, fail, rests).unwrap();
            assert!(recorded > 5, "{fail}, rests: {rests}: {recorded}");
        }
    }
}

#[test]
fn a_full_disk_and_a_read_only_one_are_waited_for() {
    if !faults::may_mount() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let place = place();
    assert!(faults::full_disk(place.path()).unwrap() > 100);
    faults::read_only(place.path()).unwrap();
}
