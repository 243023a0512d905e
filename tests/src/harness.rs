//! What end-to-end tests, the demo and the benchmarks need to run the real
//! programs: processes that never outlive their test, waits for conditions with
//! deadlines, an HTTP client that hashes what it gets, and a whole farm.
//!
//! Everything blocks and runs on threads: a test reads top to bottom.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

mod binaries;
mod error;
pub mod farm;
mod hash;
pub mod http;
mod lines;
mod process;
mod usage;
mod wait;

pub use binaries::{BIN_DIR, binary};
pub use error::HarnessError;
pub use hash::{Hasher, hex, sha256};
pub use lines::{Line, Source};
pub use process::{Finished, LOGS, Process, end_all, ending, run};
pub use tempfile::TempDir;
pub use usage::Usage;
pub use wait::until;

/// A TCP port on 127.0.0.1 that was free a moment ago. Somebody else may take it
/// before its user does: programs that can should listen on port 0 instead.
///
/// # Errors
/// When loopback has no port left.
pub fn free_port() -> Result<SocketAddr, HarnessError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|source| HarnessError::Io { doing: "looking for a free port".to_owned(), source })
}

/// A fresh directory, removed when the value is dropped.
///
/// # Errors
/// When the temporary directory is not writable.
pub fn temp_dir() -> Result<TempDir, HarnessError> {
    tempfile::Builder::new()
        .prefix("farm-")
        .tempdir()
        .map_err(|source| HarnessError::Io { doing: "making a temporary directory".to_owned(), source })
}
