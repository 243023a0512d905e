//! Bandwidth: how many bytes may pass.

use std::time::{Duration, Instant};

/// `burst` bytes at once, then so many a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes a second; not 0.
    pub per_second: u64,
    /// Most bytes at once.
    pub burst: u64,
}

impl Bandwidth {
    /// So many bytes a second, and a quarter of a second's worth at once, at
    /// least 64 KiB: a window that a sender opens in one go.
    pub const fn per_second(per_second: u64) -> Self {
        let quarter = per_second / 4;
        Self { per_second, burst: if quarter < 65_536 { 65_536 } else { quarter } }
    }

    fn time_of(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A bucket of bytes, full when new; see [`crate::core::bucket::Bucket`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    full_at: Option<Instant>,
}

impl Flow {
    /// When it would be full again after `bytes`; `None` if there are not
    /// enough.
    pub fn after(&self, bandwidth: Bandwidth, bytes: u64, now: Instant) -> Option<Self> {
        let full_at = self.full_at.unwrap_or(now).max(now) + bandwidth.time_of(bytes);
        (full_at - now <= bandwidth.time_of(bandwidth.burst)).then_some(Self { full_at: Some(full_at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let bandwidth = Bandwidth { per_second: 1000, burst: 3000 };
        let start = Instant::now();
        let flow = Flow::default().after(bandwidth, 3000, start).unwrap();
        assert!(flow.after(bandwidth, 1, start).is_none());
        let later = start + Duration::from_millis(500);
        assert!(flow.after(bandwidth, 500, later).is_some() && flow.after(bandwidth, 501, later).is_none());
        assert!(Flow::default().after(bandwidth, 3001, start).is_none());
    }
}
