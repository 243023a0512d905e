//! The benchmarks: `make bench`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use farm_tests::bench::{self, Length, Options};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
Measures the tunnel on this machine's loopback and prints one table. The programs
must lie beside this one (or in $FARM_BIN_DIR).

Usage: bench [--quick | --full] [--only PART] [--cycles N] [--json FILE]

  --quick      a short form, less than a minute
  --full       more of everything, and a download of 1 GB; up to an hour
  --only PART  only the parts whose name contains PART, e.g. echo or idle
  --cycles N   connect and disconnect N times (default 100; 1000 with --full)
  --json FILE  also writes the figures as JSON
  --help       this text

dumbpipe and rathole are measured beside the tunnel where they are in $PATH. They
are bound to loopback; where there is internet, dumbpipe looks for its relays too.
";

fn main() -> ExitCode {
    match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => bench::run(&options),
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}; see bench --help");
            ExitCode::from(2)
        }
    }
}

/// None when help was asked for.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        let length = match argument {
            Arg::Long("quick") => Length::Quick,
            Arg::Long("full") => Length::Full,
            Arg::Long("cycles") => {
                let cycles: u32 = parser.value()?.parse()?;
                if !(10..=100_000).contains(&cycles) {
                    return Err("--cycles is between 10 and 100000".into());
                }
                options.cycles = Some(cycles);
                continue;
            }
            Arg::Long("only") => {
                options.only = Some(parser.value()?.string()?);
                continue;
            }
            Arg::Long("json") => {
                options.json = Some(parser.value()?.into());
                continue;
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        };
        if options.length != Length::Normal && options.length != length {
            return Err("--quick and --full exclude each other".into());
        }
        options.length = length;
    }
    Ok(Some(options))
}
