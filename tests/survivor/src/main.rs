//! See the library.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(state) = std::env::args_os().nth(1) else {
        eprintln!("usage: farm-survivor STATE [unprepared]");
        return ExitCode::from(2);
    };
    let prepared = std::env::args_os().nth(2).is_none();
    match farm_survivor::run(Path::new(&state), prepared) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farm-survivor: {error}");
            ExitCode::FAILURE
        }
    }
}
