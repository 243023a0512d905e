//! `make powercut`: power cuts, kills and failing disks against the store.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use farm_powercut::campaign::{power_cuts, scratch};
use farm_powercut::shim::Shim;
use farm_powercut::{Failure, faults, kill, workload};
use lexopt::prelude::*;

const HELP: &str = "\
Plays power cuts, kills and failing disks to the agent's store, and looks for
everything that was acknowledged.

Usage: powercut [--cuts N] [--kills N] [--flips N] [--seed N]

  --cuts N   modelled power cuts (default 15000)
  --kills N  real kill -9 on one state (default 1000)
  --flips N  flipped bits in each file (default 100)
  --seed N   other cuts (default 1)
  --help     this text";

struct Wanted {
    cuts: usize,
    kills: usize,
    flips: usize,
    seed: u64,
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "workload") {
        return done(work(&arguments.split_off(1)));
    }
    match parse() {
        Ok(Some(wanted)) => done(all(&wanted)),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("powercut: {error}; see powercut --help");
            ExitCode::from(2)
        }
    }
}

fn done(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("powercut: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Option<Wanted>, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let mut wanted = Wanted { cuts: 15_000, kills: 1000, flips: 100, seed: 1 };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("cuts") => wanted.cuts = parser.value()?.parse()?,
            Long("kills") => wanted.kills = parser.value()?.parse()?,
            Long("flips") => wanted.flips = parser.value()?.parse()?,
            Long("seed") => wanted.seed = parser.value()?.parse()?,
            Long("help") => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(wanted))
}

/// The program under test: STATE ANNOUNCEMENTS SEED ROUNDS FIRST.
fn work(arguments: &[String]) -> Result<(), Failure> {
    let [state, announcements, seed, rounds, first, rests] = arguments else {
        return Err("workload needs STATE ANNOUNCEMENTS SEED ROUNDS FIRST RESTS".into());
    };
    let run = workload::run(
        Path::new(state),
        Path::new(announcements),
        seed.parse()?,
        rounds.parse()?,
        first.parse()?,
        rests.parse()?,
    );
    smol::future::block_on(run)
}

fn all(wanted: &Wanted) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let mut bad = Vec::new();

    let outcome = power_cuts(&program, wanted.cuts, wanted.seed, None)?;
    println!(
        "power cuts      {} modelled, {} acknowledged readings looked for, {} failures ({:.0} s)",
        outcome.cuts,
        outcome.readings,
        outcome.failures.len(),
        outcome.took.as_secs_f64()
    );
    bad.extend(outcome.failures);

    let control = power_cuts(&program, (wanted.cuts / 50).max(40), wanted.seed, Some("/db"))?;
    println!(
        "control         {} modelled with the fsync of the database left out, {} failures (must be many)",
        control.cuts,
        control.failures.len()
    );
    if control.failures.len() * 10 < control.cuts {
        bad.push("the control was not caught: the harness sees nothing".to_owned());
    }

    for part in [kills, flips, failing, disks] {
        if let Err(error) = part(&program, wanted) {
            bad.push(error.to_string());
        }
    }
    match bad.len() {
        0 => Ok(()),
        count => {
            bad.iter().take(20).for_each(|failure| eprintln!("{failure}"));
            Err(format!("{count} failures").into())
        }
    }
}

fn kills(program: &Path, wanted: &Wanted) -> Result<(), Failure> {
    // On a real disk, not in memory.
    let place = tempfile::tempdir()?;
    let outcome = kill::kills(program, place.path(), wanted.kills, wanted.seed)?;
    println!(
        "kill -9         {} cycles verified on one state, {} readings in the end ({:.0} s)",
        outcome.cycles,
        outcome.readings,
        outcome.took.as_secs_f64()
    );
    Ok(())
}

fn place() -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("powercut").tempdir_in(scratch())
}

fn flips(_program: &Path, wanted: &Wanted) -> Result<(), Failure> {
    let place = place()?;
    let (tried, lost) = faults::flipped_bits(place.path(), wanted.flips, wanted.seed)?;
    println!(
        "flipped bits    {tried} in all files: every start succeeds; {lost} cost readings, each with an alarm"
    );
    Ok(())
}

fn failing(program: &Path, _wanted: &Wanted) -> Result<(), Failure> {
    let place = place()?;
    let shim = Shim::build(place.path())?;
    for (name, fail) in FAILING {
        for (rests, said) in [(false, "refused"), (true, "beside rests")] {
            let dir: PathBuf = place.path().join(format!("{}-{rests}", name.replace(' ', "-")));
            let recorded = faults::failing_calls(&shim, program, &dir, fail, rests)?;
            println!("{name:<15} {said}, {recorded} acknowledged before, all there");
        }
    }
    Ok(())
}

fn disks(_program: &Path, _wanted: &Wanted) -> Result<(), Failure> {
    if !faults::may_mount() {
        println!("disk full, read-only: skipped, they need root");
        return Ok(());
    }
    let place = place()?;
    let recorded = faults::full_disk(place.path())?;
    println!(
        "disk full       refused, {recorded} acknowledged before, all there; goes on once there is room"
    );
    faults::read_only(place.path())?;
    println!("read-only       refused with the reason, nothing touched; goes on once writable");
    Ok(())
}

/// CALL:AFTER:TIMES:ERRNO, with EIO = 5 and ENOSPC = 28.
const FAILING: [(&str, &str); 4] = [
    ("EIO on fsync", "fsync:60:1:5"),
    ("EIO for ever", "fsync:100:1000000:5"),
    ("EIO on write", "pwrite:120:1:5"),
    ("ENOSPC on write", "pwrite:120:3:28"),
];
