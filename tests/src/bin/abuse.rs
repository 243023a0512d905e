//! Hostile traffic against the real broker: `make abuse`.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use farm_tests::abuse::{self, Options, Orders};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
Attacks a broker of its own on this machine's loopback, one attack after the
other, each from one core, with honest devices and a running tunnel beside it.
Prints what was sent, what the broker counted and what the honest ones noticed.
The programs must lie beside this one (or in $FARM_BIN_DIR).

Usage: abuse [--quick] [--each SECONDS] [--only NAME] [--seed N] | --list

  --quick         0.6 s of each, and latencies are shown but not judged:
                  for machines that are busy with other things
  --each SECONDS  how long each attack lasts (default 4)
  --only NAME     only the attacks whose name contains NAME, e.g. tls or flood
  --seed N        for what is random (default 1)
  --list          the attacks' names, a line each
  --help          this text

The exit status is 1 if the broker did not stand one of them.
";

enum Task {
    Help,
    List,
    Siege(Options),
    Attack(Orders),
}

fn main() -> ExitCode {
    match parse(lexopt::Parser::from_env()) {
        Ok(Task::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Task::List) => {
            abuse::names().for_each(|name| println!("{name}"));
            ExitCode::SUCCESS
        }
        Ok(Task::Siege(options)) => abuse::run(&options),
        Ok(Task::Attack(orders)) => match abuse::attack(orders) {
            Ok(report) => {
                println!("{}", serde_json::to_string(&report).unwrap_or_default());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("abuse: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("abuse: {error}; see abuse --help");
            ExitCode::from(2)
        }
    }
}

fn seconds(parser: &mut lexopt::Parser) -> Result<Duration, lexopt::Error> {
    let seconds: f64 = parser.value()?.parse()?;
    if !(0.1..=60.0).contains(&seconds) {
        return Err("an attack lasts 0.1 to 60 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn parse(mut parser: lexopt::Parser) -> Result<Task, lexopt::Error> {
    let mut options = Options { each: Duration::from_secs(4), only: None, seed: 1, judge_latency: true };
    // How this program calls itself for the hostile side.
    let (mut attack, mut broker, mut farm, mut certificate, mut token) = (None, None, None, None, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("quick") => {
                options.each = Duration::from_millis(600);
                options.judge_latency = false;
            }
            Arg::Long("each" | "seconds") => options.each = seconds(&mut parser)?,
            Arg::Long("only") => options.only = Some(parser.value()?.string()?),
            Arg::Long("seed") => options.seed = parser.value()?.parse()?,
            Arg::Long("attack") => attack = Some(parser.value()?.string()?),
            Arg::Long("broker") => broker = Some(parser.value()?.parse()?),
            Arg::Long("farm") => farm = Some(parser.value()?.parse()?),
            Arg::Long("certificate") => certificate = Some(parser.value()?.into()),
            Arg::Long("token") => token = Some(parser.value()?.string()?),
            Arg::Long("list") => return Ok(Task::List),
            Arg::Long("help") | Arg::Short('h') => return Ok(Task::Help),
            other => return Err(other.unexpected()),
        }
    }
    match (attack, broker, farm, certificate) {
        (None, None, None, None) => Ok(Task::Siege(options)),
        (Some(attack), Some(address), Some(farm), Some(certificate)) => Ok(Task::Attack(Orders {
            attack,
            address,
            certificate,
            lasts: options.each,
            seed: options.seed,
            farm,
            token,
        })),
        _ => Err("--attack needs --broker, --farm and --certificate".into()),
    }
}
