//! How much of a time a farm was here, counting only while the broker ran.

use serde::{Deserialize, Serialize};

/// From when to when, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first second.
    pub from: u64,
    /// Just after the last.
    pub until: u64,
}

impl Span {
    /// A span that ends before it begins, as after a step of the clock, is empty.
    fn seconds(self) -> u64 {
        self.until.saturating_sub(self.from)
    }

    fn overlap(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }
}

/// What of a time is known, and how much of that the farm was here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Availability {
    /// Seconds that the farm was connected.
    pub up_seconds: u64,
    /// Seconds that the broker ran and the farm was known to it.
    pub counted_seconds: u64,
}

impl Availability {
    /// Of 100; `None` where nothing is known.
    pub fn percent(&self) -> Option<f64> {
        (self.counted_seconds > 0).then(|| self.up_seconds as f64 * 100.0 / self.counted_seconds as f64)
    }
}

/// Of `window`: the farm was here in the spans `up`, the broker ran in `runs`.
/// Neither overlaps itself.
pub fn availability(up: &[Span], runs: &[Span], window: Span) -> Availability {
    let mut total = Availability::default();
    for run in runs {
        let run = run.overlap(window);
        total.counted_seconds += run.seconds();
        total.up_seconds += up.iter().map(|span| span.overlap(run).seconds()).sum::<u64>();
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, until: u64) -> Span {
        Span { from, until }
    }

    #[test]
    fn only_the_brokers_own_time_counts() {
        // Here from 100 to 300 and from 400 on; the broker was down 200 to 450.
        let (up, runs) = ([span(100, 300), span(400, 1000)], [span(0, 200), span(450, 1000)]);
        let all = availability(&up, &runs, span(0, 1000));
        assert_eq!(all, Availability { up_seconds: 100 + 550, counted_seconds: 200 + 550 });
        assert_eq!(all.percent().map(|percent| percent.round()), Some(87.0));
        assert_eq!(availability(&up, &runs, span(210, 440)).percent(), None);
        assert_eq!(availability(&up, &runs, span(950, 1000)).percent(), Some(100.0));
        assert_eq!(availability(&[span(9, 3)], &runs, span(0, 100)).up_seconds, 0, "the clock went back");
    }
}
