//! Ten thousand devices at one broker: `make load`.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use farm_tests::load::{self, Kind, Options, Orders};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
Connects many devices to a broker of its own on this machine's loopback, in steps,
with real TLS and the real protocol, and prints what each costs, how fast signals
and presence are and how long all need to be back after a restart. mosquitto and
node with ws are measured beside it where they are installed. The programs must
lie beside this one (or in $FARM_BIN_DIR).

Usage: load [--quick] [--devices N]

  --quick      200 devices and no yardsticks, and goals are shown but not judged
  --devices N  devices at the broker (default 10000)
  --help       this text

The exit status is 1 if devices did not get in or come back, or a goal was missed.
";

enum Task {
    Help,
    Load(Options),
    Crew(Orders),
}

fn main() -> ExitCode {
    match parse(lexopt::Parser::from_env()) {
        Ok(Task::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Task::Load(options)) => load::run(&options),
        Ok(Task::Crew(orders)) => match load::crew(orders) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("load: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("load: {error}; see load --help");
            ExitCode::from(2)
        }
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Task, lexopt::Error> {
    let mut options =
        Options { devices: 10_000, rate: 1000, each: Duration::from_secs(10), yardsticks: true, judge: true };
    // How this program calls itself for a crew.
    let (mut kind, mut server, mut certificate) = (None, None, None);
    let (mut first, mut count, mut net) = (0, 0, 10);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("quick") => {
                options = Options {
                    devices: 200,
                    rate: 100,
                    each: Duration::from_secs(2),
                    yardsticks: false,
                    judge: false,
                };
            }
            Arg::Long("devices") => {
                options.devices = parser.value()?.parse()?;
                if !(40..=15_000).contains(&options.devices) {
                    return Err("--devices is between 40 and 15000".into());
                }
            }
            Arg::Long("crew") => {
                let name = parser.value()?.string()?;
                kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
                if kind.is_none() {
                    return Err(format!("there is no crew {name:?}").into());
                }
            }
            Arg::Long("server") => server = Some(parser.value()?.parse()?),
            Arg::Long("certificate") => certificate = Some(parser.value()?.into()),
            Arg::Long("first") => first = parser.value()?.parse()?,
            Arg::Long("count") => count = parser.value()?.parse()?,
            Arg::Long("net") => net = parser.value()?.parse()?,
            Arg::Long("help") | Arg::Short('h') => return Ok(Task::Help),
            other => return Err(other.unexpected()),
        }
    }
    match (kind, server, certificate) {
        (None, None, None) => Ok(Task::Load(options)),
        (Some(kind), Some(address), Some(certificate)) => {
            Ok(Task::Crew(Orders { kind, first, count, address, certificate, net }))
        }
        _ => Err("--crew needs --server and --certificate".into()),
    }
}
