//! Group commit, bounds, and what a handle may expect.

use std::fs;

use farm_store::{Batch, Error, MAX_VALUE_BYTES, Table};
use smol::future;

use crate::common::{Numbers, PHONES, READINGS, State, all, put};

#[test]
fn batches_that_wait_together_share_an_fsync() {
    const WRITERS: u64 = 100;
    const EACH: u64 = 20;
    let state = State::new();
    let (store, _) = state.open();
    let before = store.counters();
    let executor = smol::LocalExecutor::new();
    future::block_on(executor.run(async {
        let tasks: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = store.clone();
                executor.spawn(async move {
                    for i in 0..EACH {
                        let mut batch = Batch::new();
                        batch.put(&READINGS, &(writer * EACH + i), &format!("{writer}/{i}"))?;
                        store.commit(batch).await?;
                        // Acknowledged: there.
                        assert!(store.get(&READINGS, &(writer * EACH + i))?.is_some());
                    }
                    Ok::<_, Error>(())
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }));
    let counters = store.counters();
    let groups = counters.groups - before.groups;
    assert_eq!(counters.batches - before.batches, WRITERS * EACH);
    assert!(groups * 10 <= WRITERS * EACH, "{groups} fsyncs for {} commits", WRITERS * EACH);
    assert_eq!(all(&store, &READINGS).len() as u64, WRITERS * EACH);
    assert!(store.bytes_written() > 0);
    store.close_blocking();
}

#[test]
fn one_batch_alone_is_one_fsync_and_an_empty_one_none() {
    let state = State::new();
    let (store, _) = state.open();
    for i in 0..10 {
        put(&store, &READINGS, i, "x");
    }
    store.commit_blocking(Batch::new()).unwrap();
    let counters = store.counters();
    assert_eq!((counters.groups, counters.batches), (10, 10));
    assert_eq!(counters.mirror_writes, 0);
    put(&store, &PHONES, 1, "Ada");
    assert_eq!(store.counters().mirror_writes, 1);
}

/// sled never fsyncs what it puts into `blobs/`. The bounds on keys and values
/// must keep every page out of there, whatever the mix.
#[test]
fn the_largest_records_never_become_blobs() {
    const LARGE: Table<(u64, String), serde_bytes::ByteBuf> = Table::new("large");
    let state = State::new();
    let (store, _) = state.open();
    let mut numbers = Numbers(3);
    let value = |n: u64| serde_bytes::ByteBuf::from(vec![n as u8; MAX_VALUE_BYTES - 3]);
    for round in 0..120 {
        let mut batch = Batch::new();
        for _ in 0..=numbers.below(14) {
            let key = (numbers.below(300), "k".repeat(240));
            if numbers.below(4) == 0 {
                batch.remove(&LARGE, &key).unwrap();
            } else {
                batch.put(&LARGE, &key, &value(round)).unwrap();
            }
        }
        store.commit_blocking(batch).unwrap();
        let blobs = fs::read_dir(state.file("store/blobs")).unwrap().count();
        assert_eq!(blobs, 0, "after round {round}");
    }
    store.close_blocking();
}

#[test]
fn pairs_are_found_by_their_first_part() {
    const SAMPLES: Table<([u8; 4], u64), u32> = Table::new("samples");
    const NAMES: Table<String, u32> = Table::new("names");
    let state = State::new();
    let (store, _) = state.open();
    let mut batch = Batch::new();
    for farm in [[0, 0, 0, 1], [0, 0, 0, 255], [1, 0, 0, 0]] {
        for i in 0..3u32 {
            batch.put(&SAMPLES, &(farm, u64::from(i)), &i).unwrap();
        }
    }
    for name in ["north", "northern", "nord", "south"] {
        batch.put(&NAMES, &name.to_owned(), &1).unwrap();
    }
    store.commit_blocking(batch).unwrap();
    let found = store.prefix(&SAMPLES, &[0u8, 0, 0, 255], 10).unwrap();
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|((farm, _), _)| *farm == [0, 0, 0, 255]));
    let found = store.prefix(&NAMES, &"nor".to_owned(), 10).unwrap();
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["nord", "north", "northern"]);
    assert_eq!(store.prefix(&NAMES, &"nor".to_owned(), 2).unwrap().len(), 2);
}

#[test]
fn a_record_of_another_type_is_an_error_and_no_damage() {
    const AS_TEXT: Table<u64, String> = Table::new("mixed");
    const AS_NUMBER: Table<u64, u64> = Table::new("mixed");
    let state = State::new();
    let (store, _) = state.open();
    put(&store, &AS_TEXT, 1, "x");
    assert!(matches!(store.get(&AS_NUMBER, &1), Err(Error::Decode { .. })));
    assert!(matches!(store.range(&AS_NUMBER, .., 9), Err(Error::Decode { .. })));
    assert_eq!(store.counters().damaged_values, 0);
    assert_eq!(store.take_alarms(), []);
}

#[test]
fn a_closed_store_says_so_and_opens_again_at_once() {
    let state = State::new();
    let (store, _) = state.open();
    let other = store.clone();
    put(&store, &PHONES, 1, "Ada");
    future::block_on(store.close());
    assert_eq!(other.get(&PHONES, &1), Err(Error::Closed));
    assert_eq!(other.get(&READINGS, &1), Err(Error::Closed));
    let mut batch = Batch::new();
    batch.put(&READINGS, &1, &"x".to_owned()).unwrap();
    assert_eq!(other.commit_blocking(batch), Err(Error::Closed));
    other.close_blocking();
    let (store, report) = state.open();
    assert_eq!(report.alarms, []);
    assert_eq!(store.get(&PHONES, &1), Ok(Some("Ada".to_owned())));
}

#[test]
fn what_was_queued_is_written_when_all_handles_are_gone() {
    let state = State::new();
    let (store, _) = state.open();
    let executor = smol::LocalExecutor::new();
    let mut waiting = Vec::new();
    for i in 0..50 {
        let store = store.clone();
        waiting.push(executor.spawn(async move {
            let mut batch = Batch::new();
            batch.put(&READINGS, &i, &"queued".to_owned()).unwrap();
            store.commit(batch).await
        }));
    }
    // Each future is polled once, so that its batch is queued, then dropped.
    while executor.try_tick() {}
    drop(waiting);
    drop(executor);
    drop(store);
    let (store, report) = state.open();
    assert_eq!(report.alarms, []);
    assert_eq!(all(&store, &READINGS).len(), 50);
}
