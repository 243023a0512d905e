//! Proof of progress: every loop that matters is asked through the very queue
//! it lives on, and answers between two steps of its work. A loop that hangs
//! in the middle of a step answers nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One loop's side: what it selects on beside its work.
#[derive(Debug, Clone)]
pub struct Beat {
    asked: async_channel::Receiver<u64>,
    answered: Arc<AtomicU64>,
    heard: async_channel::Sender<()>,
    wedged: Arc<Mutex<Option<Instant>>>,
}

impl Beat {
    /// For a loop that nobody watches.
    pub fn unwatched() -> Self {
        let (_, asked) = async_channel::bounded(1);
        let (heard, _) = async_channel::bounded(1);
        Self { asked, answered: Arc::default(), heard, wedged: Arc::default() }
    }

    /// For the top of the loop: returns at once, unless [`Progress::wedge`]
    /// makes this loop hang.
    pub async fn pass(&self) {
        loop {
            let until = *self.wedged.lock().unwrap_or_else(PoisonError::into_inner);
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => smol::Timer::at(until).await,
                None => return,
            };
        }
    }

    /// Waits to be asked, and answers.
    pub async fn asked(&self) {
        match self.asked.recv().await {
            Ok(round) => {
                self.answered.fetch_max(round, Ordering::AcqRel);
                // Full: somebody is about to look anyway.
                let _ = self.heard.try_send(());
            }
            // Nobody asks any more, or never did.
            Err(_) => std::future::pending().await,
        }
    }
}

struct Loop {
    name: &'static str,
    ask: async_channel::Sender<u64>,
    /// The first round in which it was asked.
    since: Option<u64>,
    answered: Arc<AtomicU64>,
    wedged: Arc<Mutex<Option<Instant>>>,
}

/// Every loop that must make progress.
#[derive(Clone)]
pub struct Progress {
    loops: Arc<Mutex<Vec<Loop>>>,
    /// Something was answered since the last look.
    heard: async_channel::Receiver<()>,
    hear: async_channel::Sender<()>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// None yet.
    pub fn new() -> Self {
        let (hear, heard) = async_channel::bounded(1);
        Self { loops: Arc::default(), heard, hear }
    }

    /// Adds a loop. It is watched until its [`Beat`] is dropped.
    pub fn watch(&self, name: &'static str) -> Beat {
        // Room for one question: asking again before an answer adds nothing.
        let (ask, asked) = async_channel::bounded(1);
        let answered = Arc::new(AtomicU64::new(0));
        let wedged = Arc::default();
        let entry = Loop { name, ask, since: None, answered: answered.clone(), wedged: Arc::clone(&wedged) };
        self.loops.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        Beat { asked, answered, heard: self.hear.clone(), wedged }
    }

    /// The names of the loops, each once.
    pub fn names(&self) -> Vec<&'static str> {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let names: BTreeSet<_> = loops.iter().filter(|l| !l.ask.is_closed()).map(|l| l.name).collect();
        names.into_iter().collect()
    }

    /// Fault injection: the loops of this name hang for that long. Says how
    /// many there are.
    pub fn wedge(&self, name: &str, lasting: Duration) -> usize {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let named = loops.iter().filter(|l| l.name == name && !l.ask.is_closed());
        named
            .map(|entry| {
                *entry.wedged.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + lasting);
                // Makes it come by at once; an answer to no round counts for nothing.
                let _ = entry.ask.try_send(0);
            })
            .count()
    }

    /// Asks every loop; `round` grows.
    pub fn ask(&self, round: u64) {
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.retain(|l| !l.ask.is_closed());
        for entry in loops.iter_mut() {
            entry.since.get_or_insert(round);
            // Full: the last question has not been answered, which is what counts.
            let _ = entry.ask.try_send(round);
        }
    }

    /// Waits until every loop has answered this round's question, for `most` at
    /// the longest; the loops that have not.
    pub async fn answers(&self, round: u64, most: Duration) -> Vec<&'static str> {
        let all = async {
            while !self.silent(round).is_empty() {
                // Never closed: this end sends, too.
                let _ = self.heard.recv().await;
            }
        };
        let late = async {
            smol::Timer::after(most).await;
        };
        smol::future::or(all, late).await;
        self.silent(round)
    }

    /// The loops that have not answered this round's question.
    pub fn silent(&self, round: u64) -> Vec<&'static str> {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops
            .iter()
            // One that began in the middle of the round was not asked yet.
            .filter(|l| !l.ask.is_closed() && l.since.is_some() && l.answered.load(Ordering::Acquire) < round)
            .map(|l| l.name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hung_loop_is_named_and_a_gone_one_is_not() {
        smol::future::block_on(async {
            let progress = Progress::new();
            let (good, hung, gone) = (progress.watch("good"), progress.watch("hung"), progress.watch("gone"));
            drop(gone);
            progress.ask(1);
            good.asked().await;
            assert_eq!(progress.silent(1), ["hung"]);
            hung.asked().await;
            assert!(progress.silent(1).is_empty());
            let late = progress.watch("late");
            assert!(progress.silent(1).is_empty(), "a loop is judged only after it was asked");
            drop(late);
            progress.ask(2);
            assert_eq!(progress.silent(2), ["good", "hung"], "an old answer does not count");
        });
    }

    #[test]
    fn the_last_answer_ends_the_wait_and_a_missing_one_does_not_prolong_it() {
        smol::block_on(async {
            let progress = Progress::new();
            let (first, second) = (progress.watch("first"), progress.watch("second"));
            progress.ask(1);
            let never = Duration::from_secs(3600);
            let both = smol::future::zip(progress.answers(1, never), async {
                first.asked().await;
                second.asked().await;
            });
            assert!(both.await.0.is_empty());
            progress.ask(2);
            first.asked().await;
            assert_eq!(progress.answers(2, Duration::from_millis(10)).await, ["second"]);
        });
    }

    #[test]
    fn a_wedged_loop_hangs_is_named_and_goes_on() {
        smol::block_on(async {
            let progress = Progress::new();
            let beat = progress.watch("farm");
            assert_eq!(progress.wedge("nobody", Duration::from_secs(1)), 0);
            let lasting = Duration::from_millis(50);
            assert_eq!(progress.wedge("farm", lasting), 1);
            let start = Instant::now();
            beat.asked().await;
            progress.ask(1);
            assert_eq!(progress.silent(1), ["farm"]);
            beat.pass().await;
            assert!(start.elapsed() >= lasting);
            beat.asked().await;
            assert!(progress.silent(1).is_empty());
        });
    }
}
