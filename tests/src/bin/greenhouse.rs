//! The greenhouse as a program: `greenhouse [--listen 127.0.0.1:0]`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use farm_tests::greenhouse::{Greenhouse, GreenhouseOptions};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
A small greenhouse controller: page, readings, camera, downloads.

Usage: greenhouse [--listen ADDRESS:PORT] [--utc-offset HOURS]

  --listen ADDRESS:PORT  where to listen (default 127.0.0.1:0, a free port)
  --utc-offset HOURS     the farm's clock, hours ahead of UTC (default 0)
  --help                 this text
";

fn main() -> ExitCode {
    let options = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("greenhouse: {error}; see greenhouse --help");
            return ExitCode::from(2);
        }
    };
    let greenhouse = match Greenhouse::bind(&options) {
        Ok(greenhouse) => greenhouse,
        Err(error) => {
            eprintln!("greenhouse: cannot listen on {}: {error}; give another --listen", options.listen);
            return ExitCode::FAILURE;
        }
    };
    println!("greenhouse listening on http://{}", greenhouse.address());
    smol::block_on(greenhouse.run());
    ExitCode::SUCCESS
}

/// None when help was asked for.
fn parse(mut parser: lexopt::Parser) -> Result<Option<GreenhouseOptions>, lexopt::Error> {
    let mut options = GreenhouseOptions::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("listen") => options.listen = parser.value()?.parse()?,
            Arg::Long("utc-offset") => {
                let hours: f64 = parser.value()?.parse()?;
                if !(-12.0..=14.0).contains(&hours) {
                    return Err("--utc-offset is between -12 and 14".into());
                }
                options.utc_offset = (hours * 3_600.0) as i64;
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}
