//! Token buckets: how often something may happen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often something may happen: `burst` at once, then one per `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Most at once.
    pub burst: u32,
    /// Until one more is allowed.
    pub interval: Duration,
}

impl Rate {
    /// `burst` at once, then `count` a second.
    pub const fn per_second(burst: u32, count: u32) -> Self {
        Self { burst, interval: Duration::from_micros(1_000_000 / count as u64) }
    }

    /// `burst` at once, then `count` a minute.
    pub const fn per_minute(burst: u32, count: u32) -> Self {
        Self { burst, interval: Duration::from_millis(60_000 / count as u64) }
    }
}

/// One bucket, full when new. Kept as the one instant at which it would be
/// full again (the generic cell rate algorithm), so that it needs 16 bytes
/// and no refilling.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes `cost` tokens, or none and `false` where there are not enough.
    /// A cost over the burst never succeeds.
    pub fn take(&mut self, rate: Rate, cost: u32, now: Instant) -> bool {
        let full_at = self.full_at.unwrap_or(now).max(now) + rate.interval * cost;
        let allowed = full_at - now <= rate.interval * rate.burst;
        if allowed {
            self.full_at = Some(full_at);
        }
        allowed
    }

    /// Whether a token is there, without taking it.
    pub fn has_one(&self, rate: Rate, now: Instant) -> bool {
        Self::take(&mut self.clone(), rate, 1, now)
    }

    /// When the next token is there.
    pub fn next_token(&self, rate: Rate, now: Instant) -> Instant {
        let spare = rate.interval * rate.burst.saturating_sub(1);
        self.full_at.and_then(|full_at| full_at.checked_sub(spare)).map_or(now, |at| at.max(now))
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

/// A bucket per key, for a bounded number of keys.
///
/// Nobody can empty the table by spraying keys: only buckets that are full
/// again are let go, and while there is none, newcomers share one bucket.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    capacity: usize,
    buckets: BTreeMap<K, Bucket>,
    shared: Bucket,
    swept: Option<Instant>,
}

/// Least time between two sweeps of a full table, so that a flood of new keys
/// does not make each of them cost a walk over all.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl<K: Ord> Buckets<K> {
    /// An empty table for at most `capacity` keys.
    pub fn new(rate: Rate, capacity: usize) -> Self {
        Self { rate, capacity, buckets: BTreeMap::new(), shared: Bucket::default(), swept: None }
    }

    /// Takes one token of this key, or none and `false`.
    pub fn take(&mut self, key: K, now: Instant) -> bool {
        if !self.buckets.contains_key(&key) && !self.make_room(now) {
            return self.shared.take(self.rate, 1, now);
        }
        self.buckets.entry(key).or_default().take(self.rate, 1, now)
    }

    /// Whether this key has a token, without taking it.
    pub fn has_one(&self, key: &K, now: Instant) -> bool {
        match self.buckets.get(key) {
            Some(bucket) => bucket.has_one(self.rate, now),
            None => self.buckets.len() < self.capacity || self.shared.has_one(self.rate, now),
        }
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    fn make_room(&mut self, now: Instant) -> bool {
        let sweep_allowed = self.swept.is_none_or(|swept| now >= swept + SWEEP_INTERVAL);
        if self.buckets.len() >= self.capacity && sweep_allowed {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            self.swept = Some(now);
        }
        self.buckets.len() < self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::per_second(3, 2);

    #[test]
    fn a_burst_then_the_rate() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert!((0..3).all(|_| bucket.take(RATE, 1, start)));
        assert!(!bucket.has_one(RATE, start) && !bucket.take(RATE, 1, start));
        let next = bucket.next_token(RATE, start);
        assert_eq!(next - start, Duration::from_millis(500));
        assert!(!bucket.take(RATE, 1, next - Duration::from_millis(1)));
        assert!(bucket.take(RATE, 1, next) && !bucket.take(RATE, 1, next));
        let later = next + Duration::from_secs(60);
        assert!(bucket.take(RATE, 3, later), "it never holds more than the burst");
        assert!(!bucket.take(RATE, 1, later));
    }

    #[test]
    fn a_refused_cost_takes_nothing() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert!(bucket.take(RATE, 2, start));
        assert!(!bucket.take(RATE, 2, start));
        assert!(bucket.take(RATE, 1, start));
        assert!(!Bucket::default().take(RATE, 4, start));
    }

    #[test]
    fn a_full_table_forgets_no_used_up_bucket() {
        let start = Instant::now();
        let mut buckets = Buckets::new(RATE, 10);
        assert!((0..3).all(|_| buckets.take(0, start)));
        assert!(!buckets.take(0, start));
        for key in 1..1000 {
            buckets.take(key, start);
        }
        assert_eq!(buckets.len(), 10);
        assert!(!buckets.take(0, start), "spraying keys must not refill a bucket");
        assert!(!buckets.take(5000, start), "newcomers share one bucket, used up here");
        let later = start + Duration::from_secs(10);
        assert!(buckets.take(5000, later), "full buckets make room");
        assert_eq!(buckets.len(), 1);
    }
}
