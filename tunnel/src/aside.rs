//! Blocking work beside the tasks: name look-ups, reads of the card.
//!
//! Each job has a thread of its own that ends with it. A pool's idle thread
//! wakes twice a second to see whether it may end, and never does: that was
//! most of what an idle agent did. So neither agent, broker nor client uses
//! `smol::unblock`, `smol::fs` or `smol::net::resolve`.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Jobs at once in the process. A name look-up without an answer keeps its
/// thread for up to half a minute, and retries come every few seconds.
pub const MAX_JOBS: usize = 64;

static JOBS: AtomicUsize = AtomicUsize::new(0);

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// [`MAX_JOBS`] run already.
    #[error("{MAX_JOBS} blocking jobs run already: try again later")]
    TooMany,
    /// The operating system gave no thread.
    #[error("no thread for {name}: {source}")]
    NoThread {
        /// What the thread was for.
        name: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The job panicked; the log says where.
    #[error("{name} broke off, see the log: please report it")]
    BrokeOff {
        /// What it was for.
        name: &'static str,
    },
}

/// Does a job on a thread called `name` (at most 15 bytes are shown) and gives
/// its result. Dropping the future does not end the job.
///
/// # Errors
/// [`NotDone`].
pub async fn aside<T: Send + 'static>(
    name: &'static str,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotDone> {
    let place = Place::take().ok_or(NotDone::TooMany)?;
    let (done, result) = async_channel::bounded(1);
    let run = move || {
        let _place = place;
        // Whoever asked may have gone.
        let _ = done.try_send(job());
    };
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(run).map_err(|source| NotDone::NoThread { name, source })?;
    result.recv().await.map_err(|_| NotDone::BrokeOff { name })
}

/// Looks up a host's addresses, as the operating system does.
///
/// # Errors
/// What the name service says, or [`NotDone`] as [`io::ErrorKind::Other`].
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let host = host.to_owned();
    aside("farm-resolve", move || Ok((host, port).to_socket_addrs()?.collect()))
        .await
        .map_err(io::Error::other)?
}

/// One of the [`MAX_JOBS`], given back when dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken =
            JOBS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < MAX_JOBS).then_some(n + 1));
        taken.is_ok().then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        JOBS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use smol::future::block_on;

    use super::*;

    #[test]
    fn a_job_that_panics_is_an_error_to_who_asked() {
        assert_eq!(block_on(aside("test", || 7)).unwrap(), 7);
        let broken: Result<(), _> = block_on(aside("test", || panic!("as the test wants")));
        assert!(matches!(broken, Err(NotDone::BrokeOff { .. })));
    }

    #[test]
    fn an_address_needs_no_look_up_and_a_name_gets_one() {
        let found = block_on(resolve("192.0.2.7", 7)).unwrap();
        assert_eq!(found, ["192.0.2.7:7".parse::<SocketAddr>().unwrap()]);
        assert!(block_on(resolve("localhost", 7)).unwrap().iter().all(|a| a.ip().is_loopback()));
        assert!(block_on(resolve("no such name", 7)).is_err());
    }
}
