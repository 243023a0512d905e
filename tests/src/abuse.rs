//! `make abuse`: the real broker under hostile traffic at the limit of one core,
//! with honest devices and a running tunnel beside it, and one table of what
//! they noticed.

mod attack;
mod cores;
mod honest;
mod plan;
mod relayed;
mod row;
mod siege;
mod trouble;
mod tunnel;

use std::process::ExitCode;
use std::time::{Duration, Instant};

pub use attack::{Orders, Report, run as attack};

use crate::bench::stop;
use crate::harness::{end_all, ending};

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long each attack lasts.
    pub each: Duration,
    /// Only the attacks whose name contains this.
    pub only: Option<String>,
    /// For what is random.
    pub seed: u64,
    /// Whether latencies that are more than doubled are a failure. On a machine
    /// that is busy with other things they say little.
    pub judge_latency: bool,
}

/// What the attacks are called, in their order.
pub fn names() -> impl Iterator<Item = &'static str> {
    plan::ATTACKS.iter().map(|attack| attack.name).chain(trouble::SCENARIOS.iter().map(|(name, _)| *name))
}

/// The whole run ends by itself after this, whatever happens.
const BOUND: Duration = Duration::from_secs(600);

/// Runs all attacks and prints the table. Fails when the broker did not stand
/// one of them, or honest devices noticed.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    if let Err(error) = stop::on_signal(end_all) {
        eprintln!("abuse: signals can't be caught, Ctrl-C would leave programs behind: {error}");
        return ExitCode::FAILURE;
    }
    match cores::leave_one() {
        Ok(true) => {}
        Ok(false) => {
            println!("one core for all: what the hostile traffic costs the others is not the broker's")
        }
        Err(error) => println!("all cores for all, {error}: latencies tell of the scheduler too"),
    }
    let bound = stop::Bound::set(BOUND);
    let start = Instant::now();
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| name.contains(only));
    let mut failed = Vec::new();
    let mut done = 0;
    let mut show = |row: row::Row| {
        print!("{row}");
        done += 1;
        if !row.problems.is_empty() {
            failed.push(row.name);
        }
    };
    let attacks: Vec<_> = plan::ATTACKS.iter().filter(|attack| wanted(attack.name)).collect();
    let mut result = Ok(());
    if !attacks.is_empty() {
        result = siege::run(options, &attacks, &mut show);
    }
    for (name, scenario) in trouble::SCENARIOS {
        if result.is_ok() && wanted(name) {
            result = scenario(name).map(&mut show);
        }
    }
    let reached = bound.lift();
    if let Err(error) = result {
        eprintln!("abuse: {error}");
        return ExitCode::FAILURE;
    }
    if ending() || reached {
        eprintln!("abuse: stopped before the end");
        return ExitCode::FAILURE;
    }
    if done == 0 {
        eprintln!("abuse: no attack's name contains {:?}", options.only.as_deref().unwrap_or_default());
        return ExitCode::FAILURE;
    }
    println!("{done} attacks in {:.0} s, seed {}", start.elapsed().as_secs_f64(), options.seed);
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("abuse: not as it must be: {}", failed.join(", "));
    ExitCode::FAILURE
}
