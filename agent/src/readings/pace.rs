//! How often the writer commits: what decides how long the card lives. Pure.
//!
//! Every commit costs the card about 8 KB however little is in it. So a
//! reading that comes alone is written at once, and where many come they wait
//! a little for each other.

use std::time::{Duration, Instant};

/// Commits that may follow each other without a pause after some quiet: a
/// program that records the sensors of a greenhouse one by one does not wait.
const BURST: u32 = 200;

/// This many waiting readings are worth a commit at once.
pub const ENOUGH: usize = 64;

/// A bucket of commits: refilled by one each interval, up to [`BURST`].
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// When the bucket would be full.
    full_at: Instant,
}

impl Pace {
    /// At most one commit in each `interval` in the long run; zero for no limit.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, full_at: now }
    }

    /// Another interval, from a new config.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// When the next commit may begin.
    pub fn ready_at(&self, now: Instant) -> Instant {
        let burst = self.interval * (BURST - 1);
        now.max(self.full_at.checked_sub(burst).unwrap_or(now))
    }

    /// A commit begins.
    pub fn take(&mut self, now: Instant) {
        // Commits at once, because enough waits, make no debt: whoever comes
        // after them waits for one interval at most.
        self.full_at = (self.full_at.max(now) + self.interval).min(now + self.interval * BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    /// What each takes.
    const COMMIT: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_is_free_and_a_stream_is_paced() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL, start);
        let mut now = start;
        let mut commits = 0;
        while now < start + Duration::from_secs(10) {
            now = pace.ready_at(now);
            pace.take(now);
            commits += 1;
            if commits == BURST {
                assert_eq!(now, start + COMMIT * (BURST - 1), "the burst waits for nothing");
            }
            now += COMMIT;
        }
        assert!((BURST + 99..=BURST + 102).contains(&commits), "{commits}");
    }

    #[test]
    fn nobody_waits_longer_than_an_interval_whatever_was_before() {
        let now = Instant::now();
        let mut pace = Pace::new(INTERVAL, now);
        for _ in 0..100_000 {
            pace.take(now);
        }
        assert_eq!(pace.ready_at(now), now + INTERVAL);
    }

    #[test]
    fn ten_a_second_never_wait_and_zero_is_no_limit() {
        let mut now = Instant::now();
        let mut pace = Pace::new(INTERVAL, now);
        for _ in 0..1000 {
            assert_eq!(pace.ready_at(now), now);
            pace.take(now);
            now += INTERVAL;
        }
        pace.set_interval(Duration::ZERO);
        for _ in 0..1000 {
            pace.take(now);
        }
        assert!(pace.ready_at(now) <= now + INTERVAL);
    }
}
