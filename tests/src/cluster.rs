//! `make cluster-test`: three brokers over three nodes of NATS, all of it real,
//! with devices, a tunnel in use, and one thing after another that goes wrong.

mod crew;
mod engine;
mod enrolling;
mod scenarios;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::bench::stop;
use crate::harness::{HarnessError, end_all, ending};
use world::{RIGHT_WITHIN, World};

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// One kill of each kind, a short absence of NATS, and no judgement of
    /// latencies, which say little on a machine that is busy.
    pub quick: bool,
    /// Kills at random.
    pub kills: u32,
    /// For what is random.
    pub seed: u64,
}

/// What it takes to start, and each kill at most.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(60));

/// The lines that are printed, and what was wrong.
#[derive(Default)]
pub(crate) struct Report {
    wrong: Vec<String>,
}

impl Report {
    fn row(&mut self, what: &str, figures: String, wrong: Option<String>) {
        println!("{:<30} {figures}", what);
        if let Some(wrong) = wrong {
            println!("{:<30} WRONG: {wrong}", "");
            self.wrong.push(what.to_owned());
        }
    }
}

/// Runs everything and prints a line for each thing that happened. Fails when
/// one of them was not as it must be.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    if !engine::is_there() {
        println!("skipped: nats-server is not installed (apt-get install nats-server)");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = stop::on_signal(end_all) {
        eprintln!("cluster-test: signals can't be caught, Ctrl-C would leave programs behind: {error}");
        return ExitCode::FAILURE;
    }
    let bound = stop::Bound::set(BOUNDS.0 + BOUNDS.1 * options.kills);
    let start = Instant::now();
    let mut report = Report::default();
    let result = all(options, &mut report);
    let reached = bound.lift();
    if let Err(error) = result {
        eprintln!("cluster-test (seed {}): {error}", options.seed);
        return ExitCode::FAILURE;
    }
    if ending() || reached {
        eprintln!("cluster-test: stopped before the end");
        return ExitCode::FAILURE;
    }
    println!("all in {:.0} s, seed {}", start.elapsed().as_secs_f64(), options.seed);
    if report.wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("cluster-test (seed {}): not as it must be: {}", options.seed, report.wrong.join(", "));
    ExitCode::FAILURE
}

fn all(options: &Options, report: &mut Report) -> Result<(), HarnessError> {
    let began = Instant::now();
    let mut world = World::start()?;
    let first = world.right_again(None, Instant::now(), 3 * RIGHT_WITHIN)?;
    let text =
        format!("{} pairs and a tunnel, {:.1} s", world.crew.pairs.len(), began.elapsed().as_secs_f64());
    report.row("three brokers, three nodes", text, first.err());
    world.crew.longest_gap();
    scenarios::latency(&world, options, report)?;
    scenarios::kill_broker(&mut world, 0, "the agent's broker is killed", report)?;
    if !options.quick {
        scenarios::kill_broker(&mut world, 1, "the client's broker is killed", report)?;
    }
    for number in 0..if options.quick { 1 } else { world.nodes.len() } {
        let what = format!("NATS node {} is killed", world.nodes[number].name());
        scenarios::kill_node(&mut world, number, &what, report)?;
    }
    scenarios::random_kills(&mut world, options, report)?;
    scenarios::rolling_upgrade(&mut world, options, report)?;
    scenarios::nothing_is_lost(&mut world, report)?;
    scenarios::other_schema(&mut world, report)?;
    scenarios::engine_away(&mut world, options, report)?;
    let undelivered = world.crew.undelivered();
    report.row("signals that were returned", format!("{undelivered}"), None);
    Ok(())
}
