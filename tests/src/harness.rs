//! What end-to-end tests, the demo and the benchmarks need to run the real
//! programs: processes that never outlive their test, waits for conditions with
//! deadlines, an HTTP client that hashes what it gets, and a whole farm.
//!
//! Everything blocks and runs on threads: a test reads top to bottom.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;

mod binaries;
mod echo;
mod error;
pub mod farm;
mod hash;
pub mod http;
mod lines;
mod process;
mod usage;
mod wait;

pub use binaries::{BIN_DIR, binary};
pub use echo::{Echoes, echo_service};
pub use error::HarnessError;
pub use hash::{Hasher, hex, sha256};
pub use lines::{Line, Source};
pub use process::{Finished, LOGS, Process, end_all, ending, run};
pub use tempfile::TempDir;
pub use usage::Usage;
pub use wait::until;

/// Where [`free_port`] looks: below the ports from which the kernel serves
/// outgoing connections (32768 and up by default), so that none of another test
/// takes the port of a program that is away for a moment.
const PORTS: Range<u16> = 10_000..32_768;

/// Ports that [`free_port`] tries.
const PORT_TRIES: usize = 100;

/// A port on 127.0.0.1 that is free for TCP and UDP. Chosen at random, so that
/// tests in other processes choose others.
///
/// # Errors
/// When none was free in many tries.
pub fn free_port() -> Result<SocketAddr, HarnessError> {
    let mut last = None;
    for _ in 0..PORT_TRIES {
        // The standard library's source of randomness.
        let random = RandomState::new().hash_one(PORTS.start);
        let port = PORTS.start + (random % u64::from(PORTS.end - PORTS.start)) as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpListener::bind(address).and_then(|tcp| UdpSocket::bind(address).map(|udp| (tcp, udp))) {
            Ok(_free) => return Ok(address),
            Err(error) => last = Some(error),
        }
    }
    let source = last.unwrap_or_else(|| std::io::Error::other("nothing was tried"));
    Err(HarnessError::Io { doing: "looking for a free port".to_owned(), source })
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
