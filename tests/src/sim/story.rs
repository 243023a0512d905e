//! The timeline of a run: faults and transitions, and a hash over everything
//! that happened, so that two runs of a seed can be compared.

use std::time::Duration;

/// Lines that are kept of one run.
const MOST_LINES: usize = 4000;

/// See the module.
#[derive(Debug)]
pub struct Story {
    record: bool,
    lines: Vec<String>,
    hash: u64,
}

impl Story {
    /// An empty story; its lines are kept where `record` is set.
    pub fn new(record: bool) -> Self {
        Self { record, lines: Vec::new(), hash: 0xcbf2_9ce4_8422_2325 }
    }

    /// Mixes an event into the hash.
    pub fn stir(&mut self, at: Duration, what: u64) {
        // FNV-1a over 64-bit words.
        for word in [at.as_nanos() as u64, what] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Adds a line.
    pub fn note(&mut self, at: Duration, what: impl FnOnce() -> String) {
        self.stir(at, u64::MAX);
        if self.record && self.lines.len() < MOST_LINES {
            self.lines.push(format!("{:>10.3} s  {}", at.as_secs_f64(), what()));
        }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
