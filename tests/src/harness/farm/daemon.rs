//! A long-running program that is killed and started again with the same
//! arguments and state, as a power cut or a restart does it.

use std::ffi::OsString;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::{PATIENCE, Place};
use crate::harness::{HarnessError, Line, Process};

/// What the operating system lets a program have (setrlimit(2)); nothing is
/// limited by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Open files.
    pub files: Option<u64>,
    /// The size of a file, in blocks of 512 bytes; writing more fails.
    pub file_blocks: Option<u64>,
}

impl Limits {
    /// The same command under these limits: a shell sets them and becomes the
    /// program, whose process id stays.
    fn around(self, command: Command) -> Command {
        let mut script = String::new();
        if let Some(files) = self.files {
            script.push_str(&format!("ulimit -n {files} && "));
        }
        if let Some(blocks) = self.file_blocks {
            // Without the trap a write beyond the limit ends the program.
            script.push_str(&format!("trap '' XFSZ && ulimit -f {blocks} && "));
        }
        if script.is_empty() {
            return command;
        }
        script.push_str("exec \"$0\" \"$@\"");
        let mut limited = Command::new("sh");
        limited.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited
    }
}

/// One program and, while it runs, its process.
pub struct Daemon {
    limits: Limits,
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
        Self { limits: Limits::default(), place, program, arguments, ready, process: None }
    }

    /// What it may have from its next start on.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Further arguments, from its next start on.
    pub fn add_arguments(&mut self, arguments: impl IntoIterator<Item = OsString>) {
        self.arguments.extend(arguments);
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
        command.args(&self.arguments);
        let process = Process::spawn(self.program, &mut self.limits.around(command))?;
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
