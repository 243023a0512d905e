//! New farms all the time: what a broker acknowledged must never be lost.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use farm_broker::admin::{self, Answer, Request};
use farm_protocol::broker::Role;
use farm_protocol::id::FarmId;

use super::crew::{Member, from, key};
use crate::harness::{HarnessError, ending, until};

/// Between two new farms.
const EVERY: Duration = Duration::from_millis(200);

/// A farm that is not in after this long is given up: nothing was acknowledged.
const PATIENCE: Duration = Duration::from_secs(20);

/// Numbers of its farms begin here, far from the crew's.
const FIRST: u64 = 1_000_000;

/// A thread that enrolls farms until it is stopped.
pub(super) struct Enrolling {
    acknowledged: Arc<Mutex<BTreeSet<FarmId>>>,
    refused: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A token of the broker with this state directory.
pub(super) fn token(state: &std::path::Path) -> Result<String, String> {
    match admin::ask(state, &Request::Enroll { name: None, valid_seconds: 3600 }) {
        Ok(Answer::Token(token)) => Ok(token),
        Ok(Answer::Error(error)) => Err(error),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

impl Enrolling {
    /// By brokers with these state directories.
    pub(super) fn start(urls: Vec<String>, states: Vec<PathBuf>) -> Result<Self, HarnessError> {
        let (acknowledged, ended) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
        let refused = Arc::new(AtomicU64::new(0));
        let (known, stop, no) = (acknowledged.clone(), ended.clone(), refused.clone());
        let work = move || {
            for number in 0.. {
                std::thread::sleep(EVERY);
                if stop.load(Ordering::SeqCst) || ending() {
                    return;
                }
                let index = usize::try_from(number).unwrap_or(0) % states.len();
                // A broker that is being killed, or an engine without most of its nodes.
                let Ok(token) = token(&states[index]) else {
                    no.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                if let Ok(farm) = enroll(&from(&urls, index + 1), FIRST + number, token) {
                    known.lock().unwrap_or_else(PoisonError::into_inner).insert(farm);
                } else {
                    no.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let thread = std::thread::Builder::new().name("enrolling".to_owned()).spawn(work);
        let thread =
            thread.map_err(|source| HarnessError::Io { doing: "enrolling farms".to_owned(), source })?;
        Ok(Self { acknowledged, refused, ended, thread: Some(thread) })
    }

    /// The farms that were let in so far, and how many had to wait or try again.
    pub(super) fn acknowledged(&self) -> (BTreeSet<FarmId>, u64) {
        let known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (known, self.refused.load(Ordering::Relaxed))
    }
}

impl Drop for Enrolling {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It ends within its own patience; a panic in it is reported by itself.
            let _ended = thread.join();
        }
    }
}

/// A new farm comes with its token, and is let in.
fn enroll(brokers: &str, number: u64, token: String) -> Result<FarmId, HarnessError> {
    let key = key(Role::Farm, number)?;
    let farm = FarmId::of(&key.public());
    let member = Member::start(Role::Farm, key, brokers, Some(token), |_, _| {})?;
    until("a new farm to be let in", PATIENCE, || member.is_up().then_some(()))?;
    Ok(farm)
}
