//! Many cuts: recordings made once, images played by every core.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::check::{Disk, Expected, survive};
use crate::image::Image;
use crate::random::Random;
use crate::recording::Recording;
use crate::shim::Shim;

/// Transactions of one recording: two or three sessions, a database of a few
/// segments.
const ROUNDS: usize = 250;

/// Recordings, each with another seed.
const RECORDINGS: u64 = 6;

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cuts played.
    pub cuts: usize,
    /// Acknowledged readings that were looked for, over all cuts.
    pub readings: usize,
    /// What went wrong, each with how to play it again.
    pub failures: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// One cut, to be played again.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// The recording's seed.
    pub recording: u64,
    /// The cut's.
    pub cut: u64,
}

/// Where states are made: in memory, where there is a place for it.
#[must_use]
pub fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// sled reports damage by panics, which the store contains: thousands of their
/// messages would only hide what matters. Those of others are shown.
pub fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(|at| at.file().contains("/sled-")) {
                shown(panic);
            }
        }));
    });
}

/// Plays `cuts` power cuts, spread over several recordings. `unsync` leaves
/// out fsyncs in the recorded program.
///
/// # Errors
/// When nothing can be recorded; what a cut breaks is in the outcome.
pub fn power_cuts(program: &Path, cuts: usize, seed: u64, unsync: Option<&str>) -> Result<Outcome, Failure> {
    hush();
    let started = Instant::now();
    let place = tempfile::Builder::new().prefix("powercut").tempdir_in(scratch())?;
    let shim = Shim::build(place.path())?;
    let mut recordings = Vec::new();
    for number in seed..seed + RECORDINGS {
        let dir = place.path().join(format!("recording-{number}"));
        std::fs::create_dir(&dir)?;
        recordings.push((number, Recording::make(&shim, program, &dir, number, ROUNDS, unsync)?));
        std::fs::remove_dir_all(dir)?;
    }
    let outcome = Mutex::new(Outcome::default());
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= cuts {
                return;
            }
            let (number, recording) = &recordings[at % recordings.len()];
            let cut = Cut { recording: *number, cut: at as u64 };
            let played = play(recording, cut, place.path());
            let mut outcome = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            outcome.cuts += 1;
            match played {
                Ok(readings) => outcome.readings += readings,
                Err(error) => outcome.failures.push(format!("{cut:?}: {error}")),
            }
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut outcome = outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcome.took = started.elapsed();
    Ok(outcome)
}

fn play(recording: &Recording, cut: Cut, place: &Path) -> Result<usize, Failure> {
    let mut random = Random::new(cut.recording << 32 | cut.cut);
    let at = random.between(1, recording.events.len());
    let mut expected = Expected::default();
    expected.hear(recording.announced(at))?;
    let looked_for = expected.recorded.len();
    let dir = tempfile::Builder::new().prefix("cut").tempdir_in(place)?;
    let state = dir.path().join("state");
    Image::after(recording, at, &mut random).write(&state)?;
    survive(&state, expected, Disk::Honest)
        .map_err(|error| format!("after {at} of {} events: {error}", recording.events.len()))?;
    Ok(looked_for)
}
