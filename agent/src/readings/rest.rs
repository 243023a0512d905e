//! When the database is closed and opened again, to give back the memory of
//! many readings. Pure.
//!
//! sled keeps the pages that it has written or read until they exceed its
//! cache: 5 MB after a hundred thousand readings, of the agent's twelve. After
//! an open it holds next to nothing. But an open writes a megabyte.

use std::time::{Duration, Instant};

/// Bytes of blocks that passed through memory before a rest is worth it.
/// Readings that come alone write two hundred times that to the card.
const MANY: u64 = 1 << 20;

/// No commit for so long: the burst is over. More than the pause between two
/// rounds of sensors that are read every second.
const QUIET: Duration = Duration::from_secs(3);

/// Between two rests: whatever programs do, these cost the card less than a
/// hundred readings a second.
const SPACING: Duration = Duration::from_secs(60);

/// Where commits never pause, so long after the last rest. A rest holds commits
/// up for some 30 ms.
const AT_LEAST: Duration = Duration::from_secs(600);

/// Somebody reads: a page takes milliseconds.
const AGAIN: Duration = Duration::from_secs(1);

/// Counts what passes through the database's memory and says when to rest.
#[derive(Debug)]
pub struct Rest {
    bytes: u64,
    /// When that was last.
    busy: Instant,
    not_before: Instant,
    /// Not later than this, busy or not.
    latest: Instant,
}

impl Rest {
    /// For a database that was just opened.
    pub fn new(now: Instant) -> Self {
        Self { bytes: 0, busy: now, not_before: now, latest: now + AT_LEAST }
    }

    /// Blocks of so many bytes were written, or read all at once.
    pub fn used(&mut self, bytes: u64, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.busy = now;
    }

    /// When to rest, and why; `None` while it is not worth it.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.bytes < MANY {
            return None;
        }
        let quiet = self.busy + QUIET;
        let (when, why) =
            if self.latest < quiet { (self.latest, "never quiet") } else { (quiet, "quiet again") };
        Some((when.max(self.not_before), why))
    }

    /// Whether it was done.
    pub fn tried(&mut self, done: bool, now: Instant) {
        if done {
            *self = Self { not_before: now + SPACING, ..Self::new(now) };
        } else {
            self.not_before = now + AGAIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn little_is_not_worth_a_rest_and_many_are_when_it_is_quiet() {
        let start = Instant::now();
        let mut rest = Rest::new(start);
        rest.used(MANY - 1, start);
        assert_eq!(rest.poll_timeout(), None);
        rest.used(1, start + SECOND);
        rest.used(0, start + 2 * SECOND);
        assert_eq!(rest.poll_timeout().unwrap().0, start + 2 * SECOND + QUIET);
    }

    #[test]
    fn whoever_reads_is_waited_for_and_after_a_rest_all_begins_anew() {
        let start = Instant::now();
        let mut rest = Rest::new(start);
        rest.used(MANY, start);
        let (when, _) = rest.poll_timeout().unwrap();
        rest.tried(false, when);
        assert_eq!(rest.poll_timeout().unwrap().0, when + AGAIN);
        rest.tried(true, when + AGAIN);
        assert_eq!(rest.poll_timeout(), None);
        rest.used(MANY, when + AGAIN);
        assert_eq!(rest.poll_timeout().unwrap().0, when + AGAIN + SPACING, "the card is spared");
    }

    #[test]
    fn commits_that_never_pause_are_interrupted_seldom() {
        let start = Instant::now();
        let (mut now, mut rest, mut rests) = (start, Rest::new(start), 0);
        while now < start + 36 * AT_LEAST {
            now += SECOND / 10;
            if rest.poll_timeout().is_some_and(|(when, _)| when <= now) {
                rest.tried(true, now);
                rests += 1;
            }
            rest.used(4096, now);
        }
        assert!((34..=36).contains(&rests), "{rests}");
    }
}
