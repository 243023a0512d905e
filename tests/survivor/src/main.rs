//! See the library.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(state) = std::env::args_os().nth(1) else {
        eprintln!("usage: farm-survivor STATE");
        return ExitCode::from(2);
    };
    match farm_survivor::run(Path::new(&state)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farm-survivor: {error}");
            ExitCode::FAILURE
        }
    }
}
