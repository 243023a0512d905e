//! The card's image in qemu: the real image with all its units, and on this
//! machine, in a network namespace of its own, a broker, a greenhouse and a
//! phone. The guest reaches them through qemu's user networking.

mod card;
mod cut;
mod guest;
mod steps;
mod suite;
mod table;
mod world;

pub use suite::{Plan, perform, steps};

use crate::harness::HarnessError;
use crate::harness::http::HttpError;

/// Why the test can't go on, or what was not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A program or a wait.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// A request through the tunnel.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A file.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// What this machine doesn't let the test do.
    #[error("{0}")]
    Unable(String),
    /// Something is not as it must be.
    #[error("{0}")]
    Wrong(String),
}

/// Names what was being done.
fn doing<T>(what: impl Into<String>, result: std::io::Result<T>) -> Result<T, ImageError> {
    result.map_err(|error| ImageError::File(what.into(), error))
}

fn wrong(what: impl Into<String>) -> ImageError {
    ImageError::Wrong(what.into())
}
