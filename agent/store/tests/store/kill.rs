//! kill -9 while commits are under way. The killed process is this test binary
//! itself, running `child_writes_until_killed`.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use farm_store::{Batch, OpenError, Store};

use crate::common::{Numbers, PHONES, READINGS, State, all, options};

/// Tells the child where to write; without it the child test does nothing.
const DIRECTORY: &str = "FARM_STORE_KILL_TEST";
const CYCLES: u64 = 8;

/// Commit `n` holds reading `n`, and every fifth one the phone `n / 5`.
fn commit(store: &Store, n: u64) {
    let mut batch = Batch::new();
    batch.put(&READINGS, &n, &format!("reading {n}").repeat(20)).expect("a small record");
    if n.is_multiple_of(5) {
        batch.put(&PHONES, &(n / 5), &format!("phone {n}")).expect("a small record");
    }
    store.commit_blocking(batch).expect("a commit");
}

#[test]
#[ignore = "the other half of `acknowledged_commits_survive_kill`"]
fn child_writes_until_killed() {
    let path = PathBuf::from(std::env::var_os(DIRECTORY).expect("run by the other test"));
    let (store, report) = farm_store::open(&path, options(1)).expect("the store always opens");
    assert_eq!(report.alarms, []);
    let next = store.last(&READINGS).expect("readable").map_or(0, |(n, _)| n + 1);
    for n in next.. {
        commit(&store, n);
        println!("acknowledged {n}");
    }
}

fn start(state: &State) -> (Child, impl Iterator<Item = u64>) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "kill::child_writes_until_killed"])
        .args(["--ignored", "--nocapture"])
        .env(DIRECTORY, state.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let acknowledged = lines.map_while(Result::ok).filter_map(|line| {
        // The harness may print its own words on the same line.
        line.rsplit_once("acknowledged ")?.1.parse().ok()
    });
    (child, acknowledged)
}

#[test]
fn acknowledged_commits_survive_kill() {
    let state = State::new();
    let mut numbers = Numbers(41);
    for cycle in 0..CYCLES {
        let (mut child, mut acknowledged) = start(&state);
        let wanted = 1 + numbers.below(60) as usize;
        let seen = acknowledged.nth(wanted - 1);
        // While it holds the directory, nobody else gets it, and at once.
        let started = Instant::now();
        let refused = farm_store::open(&state.path(), options(1)).expect_err("held");
        assert!(
            matches!(refused, OpenError::InUse { pid: Some(pid), .. } if pid == child.id()),
            "cycle {cycle}: {refused}"
        );
        assert!(started.elapsed() < Duration::from_secs(4), "cycle {cycle}");
        child.kill().expect("kill");
        child.wait().expect("wait");
        // What it said before it died.
        let last = acknowledged.last().or(seen).expect("an acknowledgement");

        let (store, report) = state.open();
        assert_eq!(report.alarms, [], "cycle {cycle}");
        let readings = all(&store, &READINGS);
        let there = readings.last_key_value().map(|(n, _)| *n).expect("readings");
        assert!(there == last || there == last + 1, "cycle {cycle}: acknowledged {last}, there {there}");
        assert!(readings.keys().copied().eq(0..=there), "cycle {cycle}: a gap");
        let phones = all(&store, &PHONES);
        assert!(phones.keys().copied().eq(0..=there / 5), "cycle {cycle}");
        store.close_blocking();
    }
}
