//! How many bytes may be spent on copies.

use std::time::{Duration, Instant};

/// Bytes a second for copies, on average: 8 Mbit/s. On a lossy radio the streams are slowed down to
/// what that covers (see [`Budget::pause`]); where the path is merely full, it bounds what copies add.
const RATE: f64 = (1 << 20) as f64;

/// Bytes at once: two copies of the two largest messages.
const BURST: f64 = (256 << 10) as f64;

/// This much is left to small packets (acknowledgements, pings, keystrokes), whose loss costs most.
const FOR_SMALL: f64 = BURST / 4.0;

/// A small packet.
const SMALL: usize = 300;

/// What may be spent.
#[derive(Debug)]
pub(super) struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// How many of `wanted` copies of so many bytes can be afforded; they count as spent.
    pub(super) fn afford(&mut self, wanted: usize, bytes: usize, now: Instant) -> usize {
        if wanted == 0 {
            return 0;
        }
        self.refill(now);
        let reserve = if bytes <= SMALL { 0.0 } else { FOR_SMALL };
        let cost = bytes as f64;
        let mut copies = 0;
        while copies < wanted && self.left - cost >= reserve {
            self.left -= cost;
            copies += 1;
        }
        copies
    }

    /// How long a message of so many bytes has to wait until so many copies of it can be afforded:
    /// bulk that outruns its copies is lost like before, and takes everything else with it into
    /// the engine's timers.
    pub(super) fn pause(&mut self, wanted: usize, bytes: usize, now: Instant) -> Option<Duration> {
        self.refill(now);
        let cost = (wanted * bytes) as f64;
        let missing = cost.min(BURST - FOR_SMALL) + FOR_SMALL - self.left;
        (missing > 0.0).then(|| Duration::from_secs_f64(missing / RATE) + Duration::from_millis(1))
    }

    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at);
        self.at = now;
        self.left = (self.left + since.min(Duration::from_secs(1)).as_secs_f64() * RATE).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_is_bounded_and_leaves_room_for_small_packets() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut spent = 0;
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            spent += 1_200 * budget.afford(2, 1_200, now);
            assert_eq!(budget.afford(2, 50, now), 2, "at {millisecond} ms");
        }
        let most = 10.0 * RATE + BURST;
        assert!((spent as f64) < most && spent as f64 > most / 2.0, "{spent} of {most}");
        assert_eq!(budget.afford(0, 50, start), 0);
        assert_eq!(budget.afford(1, 1 << 20, start), 0);
    }

    #[test]
    fn a_message_waits_until_its_copies_can_be_afforded() {
        let mut now = Instant::now();
        let start = now;
        let mut budget = Budget::new(now);
        let (message, mut sent) = (64 << 10, 0);
        while now < start + Duration::from_secs(10) {
            if let Some(pause) = budget.pause(2, message, now) {
                now += pause;
            }
            assert_eq!(budget.pause(2, message, now), None);
            assert_eq!(budget.afford(2, message, now), 2);
            sent += 2 * message;
        }
        assert!(sent as f64 > 9.0 * RATE, "{sent}");
        assert!(budget.pause(2, 1 << 30, now).is_some_and(|pause| pause < Duration::from_secs(1)));
        assert_eq!(budget.pause(2, 1 << 30, now + Duration::from_secs(1)), None, "or it would wait for ever");
    }
}
