//! The demo: `make demo`, or `demo --script STEPS` where there is no terminal.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use farm_tests::demo::{self, DEFAULT_SCRIPT, Step};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
A whole farm on this machine: broker, agent, greenhouse and phone, and one key
per fault. The programs must lie beside this one (or in $FARM_BIN_DIR).

Usage: demo [--script STEPS] [--loopback]

  --script STEPS  do these steps and end: names separated by commas out of
                  fetch, throughput, cut, restore, broker, address, pair, quit.
                  Without a terminal this is done by itself.
  --loopback      keep to loopback; otherwise root's demo gives the farm a network
                  namespace, so that its address can be changed
  --help          this text
";

fn main() -> ExitCode {
    let Wanted { script, loopback } = match parse(lexopt::Parser::from_env()) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("demo: {error}; see demo --help");
            return ExitCode::from(2);
        }
    };
    match script {
        Some(steps) => demo::run_script(&steps, loopback),
        None if demo::is_terminal() => demo::run_interactive(loopback).unwrap_or_else(|error| {
            eprintln!("demo: the terminal: {error}");
            ExitCode::FAILURE
        }),
        None => {
            println!("no terminal: doing {DEFAULT_SCRIPT}");
            let steps = Step::script(DEFAULT_SCRIPT).expect("the default script is one");
            demo::run_script(&steps, loopback)
        }
    }
}

#[derive(Default)]
struct Wanted {
    script: Option<Vec<Step>>,
    loopback: bool,
}

/// None when help was asked for.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Wanted>, lexopt::Error> {
    let mut wanted = Wanted::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("script") => wanted.script = Some(Step::script(&parser.value()?.string()?)?),
            Arg::Long("loopback") => wanted.loopback = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(wanted))
}
