//! Flipped bits and cut files: the store opens, what is vital is there, and
//! whoever lost something is told.

use std::{collections::BTreeMap, fs};

use farm_store::{Alarm, Error, Store};

use crate::common::{Numbers, PHONES, READINGS, State, all, put, wait_until};

/// Flips per file, enough to meet each kind of damage; `FARM_STORE_FLIPS` for
/// more.
const FLIPS: u64 = 12;

struct Written {
    name: &'static str,
    state: State,
    phones: BTreeMap<u64, String>,
    readings: BTreeMap<u64, String>,
}

impl Written {
    /// So many commits in one session, closed. sled's file is a log in segments
    /// of 512 KiB.
    fn in_one_session(name: &'static str, commits: u64, words: u64) -> Self {
        let mut written =
            Written { name, state: State::new(), phones: BTreeMap::new(), readings: BTreeMap::new() };
        let (store, _) = written.state.open();
        let mut numbers = Numbers(7);
        for i in 0..commits {
            let text = format!("{i} ").repeat(1 + numbers.below(words) as usize);
            let key = numbers.below(120);
            put(&store, &READINGS, key, &text);
            written.readings.insert(key, text);
            if i % 50 == 7 {
                put(&store, &PHONES, i % 9, &format!("phone {i}"));
                written.phones.insert(i % 9, format!("phone {i}"));
            }
        }
        store.close_blocking();
        written
    }

    /// And one more session, so that sled writes a snapshot.
    fn and_another(mut self) -> Self {
        let (store, _) = self.state.open();
        put(&store, &READINGS, 1000, "the newest");
        self.readings.insert(1000, "the newest".to_owned());
        store.close_blocking();
        self
    }

    fn all() -> [Self; 3] {
        [
            Self::in_one_session("one session", 300, 30),
            Self::in_one_session("two sessions", 300, 30).and_another(),
            Self::in_one_session("many segments", 1500, 500).and_another(),
        ]
    }
}

fn files_of(state: &State) -> Vec<String> {
    let mut files: Vec<String> = ["store/db", "store/conf", "store/ok", "vital.cbor", "vital.cbor.1", "lock"]
        .map(str::to_owned)
        .into();
    for path in state.snapshots() {
        let name = path.strip_prefix(state.path()).expect("a path inside");
        files.push(name.to_string_lossy().into_owned());
    }
    files
}

/// What a look at a damaged store gave.
struct Outcome {
    alarms: Vec<Alarm>,
    readings: BTreeMap<u64, String>,
    phones: BTreeMap<u64, String>,
}

fn read_through_damage(store: &Store) -> BTreeMap<u64, String> {
    match store.range(&READINGS, .., usize::MAX) {
        Ok(records) => records.into_iter().collect(),
        Err(Error::Unavailable { .. }) => {
            wait_until("the store is back after a damaged read", || {
                store.counters().reopens > 0 && store.trouble().is_none()
            });
            all(store, &READINGS)
        }
        Err(other) => panic!("{other}"),
    }
}

fn look(state: &State) -> Outcome {
    let (store, report) = state.open();
    let readings = read_through_damage(&store);
    let mut alarms = report.alarms;
    alarms.extend(store.take_alarms());
    let phones = all(&store, &PHONES);
    // It works, and keeps what it is given.
    put(&store, &READINGS, 2000, "after");
    assert_eq!(store.get(&READINGS, &2000), Ok(Some("after".to_owned())));
    store.close_blocking();
    Outcome { alarms, readings, phones }
}

fn check(written: &Written, what: &str, damage: impl FnOnce(&State)) -> Outcome {
    let what = format!("{}: {what}", written.name);
    let state = written.state.copy();
    damage(&state);
    let outcome = look(&state);
    assert_eq!(outcome.phones, written.phones, "{what}: {:?}", outcome.alarms);
    if outcome.readings != written.readings {
        assert!(!outcome.alarms.is_empty(), "{what}: lost without an alarm");
    }
    // The second open has nothing left to say.
    let again = look(&state);
    assert_eq!(again.alarms, [], "{what}, opened again");
    assert_eq!(again.phones, written.phones, "{what}, opened again");
    assert!(again.readings.contains_key(&2000), "{what}, opened again");
    outcome
}

fn tries() -> u64 {
    std::env::var("FARM_STORE_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(FLIPS)
}

/// sled's file is mostly empty: aim at what is written.
fn used(contents: &[u8]) -> u64 {
    contents.iter().rposition(|byte| *byte != 0).map_or(1, |last| last as u64 + 1)
}

#[test]
fn a_flipped_bit_in_any_file_costs_nothing_vital_and_nothing_silently() {
    let flips = tries();
    let mut numbers = Numbers(99);
    for written in Written::all() {
        for file in files_of(&written.state) {
            let contents = fs::read(written.state.file(&file)).expect("a file");
            let used = used(&contents);
            let (mut alarmed, mut lost) = (0, 0);
            for _ in 0..flips {
                let bit = numbers.below(used * 8);
                let outcome = check(&written, &format!("{file}, bit {bit}"), |state| {
                    let mut contents = contents.clone();
                    contents[(bit / 8) as usize] ^= 1 << (bit % 8);
                    fs::write(state.file(&file), contents).expect("a damaged file");
                });
                alarmed += u64::from(!outcome.alarms.is_empty());
                lost += u64::from(outcome.readings != written.readings);
            }
            println!(
                "{}, {file}: {used} bytes used, {flips} flips, {alarmed} alarmed, {lost} lost readings",
                written.name
            );
            if file.starts_with("vital") || file.ends_with("conf") {
                assert_eq!(alarmed, flips, "{file}");
            }
        }
    }
}

#[test]
fn a_file_cut_short_costs_nothing_vital_and_nothing_silently() {
    let mut numbers = Numbers(5);
    for written in Written::all() {
        for file in files_of(&written.state) {
            let contents = fs::read(written.state.file(&file)).expect("a file");
            let random = (0..tries() / 4).map(|_| numbers.below(used(&contents)));
            for len in [0, contents.len() as u64 - 1].into_iter().chain(random) {
                check(&written, &format!("{file}, cut to {len}"), |state| {
                    fs::write(state.file(&file), &contents[..len as usize]).expect("a cut file");
                });
            }
        }
    }
}

#[test]
fn a_file_gone_costs_nothing_vital_and_nothing_silently() {
    for written in Written::all() {
        for file in files_of(&written.state) {
            check(&written, &format!("{file}, gone"), |state| {
                fs::remove_file(state.file(&file)).expect("a file to remove");
            });
        }
    }
}
