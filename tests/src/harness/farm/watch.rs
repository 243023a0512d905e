//! A status command that prints one JSON object a line for as long as it runs.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{HarnessError, Line, Process, Source};

/// A status and when it was printed.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When its line was read.
    pub at: Instant,
    /// The object.
    pub status: Value,
}

/// A running `status --json --watch`.
pub struct Watch {
    process: Process,
}

impl Watch {
    /// Starts the command.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self, HarnessError> {
        Ok(Self { process: Process::spawn(name, command)? })
    }

    /// The newest status.
    #[must_use]
    pub fn newest(&self) -> Option<Value> {
        let line = self.process.newest_line(|line| object(line).is_some())?;
        object(&line)
    }

    /// Whether it still runs; one that ended shows nothing new any more.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Waits for a status that `wanted` accepts: the newest one or one to come.
    ///
    /// # Errors
    /// When the command ends or none comes `within`.
    pub fn wait(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Seen, HarnessError> {
        let newest = self.process.newest_line(|line| object(line).is_some());
        self.wait_from(newest.map_or(0, |line| line.number), what, within, wanted)
    }

    /// Waits for a status printed from now on.
    ///
    /// # Errors
    /// When the command ends or none comes `within`.
    pub fn wait_for_new(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Seen, HarnessError> {
        self.wait_from(self.process.mark(), what, within, wanted)
    }

    fn wait_from(
        &self,
        from: u64,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Seen, HarnessError> {
        let line = self.process.wait_for_line_since(from, what, within, |line| {
            object(line).is_some_and(|status| wanted(&status))
        })?;
        let status = object(&line).ok_or_else(|| self.process.failed("printed no status"))?;
        Ok(Seen { at: line.at, status })
    }
}

/// The status in a line, if it is one.
fn object(line: &Line) -> Option<Value> {
    if line.source != Source::Stdout {
        return None;
    }
    serde_json::from_str(&line.text).ok().filter(Value::is_object)
}

/// The JSON a command printed.
pub(super) fn json(name: &str, printed: &str) -> Result<Value, HarnessError> {
    serde_json::from_str(printed).map_err(|_| HarnessError::Unexpected {
        name: name.to_owned(),
        expected: "JSON",
        got: printed.to_owned(),
    })
}
