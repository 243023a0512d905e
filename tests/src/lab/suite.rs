//! Many runs, several at once.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, mpsc};

use super::namespace::sweep;
use super::{Failed, LabError, Length, Outcome, Scenario, Topology, run};
use crate::harness::ending;

/// What is to be run.
pub struct Plan {
    /// Which scenarios.
    pub scenarios: Vec<&'static Scenario>,
    /// Where.
    pub topologies: Vec<&'static Topology>,
    /// How often each.
    pub runs: u32,
    /// How many labs at once; each keeps half a core busy now and then.
    pub jobs: usize,
    /// How long faults last.
    pub length: Length,
    /// For what is left to chance; each run has its own.
    pub seed: u64,
}

impl Plan {
    /// Every run, interleaved so that a slow minute of the machine hits all alike.
    fn queue(&self) -> VecDeque<(&'static Scenario, &'static Topology, u64)> {
        let mut queue = VecDeque::new();
        for round in 0..self.runs {
            for topology in &self.topologies {
                let scenarios = self.scenarios.iter().filter(|scenario| scenario.applies_to(topology));
                queue.extend(
                    scenarios.map(|scenario| (*scenario, *topology, self.seed.wrapping_add(round.into()))),
                );
            }
        }
        queue
    }

    /// How many runs there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.queue().len()
    }
}

/// Does them all, telling each as it is done.
///
/// # Errors
/// When no thread can be made. What fails in a run is told, not returned.
pub fn perform(plan: &Plan, mut tell: impl FnMut(Result<Outcome, Failed>)) -> Result<(), LabError> {
    sweep();
    let queue = Mutex::new(plan.queue());
    let (done, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            let (queue, done) = (&queue, done.clone());
            let work = move || {
                while !ending() {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((scenario, topology, seed)) = next else { return };
                    let result = run(scenario, topology, plan.length, seed);
                    let result = result.map_err(|error| Failed { scenario, topology, error });
                    // The receiver outlives all workers.
                    let _ = done.send(result);
                }
            };
            std::thread::Builder::new()
                .name("lab".to_owned())
                .spawn_scoped(scope, work)
                .map_err(LabError::io("starting a lab"))?;
        }
        drop(done);
        results.into_iter().for_each(&mut tell);
        Ok(())
    })
}
