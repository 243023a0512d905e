//! The log of readings over a real store: numbers, restarts, pruning, gaps,
//! times, and what local programs say and are answered.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod socket;

use std::path::{Path, PathBuf};
use std::time::Duration;

use farm_agent::readings::block::{MAX_BYTES, READING_BYTES, Sample};
use farm_agent::readings::handle::{MAX_SAMPLES, Readings, Settings};
use farm_agent::readings::log::Limits;
use farm_agent::readings::query::{Item, Page};
use farm_agent::readings::tables::{BLOCKS, BOOTS, BootRecord, FIRST};
use farm_agent::readings::writer;
use farm_protocol::readings::{Clock as Worth, Gap, GapReason, Reading};
use farm_store::{Batch, OpenReport, Options, Store};
use farm_tunnel::clock::{BUILD_TIME, Clock};
use farm_tunnel::executor::spawn;
use farm_tunnel::progress::Beat;
use smol::future::block_on;

const LIMITS: Limits = Limits { bytes: 16_000_000, age: Duration::from_secs(400 * 86_400) };

pub(crate) fn settings() -> Settings {
    Settings { limits: LIMITS, interval: Duration::ZERO }
}

/// A running log in a directory.
pub(crate) struct Running {
    pub(crate) readings: Readings,
    pub(crate) store: Store,
    pub(crate) report: OpenReport,
    ended: smol::Task<()>,
}

impl Running {
    pub(crate) fn start(path: &Path, settings: Settings, clock: Clock) -> Self {
        let options = Options { schema: 1, wall_time: 1_790_000_000, ..Options::default() };
        let (store, report) = farm_store::open(path, options).unwrap();
        let opened = writer::open(&store, &report, clock, settings).unwrap();
        let readings = opened.readings.clone();
        Self { readings, store, report, ended: spawn(opened.run(Beat::unwatched())) }
    }

    fn record(&self, name: &str, value: f64) -> u64 {
        block_on(self.readings.record(vec![sample(name, value)])).unwrap()
    }

    /// Ends as the agent does when it is told to stop.
    pub(crate) fn stop(self) {
        block_on(async {
            self.readings.stop().await;
            self.ended.await;
            self.store.close().await;
        });
    }

    /// Ends like a program that is killed: what is durable is on the disk, and
    /// nothing is said in parting.
    fn kill(self) {
        block_on(async {
            self.ended.cancel().await;
            self.store.close().await;
        });
    }

    /// Everything after a number, to the end.
    fn all(&self, after: u64) -> Vec<Item> {
        let (mut at, mut items) = (after, Vec::new());
        loop {
            let Page { items: more, upto } = block_on(self.readings.page(at)).unwrap();
            items.extend(more);
            if upto == at {
                return items;
            }
            at = upto;
        }
    }

    fn values(&self, after: u64) -> Vec<(u64, f64)> {
        let of = |item| match item {
            Item::Readings(readings) => readings.into_iter().map(|r| (r.sequence, r.value)).collect(),
            Item::Gap(_) => Vec::new(),
        };
        self.all(after).into_iter().flat_map(of).collect()
    }

    fn gaps(&self, after: u64) -> Vec<(u64, u64, GapReason)> {
        let of = |item| match item {
            Item::Gap(Gap { first, last, reason }) => Some((first, last, reason)),
            Item::Readings(_) => None,
        };
        self.all(after).into_iter().filter_map(of).collect()
    }
}

pub(crate) fn sample(name: &str, value: f64) -> Sample {
    Sample::new(name.to_owned(), value, None).unwrap()
}

pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    (dir, path)
}

