//! Why the lab itself could not work.

use std::io;

use crate::harness::HarnessError;
use crate::harness::http::HttpError;

/// The lab or a program in it failed: nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program did not do what it should.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// An operation of the system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A request through the tunnel failed before any fault was made.
    #[error("before the fault: {0}")]
    Http(#[from] HttpError),
    /// Something else.
    #[error("{0}")]
    Wrong(String),
}

impl LabError {
    /// For `map_err` on an operation of the system.
    pub(super) fn io(doing: &str) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.to_owned();
        move |source| Self::Io { doing, source }
    }
}
