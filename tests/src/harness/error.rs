//! What can go wrong while running programs.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the harness could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A program is not where programs are looked for.
    #[error(
        "{name} is not in {}: build it (cargo build --workspace) or set {} to the directory that has it",
        dir.display(), super::BIN_DIR
    )]
    NoBinary {
        /// The program.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// An operation of the system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, on what.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A condition did not come true in time.
    #[error("waited {waited:?} in vain for {what}")]
    Timeout {
        /// The condition.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// A program did not do its part.
    #[error("{name}: {problem}; its last lines:\n{output}")]
    Program {
        /// The program.
        name: String,
        /// What it did not do.
        problem: String,
        /// Its last lines.
        output: String,
    },
    /// [`super::end_all`] was called.
    #[error("stopped on request")]
    Ending,
    /// An HTTP exchange failed.
    #[error(transparent)]
    Http(#[from] super::http::HttpError),
    /// A program printed something else than the contract says.
    #[error("{name} printed {got:?} instead of {expected}")]
    Unexpected {
        /// The program.
        name: String,
        /// What the contract says.
        expected: &'static str,
        /// What came.
        got: String,
    },
}
