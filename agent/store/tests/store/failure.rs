//! Writing fails while the store is open.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use farm_store::{Batch, Error};

use crate::common::{PHONES, READINGS, State, all, options, put, wait_until};

#[test]
fn a_failed_commit_is_not_acknowledged_and_the_store_comes_back_by_itself() {
    let state = State::new();
    let (store, _) = state.open();
    put(&store, &PHONES, 1, "Ada");
    put(&store, &READINGS, 1, "21.5");
    // Nothing can be written under this name now.
    fs::create_dir(state.file("vital.cbor.new")).unwrap();
    let mut batch = Batch::new();
    batch.put(&PHONES, &2, &"Grace".to_owned()).unwrap();
    let refused = store.commit_blocking(batch.clone());
    assert!(matches!(refused, Err(Error::NotCommitted { .. })), "{refused:?}");

    // It keeps trying, says why, and acknowledges nothing.
    wait_until("the failed attempt to open it again is reported", || {
        store.trouble().is_some_and(|why| why.contains("vital.cbor.new"))
    });
    let mut reading = Batch::new();
    reading.put(&READINGS, &2, &"22.0".to_owned()).unwrap();
    let refused = store.commit_blocking(reading.clone());
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    assert!(matches!(store.get(&READINGS, &1), Err(Error::Unavailable { .. })));
    // Who we are is known all the time.
    assert_eq!(store.get(&PHONES, &1), Ok(Some("Ada".to_owned())));

    fs::remove_dir(state.file("vital.cbor.new")).unwrap();
    wait_until("the store is back", || store.trouble().is_none());
    assert_eq!(store.counters().reopens, 1);
    store.commit_blocking(batch).unwrap();
    store.commit_blocking(reading).unwrap();
    assert_eq!(all(&store, &PHONES).len(), 2);
    assert_eq!(store.take_alarms(), [], "the disk lost nothing");
    store.close_blocking();
    let (store, report) = state.open();
    assert_eq!(report.alarms, []);
    assert_eq!((all(&store, &PHONES).len(), all(&store, &READINGS).len()), (2, 2));
}

/// Tells the child where to write; without it the child test does nothing.
const DIRECTORY: &str = "FARM_STORE_FULL_TEST";

#[test]
#[ignore = "the other half of `what_was_acknowledged_is_there_after_the_disk_was_full`"]
fn child_writes_until_refused() {
    let path = PathBuf::from(std::env::var_os(DIRECTORY).expect("run by the other test"));
    let (store, _) = farm_store::open(&path, options(1)).expect("the store opens");
    for n in 0.. {
        let mut batch = Batch::new();
        batch.put(&READINGS, &n, &"x".repeat(4000)).expect("a small record");
        match store.commit_blocking(batch) {
            Ok(()) => println!("acknowledged {n}"),
            Err(Error::NotCommitted { why }) => {
                println!("refused: {why}");
                return;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// The limit on file sizes stands for the full disk: the same failed write, and
/// it needs no file system of its own.
#[test]
fn what_was_acknowledged_is_there_after_the_disk_was_full() {
    let state = State::new();
    let output = Command::new("sh")
        // In blocks of 512 bytes: 2 MiB, four of sled's segments.
        .args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "failure::child_writes_until_refused"])
        .args(["--ignored", "--nocapture"])
        .env(DIRECTORY, state.path())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("refused: "), "{said}");
    let acknowledged = said.matches("acknowledged ").count() as u64;
    assert!(acknowledged > 100, "{said}");

    let (store, report) = state.open();
    assert_eq!(report.alarms, []);
    let there = all(&store, &READINGS).len() as u64;
    assert!(there == acknowledged || there == acknowledged + 1, "acknowledged {acknowledged}, there {there}");
    put(&store, &READINGS, u64::MAX, "and on it goes");
}
