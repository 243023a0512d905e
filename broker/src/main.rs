//! The `farm-broker` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    farm_broker::cli::main()
}
