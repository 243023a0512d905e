//! The simulation as a program: runs seeds, and prints the story of one that fails.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use farm_tests::sim::{self, Mutation, Options, Outcome};

const HELP: &str = "\
Runs the simulation: broker, farms and phones on a virtual network and clock.

usage: sim [--seed N] [--seeds M] [--story] [--mutation NAME] [--threads T]

  --seed N         the first seed (0)
  --seeds M        how many (1000, or 1 with --seed)
  --story          print the timeline of every seed
  --mutation NAME  build in a defect, which must be caught
  --threads T      how many at once (one per core)
  --all            go on after a failure; lists all of them, one line each
";

struct Arguments {
    seed: u64,
    seeds: u64,
    threads: usize,
    all: bool,
    options: Options,
}

fn parse() -> Result<Option<Arguments>, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut seed, mut seeds, mut all, mut options) = (None, None, false, Options::default());
    let mut threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seed") => seed = Some(parser.value()?.parse()?),
            Long("seeds") => seeds = Some(parser.value()?.parse()?),
            Long("all") => all = true,
            Long("story") => options.story = true,
            Long("mutation") => options.mutation = Some(parser.value()?.parse::<Mutation>()?),
            Long("threads") => threads = parser.value()?.parse::<usize>()?.max(1),
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    let seeds = seeds.unwrap_or(if seed.is_some() { 1 } else { 1000 });
    Ok(Some(Arguments { seed: seed.unwrap_or(0), seeds, threads, all, options }))
}

fn main() -> ExitCode {
    match parse() {
        Ok(Some(arguments)) => run(&arguments),
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sim: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(arguments.seed);
    let end = arguments.seed.saturating_add(arguments.seeds);
    let stop = AtomicBool::new(false);
    let failed: Mutex<Option<u64>> = Mutex::new(None);
    let total = Mutex::new(sim::Total::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = sim::run(seed, arguments.options);
                    if arguments.options.story {
                        print_story(&outcome);
                    }
                    if let Some(violation) = &outcome.violation {
                        stop.store(!arguments.all, Ordering::Relaxed);
                        if arguments.all {
                            println!("seed {seed}: {}: {}", violation.invariant, violation.what);
                        }
                        let mut failed = failed.lock().unwrap_or_else(|e| e.into_inner());
                        *failed = Some(failed.map_or(seed, |other| other.min(seed)));
                    }
                    total.lock().unwrap_or_else(|e| e.into_inner()).add(&outcome);
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(|e| e.into_inner());
    print!("{}", total.table());
    println!("{total}, in {:.1} s", began.elapsed().as_secs_f64());
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        None => ExitCode::SUCCESS,
        Some(_) if arguments.all => ExitCode::FAILURE,
        Some(seed) => {
            println!("{}", sim::report(seed, arguments.options));
            ExitCode::FAILURE
        }
    }
}

fn print_story(outcome: &Outcome) {
    println!("seed {} ({:016x}):", outcome.seed, outcome.hash);
    outcome.story.iter().for_each(|line| println!("{line}"));
}
