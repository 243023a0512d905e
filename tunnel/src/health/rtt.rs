//! How long an answer takes: smoothed round trip and jitter.

use std::time::Duration;

/// Round-trip time, smoothed as RFC 6298 section 2 says, and jitter as
/// RFC 3550 section 6.4.1 says (over round trips, since the other side's
/// clock is not ours).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rtt {
    estimate: Option<Estimate>,
    jitter: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Estimate {
    smoothed: Duration,
    variation: Duration,
    latest: Duration,
}

impl Rtt {
    /// Takes in one measured round trip.
    pub fn sample(&mut self, measured: Duration) {
        let Some(old) = self.estimate else {
            let variation = measured / 2;
            self.estimate = Some(Estimate { smoothed: measured, variation, latest: measured });
            return;
        };
        // RFC 6298 (2.3): the variation first, with the old smoothed value.
        self.estimate = Some(Estimate {
            variation: old.variation * 3 / 4 + old.smoothed.abs_diff(measured) / 4,
            smoothed: old.smoothed * 7 / 8 + measured / 8,
            latest: measured,
        });
        self.jitter = self.jitter * 15 / 16 + old.latest.abs_diff(measured) / 16;
    }

    /// The smoothed round-trip time, once there was an answer.
    pub fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|estimate| estimate.smoothed)
    }

    /// The last round-trip time measured.
    pub fn latest(&self) -> Option<Duration> {
        self.estimate.map(|estimate| estimate.latest)
    }

    /// The interarrival jitter; zero before the second answer.
    pub fn jitter(&self) -> Duration {
        self.jitter
    }

    /// By when an answer should have come: smoothed + 4 x variation, without
    /// RFC 6298's minimum of 1 s, which exists to spare TCP a false
    /// retransmission. `None` before the first answer.
    pub fn answer_within(&self) -> Option<Duration> {
        self.estimate.map(|estimate| estimate.smoothed + estimate.variation * 4)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn rfc_6298_by_hand() {
        let mut rtt = Rtt::default();
        assert_eq!((rtt.smoothed(), rtt.answer_within()), (None, None));
        rtt.sample(ms(80));
        assert_eq!((rtt.smoothed(), rtt.answer_within()), (Some(ms(80)), Some(ms(240))));
        rtt.sample(ms(160));
        // variation 3/4 x 40 + 1/4 x 80 = 50, smoothed 70 + 20 = 90, jitter 80 / 16.
        assert_eq!((rtt.smoothed(), rtt.answer_within()), (Some(ms(90)), Some(ms(290))));
        assert_eq!((rtt.latest(), rtt.jitter()), (Some(ms(160)), ms(5)));
    }

    #[test]
    fn a_steady_path_has_no_jitter() {
        let mut rtt = Rtt::default();
        (0..200).for_each(|_| rtt.sample(ms(40)));
        assert!(rtt.smoothed().unwrap().abs_diff(ms(40)) < Duration::from_micros(10));
        assert!(rtt.answer_within().unwrap() < ms(41) && rtt.jitter() == Duration::ZERO);
    }

    proptest! {
        #[test]
        fn stays_within_what_was_measured(samples in proptest::collection::vec(0_u64..60_000, 1..100)) {
            let mut rtt = Rtt::default();
            samples.iter().for_each(|&sample| rtt.sample(ms(sample)));
            let (least, most) = (*samples.iter().min().unwrap(), *samples.iter().max().unwrap());
            let smoothed = rtt.smoothed().unwrap();
            prop_assert!(smoothed + ms(1) >= ms(least) && smoothed <= ms(most));
            prop_assert!(rtt.jitter() <= ms(most));
        }
    }
}
