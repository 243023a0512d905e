//! The randomness of one seed.

use std::time::Duration;

use farm_tunnel::backoff::Jitter;

/// A seeded source; the same seed gives the same run.
#[derive(Debug, Clone)]
pub struct Rng(Jitter);

impl Rng {
    /// The source of one seed.
    pub fn new(seed: u64) -> Self {
        Self(Jitter::new(seed))
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Evenly from `0..bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// Evenly from an inclusive range.
    pub fn range(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        // 2^53 steps: what a double holds exactly.
        ((self.draw() >> 11) as f64) < p * (1_u64 << 53) as f64
    }

    /// Evenly between two durations.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        self.0.between(least, most)
    }

    /// Milliseconds, evenly from an inclusive range.
    pub fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.range(least, most))
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let at = self.below(of.len() as u64) as usize;
        of[at]
    }

    /// Bytes for an id, a nonce or a key.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            let word = self.draw().to_be_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        bytes
    }
}
