//! The simulation: a broker, farms and phones made of the product's own cores
//! on a virtual network and a virtual clock, from one seed. Faults, then
//! healing, then judgement; see docs/simulation.md.

pub mod broker;
pub mod carrier;
pub mod ctx;
pub mod device;
pub mod dispatch;
pub mod farm;
pub mod fault;
pub mod judge;
pub mod mutation;
pub mod net;
pub mod peer;
pub mod phone;
pub mod pipe;
pub mod rng;
pub mod scenario;
pub mod single;
pub mod story;
pub mod traffic;
pub mod trouble;
pub mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use ctx::{Stats, Violation};
pub use mutation::Mutation;

/// What to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Keep the story.
    pub story: bool,
    /// Build in a defect.
    pub mutation: Option<Mutation>,
    /// Leave these faults of the schedule out, by their places.
    pub without: u64,
}

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// A hash over everything that happened.
    pub hash: u64,
    /// The timeline, where it was asked for.
    pub story: Vec<String>,
    /// Counts.
    pub stats: Stats,
    /// Virtual time that went by.
    pub lasted: Duration,
    /// Faults in the schedule.
    pub faults: usize,
    /// The kind of the only fault, and how long after it the last session was
    /// live again.
    pub single: Option<(&'static str, Duration)>,
}

/// Runs one seed.
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut world = scenario::make(seed, options);
    world.run();
    let faults = world.faults.len();
    let single = world.single.map(|single| (single.name, world.ctx.stats.slowest));
    let ctx = world.ctx;
    Outcome {
        seed,
        hash: ctx.story.hash(),
        lasted: ctx.elapsed(),
        story: ctx.story.lines().to_vec(),
        stats: ctx.stats,
        violation: ctx.violation,
        faults,
        single,
    }
}

/// Sums over many seeds.
#[derive(Debug, Default)]
pub struct Total {
    seeds: u64,
    stats: Stats,
    lasted: Duration,
    failed: u64,
    singles: BTreeMap<&'static str, Vec<Duration>>,
}

impl Total {
    /// Counts one more.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.lasted += outcome.lasted;
        self.failed += u64::from(outcome.violation.is_some());
        let (sum, one) = (&mut self.stats, &outcome.stats);
        sum.events += one.events;
        sum.carriers += one.carriers;
        sum.upgrades += one.upgrades;
        sum.streams += one.streams;
        sum.resets += one.resets;
        sum.bytes += one.bytes;
        sum.faults += one.faults;
        sum.unbelieved += one.unbelieved;
        sum.slowest = sum.slowest.max(one.slowest);
        if let Some((name, took)) = outcome.single {
            self.singles.entry(name).or_default().push(took);
        }
    }

    /// Times from the end of a fault until data flows again, by its kind.
    pub fn table(&self) -> String {
        let mut table =
            format!("{:<26}{:>6}{:>9}{:>9}{:>9}\n", "one fault, watched", "runs", "p50 s", "p95 s", "max s");
        for (name, times) in &self.singles {
            let mut times = times.clone();
            times.sort_unstable();
            let at =
                |share: usize| times.get((times.len() - 1) * share / 100).map_or(0.0, Duration::as_secs_f64);
            let line =
                format!("{name:<26}{:>6}{:>9.2}{:>9.2}{:>9.2}\n", times.len(), at(50), at(95), at(100));
            table.push_str(&line);
        }
        table
    }

    /// The sums.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        write!(
            f,
            "{} seeds, {} failed: {} h of virtual time, {} events, {} faults, {} carriers, \
             {} tries at a direct one beside a relayed one, {} streams whole, {} reset, {} MB compared, {} signals not believed, live again after {:.1} s at most",
            self.seeds,
            self.failed,
            self.lasted.as_secs() / 3600,
            stats.events,
            stats.faults,
            stats.carriers,
            stats.upgrades,
            stats.streams,
            stats.resets,
            stats.bytes / 1_000_000,
            stats.unbelieved,
            stats.slowest.as_secs_f64(),
        )
    }
}

/// Runs a failing seed again for its story, without the faults that it does
/// not need, and says how to replay it.
pub fn report(seed: u64, options: Options) -> String {
    let options = shrink(seed, Options { story: true, ..options });
    let outcome = run(seed, options);
    let Some(violation) = &outcome.violation else {
        return format!("seed {seed} failed before and does not now: the simulation is not deterministic");
    };
    let mutation = options.mutation.map(|m| format!(" --mutation {m}")).unwrap_or_default();
    let left_out = options.without.count_ones();
    format!(
        "seed {seed}: the invariant \"{}\" does not hold at {:.3} s: {}\n\n{}\n\n\
         ({left_out} faults of the schedule were left out, it fails without them)\n\
         replay: cargo run --release -p farm-tests --bin sim -- --seed {seed} --story{mutation}",
        violation.invariant,
        violation.at.as_secs_f64(),
        violation.what,
        outcome.story.join("\n"),
    )
}

/// Leaves out one fault after the other while the same invariant fails.
fn shrink(seed: u64, options: Options) -> Options {
    let mut options = options;
    let Some(invariant) = run(seed, options).violation.map(|v| v.invariant) else { return options };
    for fault in 0..64 {
        let fewer = Options { without: options.without | (1 << fault), ..options };
        let outcome = run(seed, fewer);
        if outcome.faults == 0 && fault > 0 && outcome.violation.is_none() {
            continue;
        }
        if outcome.violation.is_some_and(|v| v.invariant == invariant) {
            options = fewer;
        }
        if fault >= 8 {
            break;
        }
    }
    options
}
