//! When to try again, and how often at most.
//!
//! Nothing here reads a clock or a source of entropy: the seed comes from the
//! caller, so that a run can be repeated exactly.

use std::time::{Duration, Instant};

/// The first retry comes within this time: a single blip should cost nothing,
/// and 50 ms is enough to spread the devices of one broker that just closed.
pub const FIRST_RETRY_WITHIN: Duration = Duration::from_millis(50);

/// How long a connection must have been up before its loss counts as a new
/// failure. Longer than the 8 s the link waits at most, so that a server
/// that accepts and closes at once is never tried faster than one that is down.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The longest wait a server can ask for. It may be wrong or hostile, and a
/// farm that was told "in a year" would be lost until someone drives there.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A seeded source of randomness for delays (splitmix64: Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014). It spreads
/// load and is no secret: never use it for keys or nonces.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// The sequence that belongs to `seed`; devices must differ in theirs.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly spread over `0..=most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let span = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
        let scaled = u128::from(self.next_u64()) * (u128::from(span) + 1);
        Duration::from_nanos((scaled >> 64) as u64)
    }

    /// Evenly spread over `least..=most`; `least` when `most` is smaller.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + self.up_to(most.saturating_sub(least))
    }
}

/// Delays between attempts: the first at once, then exponential with full
/// jitter. It has no last attempt.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
    jitter: Jitter,
}

impl Backoff {
    /// The second retry waits up to `base`, each further one up to twice as
    /// long, none longer than `cap`.
    pub fn new(base: Duration, cap: Duration, jitter: Jitter) -> Self {
        Self { base, cap, attempts: 0, jitter }
    }

    /// How long to wait before the next attempt, which this call counts.
    pub fn next_delay(&mut self) -> Duration {
        let most = match self.attempts {
            0 => FIRST_RETRY_WITHIN,
            // 2^20 times any sensible base is past any sensible cap.
            tried => self.base.saturating_mul(1 << (tried - 1).min(20)),
        };
        self.attempts = self.attempts.saturating_add(1);
        self.jitter.up_to(most.min(self.cap))
    }

    /// How long to wait when the server named the time: never less than
    /// it said (up to [`MAX_RETRY_AFTER`]), and spread over as much again
    /// within 1 to 10 s, because it told everyone the same.
    pub fn retry_after(&mut self, told: Duration) -> Duration {
        let told = told.min(MAX_RETRY_AFTER);
        let spread = told.clamp(Duration::from_secs(1), Duration::from_secs(10));
        told + self.jitter.up_to(spread)
    }

    /// Something positive happened (the network changed or came back): the
    /// next attempt is a first one again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// A connection ended after it was up for `up_for`. Returns whether that
    /// was long enough ([`STABLE_AFTER`]) to start again from the first delay.
    pub fn ended_after(&mut self, up_for: Duration) -> bool {
        let stable = up_for >= STABLE_AFTER;
        if stable {
            self.reset();
        }
        stable
    }

    /// Delays handed out since the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The source of randomness, for delays that are not retries.
    pub fn jitter(&mut self) -> &mut Jitter {
        &mut self.jitter
    }
}

/// At most `burst` events at once and one per `every` in the long run (the
/// generic cell rate algorithm of ITU-T I.371): any span of time `t` sees at
/// most `burst + t / every` of them, and none waits longer than `every`.
#[derive(Debug, Clone)]
pub struct RateLimit {
    burst: u32,
    every: Duration,
    /// When the allowance will be whole again.
    whole_at: Option<Instant>,
}

