//! One part of a run: its rows, and its time.

use std::time::{Duration, Instant};

use super::table::Row;
use crate::harness::ending;

/// Rows of one subject.
pub(super) struct Part {
    pub(super) group: &'static str,
    pub(super) rows: Vec<Row>,
}

impl Part {
    pub(super) fn new(group: &'static str) -> Self {
        Self { group, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }
}

/// Goes through `wanted` repetitions, fewer when their time is used up or the
/// run is to end; the first always runs.
pub(super) struct Repeat {
    end: Instant,
    wanted: usize,
    done: usize,
}

impl Repeat {
    pub(super) fn new(wanted: usize, share: Duration) -> Self {
        Self { end: Instant::now() + share, wanted, done: 0 }
    }

    /// Whether to go on; counts.
    pub(super) fn next(&mut self) -> bool {
        let time = self.done == 0 || (Instant::now() < self.end && !ending());
        let on = self.done < self.wanted && time;
        self.done += usize::from(on);
        on
    }

    /// What to say beside the figures when there are fewer than wanted.
    pub(super) fn remark(&self, noun: &str) -> Option<String> {
        (self.done < self.wanted).then(|| format!("{} of {} {noun}: time was up", self.done, self.wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_end_by_count_or_by_time() {
        let mut three = Repeat::new(3, Duration::from_secs(3_600));
        assert_eq!(std::iter::from_fn(|| three.next().then_some(())).count(), 3);
        assert_eq!(three.remark("runs"), None);
        let mut late = Repeat::new(3, Duration::ZERO);
        assert_eq!(std::iter::from_fn(|| late.next().then_some(())).count(), 1);
        assert_eq!(late.remark("runs").unwrap(), "1 of 3 runs: time was up");
    }
}
