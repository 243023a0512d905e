//! The `farm-agent` program.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    farm_agent::cli::main(std::env::args_os().skip(1))
}
