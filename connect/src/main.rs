//! The `farm-connect` program.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    farm_connect::cli::main(std::env::args_os().skip(1))
}
