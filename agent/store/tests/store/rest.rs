//! Closing and opening under the feet of whoever uses the store.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use farm_store::{Alarm, Store};
use smol::future::block_on;

use crate::common::{PHONES, READINGS, State, all, put, wait_until};

/// Rests until it was done: a reader may be in the way.
fn rest(store: &Store) {
    wait_until("the store rests", || block_on(store.rest()));
}

fn record(store: &Store, keys: Range<u64>) {
    keys.for_each(|key| put(store, &READINGS, key, "21.5"));
}

#[test]
fn all_is_there_after_a_rest_and_writing_goes_on() {
    let state = State::new();
    let (store, _) = state.open();
    put(&store, &PHONES, 1, "Ada");
    for round in 0..5 {
        record(&store, round * 100..round * 100 + 100);
        rest(&store);
        assert_eq!(all(&store, &READINGS).len() as u64, round * 100 + 100);
        assert_eq!(all(&store, &PHONES).len(), 1);
    }
    assert_eq!((store.trouble(), store.take_alarms()), (None, Vec::new()));
    assert_eq!(store.counters().reopens, 0, "that counts failures");
    store.close_blocking();
    let (store, report) = state.open();
    assert_eq!((all(&store, &READINGS).len(), report.alarms), (500, Vec::new()));
}

#[test]
fn the_mark_in_the_mirror_is_new_as_after_a_close() {
    let state = State::new();
    let (store, _) = state.open();
    record(&store, 0..10);
    let older = state.copy();
    record(&store, 10..20);
    rest(&store);
    std::fs::copy(state.file("vital.cbor"), older.file("vital.cbor")).unwrap();
    let (_store, report) = older.open();
    assert!(matches!(report.alarms[..], [Alarm::TailLost { .. }]), "{:?}", report.alarms);
}

#[test]
fn readers_and_writers_notice_nothing_but_time() {
    let state = State::new();
    let (store, _) = state.open();
    record(&store, 0..1);
    let (durable, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            // Ended by the one below, also when that fails.
            while !done.load(Ordering::SeqCst) {
                let key = durable.load(Ordering::SeqCst) + 1;
                put(&store, &READINGS, key, "21.5");
                durable.store(key, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let least = durable.load(Ordering::SeqCst);
                let newest = store.last(&READINGS).expect("readable during a rest").map(|(key, _)| key);
                assert!(newest >= Some(least), "{newest:?} of {least}");
            }
        });
        let _ends = Ends(&done);
        (0..10).for_each(|_| rest(&store));
    });
    assert_eq!(all(&store, &READINGS).len() as u64, durable.load(Ordering::SeqCst) + 1);
    assert_eq!(store.take_alarms(), []);
}

#[test]
fn a_store_that_is_closed_does_not_rest() {
    let state = State::new();
    let (store, _) = state.open();
    store.clone().close_blocking();
    assert!(!block_on(store.rest()));
}

/// Sets a flag when it goes out of scope, also in a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
