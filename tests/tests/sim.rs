//! The simulation as a test, and tests of the test: runs repeat exactly, and
//! deliberate defects are caught.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use farm_tests::sim::{Mutation, Options, Total, report, run};

/// Seeds of every `make test`.
const SEEDS: u64 = 10_000;

/// Seeds within which each defect must be caught: about ten times what the
/// shyest of them needs.
const CAUGHT_WITHIN: u64 = 600;

/// Runs seeds on all cores; gives the sums and the lowest seed that failed.
fn run_all(seeds: u64, options: Options) -> (Total, Option<u64>) {
    let next = AtomicU64::new(0);
    let result = Mutex::new((Total::default(), None::<u64>));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || result.lock().unwrap().1.is_some() {
                        return;
                    }
                    let outcome = run(seed, options);
                    let mut result = result.lock().unwrap();
                    result.0.add(&outcome);
                    if outcome.violation.is_some() {
                        result.1 = Some(result.1.map_or(seed, |other| other.min(seed)));
                    }
                }
            });
        }
    });
    result.into_inner().unwrap()
}

#[test]
fn whatever_fails_heals_itself() {
    let (total, failed) = run_all(SEEDS, Options::default());
    println!("{total}");
    if let Some(seed) = failed {
        panic!("{}", report(seed, Options::default()));
    }
    // The runs must be worth something.
    let stats = total.stats();
    assert!(stats.carriers > 2 * SEEDS && stats.streams > 2 * SEEDS && stats.faults > 3 * SEEDS, "{total}");
    assert!(stats.upgrades > SEEDS / 10, "{total}");
    assert!(stats.resets > SEEDS / 10 && stats.bytes > 100_000 * SEEDS, "{total}");
}

#[test]
fn a_seed_repeats_exactly() {
    let options = Options { story: true, ..Options::default() };
    for seed in [0, 1, 7, 42, 1_000_003] {
        let (first, second) = (run(seed, options), run(seed, options));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.story, second.story, "seed {seed}");
        let silent = run(seed, Options::default());
        assert_eq!(first.hash, silent.hash, "seed {seed}: telling the story changes it");
    }
    assert_ne!(run(1, options).hash, run(2, options).hash);
}

#[test]
fn every_deliberate_defect_is_caught() {
    for mutation in Mutation::ALL {
        let options = Options { mutation: Some(mutation), ..Options::default() };
        let (_, caught) = run_all(CAUGHT_WITHIN, options);
        let Some(seed) = caught else { panic!("{mutation} was not caught within {CAUGHT_WITHIN} seeds") };
        println!("{mutation} is caught by seed {seed}");
    }
}
