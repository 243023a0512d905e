//! How often the card is written: at once when something changes, seldom when
//! everything changes all the time.

use std::time::{Duration, Instant};

/// Writes in a row that go at once: a first start has some five.
const BURST: u32 = 20;

/// Then one each so often: 24 a day of some 20 kB each.
const EVERY: Duration = Duration::from_secs(3600);

/// A bucket of writes.
#[derive(Debug)]
pub(super) struct Pace {
    left: u32,
    filled: Instant,
}

impl Pace {
    /// A full one.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, filled: now }
    }

    /// Whether to write now; counts it if so.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.saturating_duration_since(self.filled) >= EVERY {
            self.filled += EVERY;
            self.left += 1;
        }
        if self.left == 0 {
            return false;
        }
        if self.left == BURST {
            self.filled = now;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flapping_link_does_not_wear_the_card() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let day = 24 * 3600;
        let written = (0..day).filter(|s| pace.take(start + Duration::from_secs(*s))).count();
        assert_eq!(written, BURST as usize + 23);
    }
}
