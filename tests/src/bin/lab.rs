//! The fault lab: `make lab`, or `lab --scenario NAME --runs N`.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::process::ExitCode;

use farm_tests::harness::end_all;
use farm_tests::lab::{
    Failed, LabError, Length, Outcome, Plan, Run, SCENARIOS, Scenario, TOPOLOGIES, Table, Topology, gone,
    grid, grid_markdown, idle, missing, perform,
};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
The real programs in network namespaces: a farm behind its router, a phone
behind another, the broker between them. One fault a run; prints a table.
Needs root, nftables and conntrack. See docs/lab.md.

Usage: lab [--scenario NAMES] [--topology NAMES] [--runs N] [options]
       lab --idle MINUTES | --gone MINUTES | --grid

  --scenario NAMES  only these, separated by commas (default: all but the long ones)
  --topology NAMES  only these, separated by commas (default: nat), or: all
  --runs N          how often each is run (default 1)
  --jobs N          how many labs at once (default 1, for undisturbed times)
  --short           faults last only as long as shows the behaviour
  --long            also what takes minutes
  --slack FACTOR    times may be so many times their goal (default 1)
  --seed N          for what is left to chance (default: the clock)
  --json            one JSON object a run instead of the table
  --timeline        what the programs said, also for runs without problems
  --idle MINUTES    instead: what an idle farm costs on the wire, extrapolated to a day
  --gone MINUTES    instead: what the programs do while there is no network
  --grid            instead: every pair of routers, the way that a tunnel takes, how
                    long it takes to come up
  --list            the scenarios and topologies
  --help            this text

Exit status: 0 all goals are kept, 1 one is missed or a run failed, 2 misused.
";

/// A measurement that is no fault.
type Meter = fn(&Topology, f64) -> Result<(String, bool), LabError>;

struct Wanted {
    plan: Plan,
    meter: Option<(Meter, f64)>,
    grid: bool,
    slack: f64,
    json: bool,
    timeline: bool,
}

