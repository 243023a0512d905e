//! What the tests share.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use farm_store::{Batch, OpenReport, Options, Store, Table};
use tempfile::TempDir;

pub(crate) const PHONES: Table<u64, String> = Table::vital("phones");
pub(crate) const READINGS: Table<u64, String> = Table::new("readings");

/// Longer than any stalled disk.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn options(schema: u32) -> Options {
    Options { schema, wall_time: 1_790_000_000, ..Options::default() }
}

/// A state directory that goes away with it.
pub(crate) struct State {
    pub(crate) dir: TempDir,
}

impl State {
    pub(crate) fn new() -> Self {
        State { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Opens it; that it opens is what most tests are about.
    pub(crate) fn open(&self) -> (Store, OpenReport) {
        farm_store::open(&self.path(), options(1)).expect("the store always opens")
    }

    /// A copy of the files, as after pulling the card out.
    pub(crate) fn copy(&self) -> State {
        let copy = State::new();
        copy_dir(&self.path(), &copy.path());
        copy
    }

    /// sled's snapshots: at most one.
    pub(crate) fn snapshots(&self) -> Vec<PathBuf> {
        fs::read_dir(self.file("store"))
            .expect("sled's directory")
            .map(|entry| entry.expect("a readable entry").path())
            .filter(|path| path.to_string_lossy().contains("/snap."))
            .collect()
    }

    /// Names in the directory that begin so.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path())
            .expect("a readable directory")
            .map(|entry| {
                let name = entry.expect("a readable entry").file_name();
                name.into_string().expect("a name of ours")
            })
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("a readable directory") {
        let entry = entry.expect("a readable entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

pub(crate) fn put(store: &Store, table: &Table<u64, String>, key: u64, value: &str) {
    let mut batch = Batch::new();
    batch.put(table, &key, &value.to_owned()).expect("a small record");
    store.commit_blocking(batch).expect("a commit");
}

pub(crate) fn all(store: &Store, table: &Table<u64, String>) -> BTreeMap<u64, String> {
    let records = store.range(table, .., usize::MAX);
    records.expect("readable records").into_iter().collect()
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Random numbers that are the same in every run (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