#[test]
fn what_was_recorded_is_there_after_a_restart_and_numbers_go_on() {
    let (_dir, path) = place();
    let log = Running::start(&path, settings(), Clock::new());
    for n in 1..=100 {
        assert_eq!(log.record("x", n as f64), n);
    }
    let expected: Vec<_> = (1..=100).map(|n| (n, n as f64)).collect();
    assert_eq!(log.values(0), expected);
    assert_eq!(log.values(93), expected[93..]);
    log.stop();

    let log = Running::start(&path, settings(), Clock::new());
    assert_eq!(log.values(0), expected);
    assert_eq!(log.record("x", 101.0), 101, "an end in good order leaves no hole");
    log.kill();

    let log = Running::start(&path, settings(), Clock::new());
    let next = log.record("x", 102.0);
    assert!(next > 101);
    let values = log.values(100);
    assert_eq!(values, [(101, 101.0), (next, 102.0)]);
    assert_eq!(log.gaps(0), [], "numbers that were left out are no gap");
    log.stop();
}

#[test]
fn many_writers_share_commits_and_get_different_numbers() {
    let (_dir, path) = place();
    let log = Running::start(&path, settings(), Clock::new());
    let writers: Vec<_> = (0..100)
        .map(|writer| {
            let readings = log.readings.clone();
            spawn(async move {
                let mut given = Vec::new();
                for n in 0..20 {
                    let value = f64::from(writer * 1000 + n);
                    given.push((readings.record(vec![sample("x", value)]).await.unwrap(), value));
                }
                given
            })
        })
        .collect();
    let mut given: Vec<_> = writers.into_iter().flat_map(block_on).collect();
    given.sort_by_key(|(number, _)| *number);
    assert_eq!(log.values(0), given);
    assert_eq!(given.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (1..=2000).collect::<Vec<_>>());
    let groups = log.store.counters().groups;
    assert!(groups < 1000, "{groups} commits for 2000 readings");
    log.stop();
}

#[test]
fn a_full_request_of_the_longest_readings_is_one_commit() {
    let (_dir, path) = place();
    let log = Running::start(&path, settings(), Clock::new());
    let long = Sample::new("n".repeat(64), 0.1, Some("u".repeat(16))).unwrap();
    assert!(long.bytes() * MAX_SAMPLES > MAX_BYTES + READING_BYTES, "more than one block");
    let first = block_on(log.readings.record(vec![long; MAX_SAMPLES])).unwrap();
    assert_eq!((first, log.values(0).len()), (1, MAX_SAMPLES));
    log.stop();
}

#[test]
fn the_oldest_are_pruned_and_followers_are_told() {
    let (_dir, path) = place();
    let small = Settings { limits: Limits { bytes: 40_000, ..LIMITS }, ..settings() };
    let log = Running::start(&path, small, Clock::new());
    let mut last = 0;
    for n in 0..100 {
        let many: Vec<_> = (0..20).map(|i| sample("x", f64::from(n * 20 + i))).collect();
        last = block_on(log.readings.record(many)).unwrap() + 19;
    }
    assert_eq!(last, 2000);
    let standing = log.readings.standing();
    assert!(standing.pruned > 500 && standing.bytes <= 42_000, "{standing:?}");
    let kept = log.store.get(&FIRST, &()).unwrap().unwrap();
    assert_eq!(kept, standing.pruned + 1);
    assert_eq!(log.gaps(0), [(1, kept - 1, GapReason::Pruned)]);
    assert_eq!(log.gaps(5), [(6, kept - 1, GapReason::Pruned)]);
    assert_eq!(log.gaps(kept - 1), []);
    let values = log.values(0);
    assert_eq!((values[0].0, values.len() as u64), (kept, 2000 - kept + 1));
    log.stop();

    // The count of what is there is taken up by the next start.
    let log = Running::start(&path, small, Clock::new());
    for n in 0..100 {
        block_on(log.readings.record((0..20).map(|i| sample("x", f64::from(n * 20 + i))).collect())).unwrap();
    }
    let kept = log.store.get(&FIRST, &()).unwrap().unwrap();
    assert!(kept > 1500, "{kept}");
    assert_eq!(log.gaps(0), [(1, kept - 1, GapReason::Pruned)]);
    log.stop();
}

