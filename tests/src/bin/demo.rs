//! The demo: `make demo`, or `demo --script STEPS` where there is no terminal.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use farm_tests::demo::{self, DEFAULT_SCRIPT, Step};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
A whole farm on this machine: broker, agent, greenhouse and phone, and one key
per fault. The programs must lie beside this one (or in $FARM_BIN_DIR).

Usage: demo [--script STEPS]

  --script STEPS  do these steps and end: names separated by commas out of
                  fetch, throughput, cut, restore, broker, address, pair, quit.
                  Without a terminal this is done by itself.
  --help          this text
";

fn main() -> ExitCode {
    let script = match parse(lexopt::Parser::from_env()) {
        Ok(Wanted::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Wanted::Script(steps)) => Some(steps),
        Ok(Wanted::Screen) if demo::is_terminal() => None,
        Ok(Wanted::Screen) => {
            println!("no terminal: doing {DEFAULT_SCRIPT}");
            Some(Step::script(DEFAULT_SCRIPT).expect("the default script is one"))
        }
        Err(error) => {
            eprintln!("demo: {error}; see demo --help");
            return ExitCode::from(2);
        }
    };
    match script {
        Some(steps) => demo::run_script(&steps),
        None => demo::run_interactive().unwrap_or_else(|error| {
            eprintln!("demo: the terminal: {error}");
            ExitCode::FAILURE
        }),
    }
}

enum Wanted {
    Help,
    Script(Vec<Step>),
    Screen,
}

fn parse(mut parser: lexopt::Parser) -> Result<Wanted, lexopt::Error> {
    let mut wanted = Wanted::Screen;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("script") => {
                let steps = Step::script(&parser.value()?.string()?)?;
                wanted = Wanted::Script(steps);
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(Wanted::Help),
            other => return Err(other.unexpected()),
        }
    }
    Ok(wanted)
}
