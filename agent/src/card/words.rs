//! Why the agent does not answer: what it said before it ended, from the log.

use std::process::Command;
use std::time::{Duration, Instant};

/// A start takes seconds; who answers by then has nothing to explain.
const STARTING: Duration = Duration::from_secs(10);

/// Between two looks at the log, which costs a program's start.
const LOOK: Duration = Duration::from_secs(15);

/// Longest word of the agent's that is passed on, in bytes.
const MOST: usize = 500;

/// How an error begins that the agent ends with.
const ERROR: &str = "farm-agent: ";

/// Watches how long the agent has been silent.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    looked: Option<Instant>,
    words: Option<String>,
}

impl Silence {
    /// It has answered.
    pub(super) fn over(&mut self) {
        *self = Self::default();
    }

    /// It does not answer: its last words, once it should.
    pub(super) fn goes_on(&mut self, now: Instant, read: impl FnOnce() -> Option<String>) -> Option<String> {
        let since = *self.since.get_or_insert(now);
        let due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK);
        if now.saturating_duration_since(since) >= STARTING && due {
            self.looked = Some(now);
            self.words = read();
        }
        self.words.clone()
    }
}

/// The newest line that the agent wrote, if it is an error it ended with.
pub(super) fn last() -> Option<String> {
    let mut command = Command::new("journalctl");
    command.args(["--boot", "--quiet", "--no-pager", "--output=cat", "--lines=1"]);
    let done = command.args(["_SYSTEMD_UNIT=farm-agent.service", "_COMM=farm-agent"]).output();
    match done {
        Ok(output) => error(&String::from_utf8_lossy(&output.stdout)),
        Err(error) => {
            tracing::debug!(%error, "journalctl");
            None
        }
    }
}

fn error(line: &str) -> Option<String> {
    let words = line.trim().strip_prefix(ERROR)?;
    let end = (0..=MOST.min(words.len())).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
    Some(words[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_has_its_time_and_the_log_is_read_seldom() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        let mut reads = 0;
        let mut words = None;
        for second in 0..=40 {
            words = silence.goes_on(start + Duration::from_secs(second), || {
                reads += 1;
                Some(format!("at {second}"))
            });
            assert_eq!(words.is_some(), second >= 10, "{second}");
        }
        assert_eq!((reads, words.as_deref()), (3, Some("at 40")));
        silence.over();
        assert_eq!(silence.goes_on(start + Duration::from_secs(50), || Some("old".to_owned())), None);
    }

    #[test]
    fn only_an_error_that_ended_it_counts() {
        assert_eq!(error("farm-agent: no space left\n").as_deref(), Some("no space left"));
        assert_eq!(error("2026-11-26T15:10:15Z  INFO stopping\n"), None);
        assert_eq!(error(""), None);
        assert_eq!(error(&format!("{ERROR}{}", "ö".repeat(MOST))).unwrap().len(), MOST);
    }
}
