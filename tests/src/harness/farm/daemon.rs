//! A long-running program that is killed and started again with the same
//! arguments and state, as a power cut or a restart does it.

use std::ffi::OsString;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::{PATIENCE, Place};
use crate::harness::{HarnessError, Line, Process};

/// One program and, while it runs, its process.
pub struct Daemon {
    place: Place,
    program: &'static str,
    arguments: Vec<OsString>,
    /// Recognises the line that says it is ready.
    ready: fn(&Line) -> bool,
    process: Option<Process>,
}

impl Daemon {
    /// A program that is not running yet.
    #[must_use]
    pub fn new(
        place: Place,
        program: &'static str,
        arguments: Vec<OsString>,
        ready: fn(&Line) -> bool,
    ) -> Self {
        Self { place, program, arguments, ready, process: None }
    }

    /// Where it runs from its next start on.
    pub fn move_to(&mut self, place: Place) {
        self.place = place;
    }

    /// Starts it and waits until it says it is ready: the time that took.
    ///
    /// # Errors
    /// When it runs already, can't be started, or is not ready in time.
    pub fn start(&mut self) -> Result<Duration, HarnessError> {
        if let Some(process) = self.process.as_ref().filter(|p| p.is_running()) {
            return Err(process.failed("runs already"));
        }
        let start = Instant::now();
        let mut command = self.place.command(self.program)?;
        let process = Process::spawn(self.program, command.args(&self.arguments))?;
        let ready = self.ready;
        // Kept from here on: one that is not ready in time is still ours to end.
        let process = self.process.insert(process);
        process.wait_for_line("that it is ready", PATIENCE, ready)?;
        Ok(start.elapsed())
    }

    /// SIGKILL, as a power cut: nothing is said or written any more.
    ///
    /// # Errors
    /// When it does not run or can't be killed.
    pub fn kill(&mut self) -> Result<(), HarnessError> {
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// SIGTERM, as `systemctl stop`, and waits for its end.
    ///
    /// # Errors
    /// When it does not run or does not end in time.
    pub fn terminate(&mut self) -> Result<ExitStatus, HarnessError> {
        let status = self.process()?.terminate(PATIENCE)?;
        self.process = None;
        Ok(status)
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_running)
    }

    /// Its process.
    ///
    /// # Errors
    /// When it was not started or was killed.
    pub fn process(&self) -> Result<&Process, HarnessError> {
        self.process.as_ref().ok_or_else(|| HarnessError::Program {
            name: self.program.to_owned(),
            problem: "does not run".to_owned(),
            output: String::new(),
        })
    }
}