fn main() -> ExitCode {
    let wanted = match parse(lexopt::Parser::from_env()) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error}; see lab --help");
            return ExitCode::from(2);
        }
    };
    if let Some(reason) = missing() {
        eprintln!("lab: can't work here: {reason}");
        return ExitCode::FAILURE;
    }
    end_on_signals();
    if let Some((meter, minutes)) = wanted.meter {
        return measure(meter, wanted.plan.topologies[0], minutes);
    }
    if wanted.grid {
        return show_grid(wanted.plan.jobs, wanted.slack);
    }
    let mut table = Table::default();
    let (mut done, total) = (0, wanted.plan.count());
    let result = perform(&wanted.plan, |result| {
        done += 1;
        tell(&wanted, &result, done, total);
        match result {
            Ok(outcome) => table.add(&outcome),
            Err(failed) => table.add_failed(failed.scenario, failed.topology),
        }
    });
    if let Err(error) = result {
        eprintln!("lab: {error}");
        return ExitCode::FAILURE;
    }
    if !wanted.json {
        println!("\n{}", table.markdown(wanted.slack));
    }
    if table.is_good(wanted.slack) && done == total { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(meter: Meter, topology: &Topology, minutes: f64) -> ExitCode {
    match meter(topology, minutes) {
        Ok((text, good)) => {
            println!("{text}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show_grid(jobs: usize, slack: f64) -> ExitCode {
    match grid(jobs) {
        Ok(cells) => {
            let mut good = true;
            for cell in &cells {
                let misses = cell.misses(slack);
                if !misses.is_empty() {
                    good = false;
                    println!("{}: {}", cell.name(), misses.join("; "));
                }
            }
            println!("{}", grid_markdown(&cells, slack));
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says at once how a run went.
fn tell(wanted: &Wanted, result: &Result<Outcome, Failed>, done: usize, total: usize) {
    match result {
        Ok(outcome) if wanted.json => println!("{}", outcome.json()),
        Ok(outcome) => {
            let misses = outcome.misses(wanted.slack);
            let verdict = if misses.is_empty() { "ok".to_owned() } else { misses.join("; ") };
            let ms = |time: Option<std::time::Duration>| {
                time.map_or("–".to_owned(), |time| format!("{:.0} ms", time.as_secs_f64() * 1e3))
            };
            println!(
                "{done}/{total} {} in {}: noticed {} ({}), recovered {}, gap {}, registered {}: {verdict}",
                outcome.scenario.name,
                outcome.topology,
                ms(outcome.noticed),
                outcome.sign.as_deref().unwrap_or("nothing said"),
                ms(outcome.recovered),
                ms(Some(outcome.gap)),
                ms(outcome.registered),
            );
            if wanted.timeline || !misses.is_empty() {
                println!("  seed {}", outcome.seed);
                outcome.timeline.iter().for_each(|line| println!("  {line}"));
            }
        }
        Err(Failed { scenario, topology, error }) => {
            eprintln!("{done}/{total} {} in {topology} could not be measured: {error}", scenario.name);
        }
    }
}

/// On SIGINT and SIGTERM every program ends, and the labs take themselves down.
fn end_on_signals() {
    use async_signal::{Signal, Signals};
    use futures_util::StreamExt;
    std::thread::spawn(|| {
        let wait = async {
            let mut signals = Signals::new([Signal::Int, Signal::Term])?;
            Ok::<_, std::io::Error>(signals.next().await.is_some())
        };
        match smol::block_on(wait) {
            Ok(_) => end_all(),
            Err(error) => eprintln!("lab: signals can't be caught: {error}"),
        }
    });
}

/// None when a text was asked for, which is printed.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Wanted>, lexopt::Error> {
    let (mut scenarios, mut topologies) = (None, vec![&TOPOLOGIES[0]]);
    let (mut runs, mut jobs, mut slack, mut seed) = (1, 1, 1.0, clock());
    let (mut length, mut long, mut json, mut timeline) = (Length::Full, false, false, false);
    let mut meter: Option<(Meter, f64)> = None;
    let mut grid = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("scenario") => {
                scenarios = Some(named(&parser.value()?.string()?, "scenario", Scenario::named)?);
            }
            Arg::Long("topology") => {
                let names = parser.value()?.string()?;
                topologies = match names.as_str() {
                    "all" => TOPOLOGIES.iter().collect(),
                    names => named(names, "topology", Topology::named)?,
                };
            }
            Arg::Long("runs") => runs = parser.value()?.parse()?,
            Arg::Long("jobs") => jobs = parser.value()?.parse()?,
            Arg::Long("slack") => slack = parser.value()?.parse()?,
            Arg::Long("seed") => seed = parser.value()?.parse()?,
            Arg::Long("short") => length = Length::Short,
            Arg::Long("long") => long = true,
            Arg::Long("json") => json = true,
            Arg::Long("timeline") => timeline = true,
            Arg::Long("idle") => meter = Some((idle, minutes(&mut parser)?)),
            Arg::Long("gone") => meter = Some((gone, minutes(&mut parser)?)),
            Arg::Long("grid") => grid = true,
            Arg::Long("list") => {
                list();
                return Ok(None);
            }
            Arg::Long("help") | Arg::Short('h') => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    let all = || SCENARIOS.iter().filter(|scenario| long || scenario.run != Run::Long).collect();
    let scenarios = scenarios.unwrap_or_else(all);
    let plan = Plan { scenarios, topologies, runs, jobs, length, seed };
    Ok(Some(Wanted { plan, meter, grid, slack, json, timeline }))
}

fn minutes(parser: &mut lexopt::Parser) -> Result<f64, lexopt::Error> {
    let minutes: f64 = parser.value()?.parse()?;
    if (0.1..=1_440.0).contains(&minutes) { Ok(minutes) } else { Err("between 0.1 and 1440 minutes".into()) }
}

/// What these names mean, each once.
fn named<T>(
    names: &str,
    what: &str,
    find: impl Fn(&str) -> Option<&'static T>,
) -> Result<Vec<&'static T>, lexopt::Error> {
    let mut seen = BTreeSet::new();
    let names = names.split(',').map(str::trim).filter(|name| seen.insert(*name));
    names
        .map(|name| find(name).ok_or_else(|| format!("no {what} is called {name:?}: see --list").into()))
        .collect()
}

fn list() {
    println!("scenarios:");
    for scenario in SCENARIOS {
        println!("  {:18} {}", scenario.name, scenario.about);
    }
    println!("topologies (farm's router, phone's router):");
    for topology in TOPOLOGIES {
        let (farm, phone, route) = (topology.farm, topology.phone, topology.route);
        let uplink = match topology.uplink {
            Some(link) => format!(
                ", phone's uplink {} ms each way, {} Mbit/s, {} % loss",
                link.delay_ms,
                link.rate / 1_000_000,
                link.loss_percent
            ),
            None => String::new(),
        };
        println!("  {:18} {farm:?}, {phone:?}: {route:?}{uplink}", topology.name);
    }
}

fn clock() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
