//! Finding the programs under test.

use std::env;
use std::path::PathBuf;

use super::HarnessError;

/// The environment variable that names the directory with the programs.
pub const BIN_DIR: &str = "FARM_BIN_DIR";

/// The path of a program built in this workspace: in `$FARM_BIN_DIR`, else next
/// to the running program (or next to the `deps` directory of a running test).
///
/// # Errors
/// When there is no such file; nothing is built.
pub fn binary(name: &str) -> Result<PathBuf, HarnessError> {
    let dir = match env::var_os(BIN_DIR) {
        Some(dir) => PathBuf::from(dir),
        None => beside()?,
    };
    let path = dir.join(name);
    if path.is_file() { Ok(path) } else { Err(HarnessError::NoBinary { name: name.to_owned(), dir }) }
}

fn beside() -> Result<PathBuf, HarnessError> {
    let mut path = env::current_exe().map_err(|source| HarnessError::Io {
        doing: "asking for the path of this program".to_owned(),
        source,
    })?;
    path.pop();
    if path.ends_with("deps") || path.ends_with("examples") {
        path.pop();
    }
    Ok(path)
}
