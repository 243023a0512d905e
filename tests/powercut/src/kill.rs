//! `kill -9` in a loop on one state: everything that was ever acknowledged is
//! looked for after each.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use smol::future::block_on;

use crate::Failure;
use crate::check::{Disk, Expected, look};
use crate::random::Random;
use crate::workload::Session;

/// The longest that a program works before it is killed.
const LONGEST: usize = 60;

/// A program that announces nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cycles that were verified.
    pub cycles: usize,
    /// Readings at the end.
    pub readings: usize,
    /// How long it took.
    pub took: Duration,
}

/// Kills `cycles` programs in the middle of their work on one state.
///
/// # Errors
/// What was lost, altered or refused, with the cycle.
pub fn kills(program: &Path, place: &Path, cycles: usize, seed: u64) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let (state, acks) = (place.join("state"), place.join("acks"));
    let mut random = Random::new(seed);
    let mut expected = Expected::default();
    let mut first = 1u64;
    for cycle in 0..cycles {
        let failed = |error: Failure| format!("seed {seed}, cycle {cycle}: {error}");
        std::fs::write(&acks, "")?;
        let mut child = Command::new(program)
            .arg("workload")
            .arg(&state)
            .arg(&acks)
            .args([random.below(1 << 30).to_string(), "0".to_owned(), first.to_string(), "true".to_owned()])
            .stderr(Stdio::inherit())
            .spawn()?;
        // Once it works, a little longer.
        let begun = Instant::now();
        while std::fs::metadata(&acks)?.len() == 0 {
            if begun.elapsed() > PATIENCE || child.try_wait()?.is_some() {
                let _ = child.kill();
                return Err(failed("the program does not start".into()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(random.below(LONGEST) as u64));
        kill(Pid::from_raw(child.id().try_into()?), Signal::SIGKILL)?;
        child.wait()?;

        let text = std::fs::read_to_string(&acks)?;
        expected.hear(whole_lines(&text)).map_err(failed)?;
        first = expected.submitted.last().copied().unwrap_or(0).max(expected.sealing) + 1;
        block_on(async {
            let session = Session::open(&state)?;
            let found = look(&session, &expected, Disk::Honest).await?;
            expected.settle(&found);
            if cycle % 2 == 0 {
                session.close().await;
            } else {
                session.abandon().await;
            }
            Ok(())
        })
        .map_err(failed)?;
    }
    Ok(Outcome { cycles, readings: expected.recorded.len(), took: started.elapsed() })
}

/// A line is written at once, but the program may be killed within the call.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}
