//! `cluster-test`: several brokers over NATS JetStream, and everything that can
//! go wrong between them.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use farm_tests::cluster::{self, Options};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
Three brokers over three nodes of NATS, devices at them and a tunnel in use:
brokers and nodes are killed, restarted and taken away.

  cluster-test                 everything
  cluster-test --quick         one kill of each kind
  cluster-test --kills N       so many random kills (default 50, quick 1)
  cluster-test --seed N        other random kills

The brokers must be built with the feature `cluster`: see `make cluster-test`.
Exit status 1: something was not as it must be.
";

fn main() -> ExitCode {
    match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => cluster::run(&options),
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cluster-test: {error}; see cluster-test --help");
            ExitCode::from(2)
        }
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let (mut quick, mut kills, mut seed) = (false, None, 1);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("quick") => quick = true,
            Arg::Long("kills") => kills = Some(parser.value()?.parse()?),
            Arg::Long("seed") => seed = parser.value()?.parse()?,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    let kills = kills.unwrap_or(if quick { 1 } else { 50 });
    if kills > 1000 {
        return Err("at most 1000 kills".into());
    }
    Ok(Some(Options { quick, kills, seed }))
}