#[test]
fn what_the_card_lost_is_a_gap_that_says_so() {
    let (_dir, path) = place();
    let log = Running::start(&path, settings(), Clock::new());
    for n in 1..=30 {
        log.record("x", f64::from(n));
    }
    let mut batch = Batch::new();
    for n in 11..=13 {
        batch.remove(&BLOCKS, &n).unwrap();
    }
    log.store.commit_blocking(batch).unwrap();
    assert_eq!(log.gaps(0), [(11, 13, GapReason::Damaged)]);
    assert_eq!(log.gaps(12), [(13, 13, GapReason::Damaged)]);
    assert_eq!(log.values(9).first(), Some(&(10, 10.0)));
    log.stop();

    // The whole database: the numbers are known from the mirror.
    for name in ["store/db", "store/conf"] {
        std::fs::write(path.join(name), b"not a database").unwrap();
    }
    let log = Running::start(&path, settings(), Clock::new());
    assert!(!log.report.alarms.is_empty());
    let next = log.record("x", 31.0);
    assert_eq!(next, 31);
    assert_eq!(log.all(10).len(), 2);
    assert_eq!(log.gaps(10), [(11, 30, GapReason::Damaged)]);
    log.stop();
}

fn readings(log: &Running) -> Vec<Reading> {
    let of = |item| match item {
        Item::Readings(readings) => readings,
        Item::Gap(_) => Vec::new(),
    };
    log.all(0).into_iter().flat_map(of).collect()
}

#[test]
fn times_become_right_once_the_clock_is() {
    let (_dir, path) = place();
    let clock = Clock::new();
    let log = Running::start(&path, settings(), clock.clone());
    // Whatever this machine has: here nobody vouches for the clock.
    clock.synchronized(false);
    log.record("before", 1.0);
    let guessed = &readings(&log)[0];
    assert_eq!(guessed.clock, Worth::Guessed);
    assert!(Duration::from_millis(guessed.time) >= BUILD_TIME, "never before the build");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    clock.told(now);
    log.record("after", 2.0);
    let both = readings(&log);
    assert_eq!((both[0].clock, both[1].clock), (Worth::Corrected, Worth::Set));
    for reading in &both {
        let off = Duration::from_millis(reading.time).abs_diff(now);
        assert!(off < Duration::from_secs(5), "{reading:?} is off by {off:?}");
    }
    assert!(both[0].time <= both[1].time + 2, "{both:?}");
    log.stop();

    // The same boot goes on after a restart of the agent, and another does not.
    let clock = Clock::new();
    let log = Running::start(&path, settings(), clock.clone());
    clock.synchronized(false);
    log.record("again", 3.0);
    assert_eq!(readings(&log)[2].clock, Worth::Corrected);
    let mut batch = Batch::new();
    let other = BootRecord { id: serde_bytes::ByteArray::new([7; 16]), began: None };
    batch.put(&BOOTS, &2, &other).unwrap();
    log.store.commit_blocking(batch).unwrap();
    log.stop();
    let clock = Clock::new();
    let log = Running::start(&path, settings(), clock.clone());
    clock.synchronized(false);
    log.record("another boot", 4.0);
    assert_eq!(readings(&log)[3].clock, Worth::Guessed);
    log.stop();
}

#[test]
fn a_log_that_cannot_write_says_so_and_goes_on_when_it_can() {
    let (_dir, path) = place();
    let log = Running::start(&path, settings(), Clock::new());
    log.record("x", 1.0);
    block_on(log.store.clone().close());
    let refused = block_on(log.readings.record(vec![sample("x", 2.0)])).unwrap_err();
    assert!(refused.to_string().starts_with("not recorded: "), "{refused}");
    assert_eq!(log.readings.standing().failed, 1);
    assert_eq!(log.readings.newest(), 1, "what was refused is not shown");
    log.stop();
    let log = Running::start(&path, settings(), Clock::new());
    let next = log.record("x", 3.0);
    assert_eq!(log.values(0), [(1, 1.0), (next, 3.0)]);
    log.stop();
}
