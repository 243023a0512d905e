//! Epochs: what makes the newest win.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// A number that only grows for one device and one slot, across restarts:
/// the count of starts in the upper bits, a counter within this start in the
/// lower ones. The newest authenticated epoch wins; an older one is a no-op.
///
/// Stays below 2^53, so that JavaScript numbers hold it exactly; a larger one
/// is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// Bits for the counter within one start: at ten new carriers a second
    /// four million last five days of uninterrupted failure, and an
    /// overflow moves on into the next start's range instead of back.
    pub const TURN_BITS: u32 = 22;

    /// Starts that fit below 2^53: one every minute for four thousand years.
    pub const MAX_STARTS: u64 = (1 << (53 - Self::TURN_BITS)) - 1;

    /// How far ahead of the newest known epoch a claim may be before it is
    /// refused as absurd: a million starts. Without this bound one forged or
    /// corrupted number would lock a device out for ever.
    pub const MAX_LEAP: u64 = 1_000_000 << Self::TURN_BITS;

    /// The last epoch there is.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The first epoch of a device's `starts`-th start.
    pub fn of_start(starts: u64) -> Self {
        Self(starts.min(Self::MAX_STARTS) << Self::TURN_BITS)
    }

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1).min(Self::MAX)
    }

    /// The count of starts in this epoch.
    pub fn starts(self) -> u64 {
        self.0 >> Self::TURN_BITS
    }

    /// The number on the wire.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Whether `self` may follow `known`: newer, and not absurdly far ahead.
    pub fn follows(self, known: Self) -> bool {
        self > known && !self.is_absurd_after(known)
    }

    /// Whether `self` is further ahead of `known` than any honest device gets.
    pub fn is_absurd_after(self, known: Self) -> bool {
        self.0.saturating_sub(known.0) > Self::MAX_LEAP
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let epoch = Self(u64::deserialize(deserializer)?);
        if epoch > Self::MAX {
            return Err(de::Error::custom(format_args!("epoch {} is over {}", epoch.0, Self::MAX.0)));
        }
        Ok(epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.starts(), self.0 & ((1 << Self::TURN_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn a_restart_is_newer_than_any_turn_before_it() {
        let mut old = Epoch::of_start(7);
        for _ in 0..1000 {
            old = old.next();
        }
        let new = Epoch::of_start(8);
        assert!(new.follows(old) && !old.follows(new) && !new.follows(new));
        assert_eq!(old.to_string(), "7.1000");
    }

    #[test]
    fn the_far_future_is_refused() {
        let known = Epoch::of_start(3);
        assert!(!Epoch::of_start(2_000_000).follows(known));
        assert!(!Epoch::MAX.follows(known));
        assert!(Epoch::of_start(1_000_000).follows(known));
    }

    #[test]
    fn the_last_epoch_is_the_end() {
        assert_eq!(Epoch::MAX.next(), Epoch::MAX);
        assert_eq!(decode::<Epoch>(&encode(&Epoch::MAX).unwrap()).unwrap(), Epoch::MAX);
        for past in [Epoch::MAX.0 + 1, u64::MAX] {
            assert!(decode::<Epoch>(&encode(&past).unwrap()).is_err(), "{past}");
        }
    }
}