impl RateLimit {
    /// A limit with its whole burst at hand (at least 1).
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { burst: burst.max(1), every, whole_at: None }
    }

    /// The earliest moment, not before `now`, at which one more is allowed.
    pub fn ready_at(&self, now: Instant) -> Instant {
        self.ready_keeping(0, now)
    }

    /// The same, with `kept` of the burst (less than all of it) left for what matters more.
    pub fn ready_keeping(&self, kept: u32, now: Instant) -> Instant {
        let slack = self.every * (self.burst - 1).saturating_sub(kept);
        match self.whole_at {
            Some(whole) if whole > now + slack => whole - slack,
            _ => now,
        }
    }

    /// Counts one event, which the caller saw to be allowed at `now`.
    pub fn take(&mut self, now: Instant) {
        self.whole_at = Some(self.whole_at.map_or(now, |whole| whole.max(now)) + self.every);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Duration = Duration::from_millis(250);
    const CAP: Duration = Duration::from_secs(8);

    #[test]
    fn the_sequence_is_splitmix64() {
        // The published test sequence for seed 1234567.
        let mut jitter = Jitter::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| jitter.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn delays_spread_over_their_whole_range() {
        let mut jitter = Jitter::new(1);
        let draws: Vec<_> = (0..10_000).map(|_| jitter.up_to(Duration::from_secs(1))).collect();
        let mean = draws.iter().sum::<Duration>() / 10_000;
        assert!(mean.abs_diff(Duration::from_millis(500)) < Duration::from_millis(15), "{mean:?}");
        assert!(draws.iter().min() < Some(&Duration::from_millis(2)));
        assert!(draws.iter().max() > Some(&Duration::from_millis(998)));
        assert_eq!(jitter.up_to(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn ten_thousand_devices_do_not_come_back_together() {
        // The third delay, up to 500 ms, in 50 ms slots: none holds much
        // more than its tenth.
        let mut slots = [0_u32; 11];
        for seed in 0..10_000 {
            let mut backoff = Backoff::new(BASE, CAP, Jitter::new(seed));
            let delay = (0..3).map(|_| backoff.next_delay()).last().unwrap();
            slots[delay.as_millis() as usize / 50] += 1;
        }
        assert!(slots[..10].iter().all(|&n| (900..1100).contains(&n)), "{slots:?}");
    }

    #[test]
    fn an_instant_close_does_not_reset() {
        let mut backoff = Backoff::new(BASE, CAP, Jitter::new(3));
        for _ in 0..20 {
            backoff.next_delay();
            assert!(!backoff.ended_after(STABLE_AFTER - Duration::from_millis(1)));
        }
        assert_eq!(backoff.attempts(), 20);
        assert!(backoff.ended_after(STABLE_AFTER));
        assert!(backoff.next_delay() <= FIRST_RETRY_WITHIN);
    }

    proptest! {
        #[test]
        fn bounded_for_ever(seed: u64, attempts in 1_usize..200) {
            let mut backoff = Backoff::new(BASE, CAP, Jitter::new(seed));
            prop_assert!(backoff.next_delay() <= FIRST_RETRY_WITHIN);
            let mut most = BASE;
            for _ in 0..attempts {
                prop_assert!(backoff.next_delay() <= most);
                most = (most * 2).min(CAP);
            }
            backoff.reset();
            prop_assert!(backoff.next_delay() <= FIRST_RETRY_WITHIN);
        }

        #[test]
        fn a_told_time_is_kept_but_bounded(seed: u64, told_ms in 0_u64..10_000_000) {
            let told = Duration::from_millis(told_ms);
            let wait = Backoff::new(BASE, CAP, Jitter::new(seed)).retry_after(told);
            prop_assert!(wait >= told.min(MAX_RETRY_AFTER));
            prop_assert!(wait <= MAX_RETRY_AFTER + Duration::from_secs(10));
        }

        #[test]
        fn no_span_sees_more_than_the_limit(
            burst in 1_u32..12,
            steps in proptest::collection::vec(0_u64..3_000, 1..200),
        ) {
            let every = Duration::from_secs(2);
            let mut limit = RateLimit::new(burst, every);
            let mut now = Instant::now();
            let mut taken = Vec::new();
            for step in steps {
                now += Duration::from_millis(step);
                prop_assert!(limit.ready_at(now) <= now + every);
                if limit.ready_at(now) <= now {
                    limit.take(now);
                    taken.push(now);
                }
            }
            for (at, from) in taken.iter().enumerate() {
                for (n, to) in taken[at..].iter().enumerate() {
                    let allowed = burst + (*to - *from).div_duration_f64(every) as u32;
                    prop_assert!((n as u32) < allowed, "{} in {:?}", n + 1, *to - *from);
                }
            }
        }
    }
}
