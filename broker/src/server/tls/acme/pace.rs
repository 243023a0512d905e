//! When to order a certificate: pure, by the wall clock that certificates
//! live by.

use crate::server::tls::current::Validity;

/// First pause after an authority was not reached, in seconds; doubles.
const AWAY_FIRST: u64 = 5;

/// Longest pause while the authority is not reached: 5 min. A certificate of
/// 90 days is renewed 30 days before its end, so nothing is urgent.
const AWAY_MOST: u64 = 300;

/// First pause after the authority refused, in seconds; doubles. Let's Encrypt
/// bears five failed validations of a name an hour.
const REFUSED_FIRST: u64 = 120;

/// Longest pause while the authority refuses: 2 h.
const REFUSED_MOST: u64 = 2 * 3600;

/// Looked at at least so often, in seconds: the wall clock may be set.
const LOOK_EVERY: u64 = 3600;

/// Why an order failed, as far as it matters when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The authority was not reached.
    Away,
    /// It was, and said no.
    Refused,
}

/// The schedule of one certificate.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failed: u32,
    not_before: u64,
}

impl Pace {
    /// Seconds to wait from `now` (seconds since 1970) with a certificate of
    /// this validity, or with none. 0: order now.
    pub(super) fn wait(&self, validity: Option<Validity>, now: u64) -> u64 {
        // A third of its life before the end, as Let's Encrypt recommends. One
        // that is not valid yet is as good as none: the clock was wrong.
        let due = validity.filter(|validity| validity.from <= now).map_or(0, |validity| {
            let lasts = validity.until.saturating_sub(validity.from);
            validity.until.saturating_sub(lasts / 3)
        });
        let longest = if self.failed == 0 { 0 } else { REFUSED_MOST };
        // A clock that was set back must not keep it waiting for ever.
        let again = self.not_before.min(now + longest);
        due.max(again).saturating_sub(now).min(LOOK_EVERY)
    }

    /// An order failed.
    pub(super) fn failed(&mut self, failure: Failure, now: u64) {
        let (first, most) = match failure {
            Failure::Away => (AWAY_FIRST, AWAY_MOST),
            Failure::Refused => (REFUSED_FIRST, REFUSED_MOST),
        };
        let pause = first.saturating_mul(1 << self.failed.min(16)).min(most);
        self.failed = self.failed.saturating_add(1);
        self.not_before = now + pause;
    }

    /// An order succeeded, or the operator wants no more waiting.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const NOW: u64 = 1_790_000_000;

    #[test]
    fn a_certificate_is_renewed_a_third_before_its_end() {
        let pace = Pace::default();
        let validity = Validity { from: NOW, until: NOW + 90 * DAY };
        assert_eq!(pace.wait(None, NOW), 0, "none yet: at once");
        assert_eq!(pace.wait(Some(validity), NOW), LOOK_EVERY);
        assert_eq!(pace.wait(Some(validity), NOW + 60 * DAY - 7), 7);
        assert_eq!(pace.wait(Some(validity), NOW + 60 * DAY), 0);
        assert_eq!(pace.wait(Some(validity), NOW + 200 * DAY), 0);
        assert_eq!(pace.wait(Some(validity), NOW - 1), 0, "not valid yet");
    }

    #[test]
    fn failures_are_spaced_and_bounded() {
        let mut pace = Pace::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pace.failed(Failure::Away, NOW);
            pauses.push(pace.wait(None, NOW));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        pace.reset();
        let (mut now, mut tries) = (NOW, 0);
        while now < NOW + 3600 {
            pace.failed(Failure::Refused, now);
            tries += 1;
            now += REFUSED_MOST.min(pace.not_before - now);
        }
        assert!(tries <= 5, "{tries} in the first hour");
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_it() {
        let mut pace = Pace::default();
        pace.failed(Failure::Refused, NOW + 1000 * DAY);
        assert_eq!(pace.wait(None, NOW), LOOK_EVERY.min(REFUSED_MOST));
        let mut now = NOW;
        for _ in 0..3 {
            now += pace.wait(None, now);
        }
        pace.reset();
        assert_eq!(pace.wait(None, now), 0);
    }
}
