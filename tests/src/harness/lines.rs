//! What a program prints: the newest lines, and a way to wait for one.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Lines kept per program; a debug log of some minutes.
const KEPT: usize = 4_000;
/// A longer line is cut into pieces of this, bytes.
const LONGEST: u64 = 64 * 1024;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One printed line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Counts from 0 over both sources, in the order they were read.
    pub number: u64,
    /// When it was read.
    pub at: Instant,
    /// Where it came from.
    pub source: Source,
    /// The line without its end.
    pub text: String,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Line>,
    next: u64,
    /// Sources that have not ended.
    open: usize,
}

/// The newest lines of one program.
pub(super) struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

/// Why a wait for a line ended without it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoLine {
    /// The deadline passed.
    Late,
    /// Both sources ended.
    Ended,
}

impl Lines {
    /// A ring fed by `sources` readers.
    pub(super) fn new(sources: usize) -> Self {
        let state = State { open: sources, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Reads one source to its end, copying it to `copy` as well.
    pub(super) fn collect(&self, source: Source, input: impl Read, mut copy: impl Write) {
        let mut input = BufReader::new(input);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match (&mut input).take(LONGEST).read_until(b'\n', &mut bytes) {
                Ok(1..) => {
                    // A copy that can't be written must not end the program by a full pipe.
                    let _ = copy.write_all(&bytes);
                    self.push(source, &bytes);
                }
                // A broken pipe is an end like another.
                Ok(0) | Err(_) => break,
            }
        }
        self.lock().open -= 1;
        self.changed.notify_all();
    }

    fn push(&self, source: Source, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        let mut state = self.lock();
        if state.lines.len() == KEPT {
            state.lines.pop_front();
        }
        let number = state.next;
        state.next += 1;
        state.lines.push_back(Line { number, at: Instant::now(), source, text });
        self.changed.notify_all();
    }

    /// The number the next line will have.
    pub(super) fn next(&self) -> u64 {
        self.lock().next
    }

    /// All lines still kept.
    pub(super) fn all(&self) -> Vec<Line> {
        self.lock().lines.iter().cloned().collect()
    }

    /// The newest line that `wanted` accepts.
    pub(super) fn newest(&self, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        self.lock().lines.iter().rev().find(|l| wanted(l)).cloned()
    }

    /// The first line from number `from` on that `wanted` accepts, waiting until `deadline`.
    pub(super) fn wait(
        &self,
        from: u64,
        deadline: Instant,
        mut wanted: impl FnMut(&Line) -> bool,
    ) -> Result<Line, NoLine> {
        let mut state = self.lock();
        let mut from = from;
        loop {
            let found = state.lines.iter().find(|l| l.number >= from && wanted(l));
            if let Some(line) = found {
                return Ok(line.clone());
            }
            from = from.max(state.next);
            if state.open == 0 {
                return Err(NoLine::Ended);
            }
            let Some(left) = left(deadline) else {
                return Err(NoLine::Late);
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the lock is released: a panicking
        // predicate leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time until `deadline`, None when it has passed.
pub(super) fn left(deadline: Instant) -> Option<std::time::Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_newest_lines_are_kept_and_numbers_go_on() {
        let lines = Lines::new(1);
        let input = (0..KEPT + 10).map(|n| format!("{n}\n")).collect::<String>();
        lines.collect(Source::Stdout, input.as_bytes(), std::io::sink());
        let all = lines.all();
        assert_eq!(all.len(), KEPT);
        assert_eq!((all[0].number, all[0].text.as_str()), (10, "10"));
    }

    #[test]
    fn a_wait_ends_with_the_program_or_its_deadline() {
        let deadline = Instant::now() + Duration::from_secs(60);
        let lines = Lines::new(1);
        let mut copy = Vec::new();
        lines.collect(Source::Stderr, b"one\ntwo".as_slice(), &mut copy);
        assert_eq!(copy, b"one\ntwo");
        let found = lines.wait(0, deadline, |l| l.text == "two").unwrap();
        assert_eq!(found.number, 1);
        let none = lines.wait(2, deadline, |_| true).unwrap_err();
        assert_eq!(none, NoLine::Ended);
        let none = Lines::new(1).wait(0, Instant::now(), |_| true).unwrap_err();
        assert_eq!(none, NoLine::Late);
    }
}
