//! The handle on the readings' log: what other tasks ask of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farm_store::Store;
use farm_tunnel::aside::{NotDone, aside};
use farm_tunnel::clock::Clock;

use super::block::{Moment, Sample};
use super::log::Limits;
use super::query::{self, Page};
use crate::clocks::Stamper;

/// One request holds at most so many readings.
pub const MAX_SAMPLES: usize = 64;

/// Followers at once: as many as the farm can have sessions.
pub const MAX_FOLLOWERS: usize = 32;

/// Why a reading was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The store refused or failed.
    #[error("not recorded: {0}")]
    Store(#[from] farm_store::Error),
    /// The agent ends.
    #[error("not recorded: the agent is stopping")]
    Stopping,
}

/// How the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How much is kept.
    pub limits: Limits,
    /// The shortest time between two commits in the long run, see [`Pace`].
    pub interval: Duration,
}

/// How the log stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The newest durable number; 0 for none.
    pub newest: u64,
    /// Bytes of all blocks; 0 until they have been counted.
    pub bytes: u64,
    /// Readings pruned since the start.
    pub pruned: u64,
    /// Readings refused by the store since the start.
    pub failed: u64,
    /// Phones that follow.
    pub followers: usize,
}

/// What becomes of one request.
pub(super) type Answered = Result<u64, RecordError>;

/// What is asked of the writer.
pub(super) enum Request {
    Record { samples: Vec<Sample>, at: Moment, reply: async_channel::Sender<Answered> },
    ClockChanged,
    Configure(Settings),
    Stop { reply: async_channel::Sender<()> },
}

/// What the writer shows to others.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) newest: AtomicU64,
    pub(super) given: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) pruned: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) followers: Mutex<Vec<async_channel::Sender<()>>>,
}

/// A handle on the log. Clones are handles on the same one.
#[derive(Clone)]
pub struct Readings {
    pub(super) requests: async_channel::Sender<Request>,
    pub(super) shown: Arc<Shown>,
    pub(super) stamper: Stamper,
    pub(super) store: Store,
}

impl Readings {
    /// Records readings of this moment, together; gives the number of the
    /// first once they are durable. At most [`MAX_SAMPLES`].
    ///
    /// # Errors
    /// [`RecordError`]: they may or may not be there, under numbers that are
    /// not used again.
    pub async fn record(&self, samples: Vec<Sample>) -> Result<u64, RecordError> {
        let answer = self.submit(samples).await?;
        answer.recv().await.unwrap_or(Err(RecordError::Stopping))
    }

    /// [`Self::record`] in two steps, for who goes on before the answer is
    /// there. Waits while the queue is full.
    ///
    /// # Errors
    /// [`RecordError::Stopping`].
    pub async fn submit(
        &self,
        samples: Vec<Sample>,
    ) -> Result<async_channel::Receiver<Answered>, RecordError> {
        debug_assert!(samples.len() <= MAX_SAMPLES);
        let (reply, answer) = async_channel::bounded(1);
        let request = Request::Record { samples, at: self.stamper.now(), reply };
        self.requests.send(request).await.map_err(|_| RecordError::Stopping)?;
        Ok(answer)
    }

    /// What follows the number `after`, as far as it is durable.
    ///
    /// # Errors
    /// When the store is not available.
    pub async fn page(&self, after: u64) -> Result<Page, farm_store::Error> {
        let (store, newest) = (self.store.clone(), self.newest());
        aside("farm-read", move || query::page(&store, after, newest)).await.unwrap_or_else(not_read)
    }

    /// The newest durable number; 0 for none.
    pub fn newest(&self) -> u64 {
        self.shown.newest.load(Ordering::Acquire)
    }

    /// The newest number that a phone may have: more than [`Self::newest`]
    /// where the card lost some.
    pub fn given(&self) -> u64 {
        self.shown.given.load(Ordering::Acquire)
    }

    /// Gets a token whenever there may be something new; `None` where there
    /// are too many who want one.
    pub fn follow(&self) -> Option<async_channel::Receiver<()>> {
        let mut followers = self.shown.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| !follower.is_closed());
        if followers.len() >= MAX_FOLLOWERS {
            return None;
        }
        let (token, tokens) = async_channel::bounded(1);
        followers.push(token);
        Some(tokens)
    }

    /// The clock may have become trusted.
    pub fn clock_changed(&self) {
        // Full: the next commit looks by itself.
        let _ = self.requests.try_send(Request::ClockChanged);
    }

    /// The clock that stamps readings.
    pub fn clock(&self) -> &Clock {
        &self.stamper.clock
    }

    /// Goes on with other settings.
    pub async fn configure(&self, settings: Settings) {
        // Closed: nothing goes on.
        let _ = self.requests.send(Request::Configure(settings)).await;
    }

    /// Writes what waits and ends in good order.
    pub async fn stop(&self) {
        let (reply, done) = async_channel::bounded(1);
        if self.requests.send(Request::Stop { reply }).await.is_ok() {
            let _ended = done.recv().await;
        }
    }

    /// How the log stands.
    pub fn standing(&self) -> Standing {
        let shown = &self.shown;
        let mut followers = shown.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| !follower.is_closed());
        Standing {
            newest: shown.newest.load(Ordering::Acquire),
            bytes: shown.bytes.load(Ordering::Relaxed),
            pruned: shown.pruned.load(Ordering::Relaxed),
            failed: shown.failed.load(Ordering::Relaxed),
            followers: followers.len(),
        }
    }
}

/// A read that was not done at all.
pub(super) fn not_read<T>(why: NotDone) -> Result<T, farm_store::Error> {
    Err(farm_store::Error::Unavailable { why: why.to_string() })
}
