//! `make image-test`: the card's image in qemu.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use farm_tests::image::{ImageError, Plan, perform, steps};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
The card's image in qemu with all its units, against a broker, a greenhouse and
a phone on this machine: first boot, pairing, a file, kills, wedged loops, power
cuts, installers' mistakes. Prints a table, with the machine's load beside each
figure. Needs root, qemu-system-aarch64, mtools, iproute2, ssh.

Usage: image-test [--image FILE] [--short] [--only STEP]... [--cuts N] [--seed N]

  --image FILE  default target/image/farm-tunnel.img
  --short       three power cuts and one wedged loop, no hangs, no mistakes; times
                are shown but not judged: for machines that others use
  --only STEP   this step, and what it needs; may be said again
  --steps       list the steps
  --cuts N      power cuts (default 20, with --short 3)
  --seed N      for what is left to chance (default: the clock)

Exit status: 0 all goals are kept, 1 one is missed or something failed, 2 misused,
77 this machine lacks a tool or a right that the test needs.
";

/// What other test runners call a test that could not be done here.
const UNABLE: u8 = 77;

const TOOLS: [(&str, &str); 4] = [
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("mcopy", "mtools"),
    ("ip", "iproute2"),
    ("ssh-keygen", "openssh-client"),
];

fn main() -> ExitCode {
    let plan = match parse(lexopt::Parser::from_env()) {
        Ok(Some(plan)) => plan,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image-test: {error}; see image-test --help");
            return ExitCode::from(2);
        }
    };
    for (program, package) in TOOLS {
        if Command::new(program).arg("--help").output().is_err() {
            eprintln!("image-test: {program} is missing: apt-get install {package}");
            return ExitCode::from(UNABLE);
        }
    }
    println!("seed {}", plan.seed);
    match perform(&plan) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("image-test: {error}");
            if matches!(error, ImageError::Unable(_)) { ExitCode::from(UNABLE) } else { ExitCode::FAILURE }
        }
    }
}

/// None when a text was asked for, which is printed.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Plan>, lexopt::Error> {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let image = PathBuf::from("target/image/farm-tunnel.img");
    let mut plan = Plan { image, cuts: 20, short: false, only: Vec::new(), seed };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("image") => plan.image = parser.value()?.into(),
            Arg::Long("short") => (plan.cuts, plan.short) = (3, true),
            Arg::Long("only") => plan.only.push(parser.value()?.string()?),
            Arg::Long("steps") => {
                print!("{}", steps());
                return Ok(None);
            }
            Arg::Long("cuts") => plan.cuts = parser.value()?.parse()?,
            Arg::Long("seed") => plan.seed = parser.value()?.parse()?,
            Arg::Long("help") | Arg::Short('h') => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(plan))
}
