//! When which alert is sent: one at a time, in order, again after a failure,
//! and not for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Alert;

/// Alerts that wait: every farm of a village whose power fails. The oldest
/// gives way.
pub const MOST: usize = 256;

/// After the first failure; doubling.
pub const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Longest time between two tries: a receiver that is back is told within it.
pub const AGAIN_AT_MOST: Duration = Duration::from_secs(300);

/// An alert that could not be delivered for so long is given up: nobody needs
/// to hear yesterday's.
pub const KEEP: Duration = Duration::from_secs(24 * 3600);

/// How a try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It may go better later.
    Failed,
    /// The receiver does not want it: it won't go better.
    Refused,
}

/// What becomes of alerts, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Delivered.
    pub sent: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Given up: refused, too old, or too many.
    pub dropped: u64,
}

/// Alerts on their way.
#[derive(Debug, Default)]
pub struct Delivery {
    /// With the time until which each is kept.
    waiting: VecDeque<(Instant, Alert)>,
    /// The first one is being sent.
    sending: bool,
    /// Failures in a row.
    failures: u32,
    rest_until: Option<Instant>,
    counts: Counts,
}

impl Delivery {
    /// One more to be told.
    pub fn push(&mut self, alert: Alert, now: Instant) {
        self.waiting.push_back((now + KEEP, alert));
        if self.waiting.len() > MOST {
            // Not the one that is under way.
            self.waiting.remove(usize::from(self.sending));
            self.counts.dropped += 1;
        }
    }

    /// What to send now, if anything; then [`Delivery::done`] is due.
    pub fn poll(&mut self, now: Instant) -> Option<&Alert> {
        if self.sending || self.rest_until.is_some_and(|until| now < until) {
            return None;
        }
        self.rest_until = None;
        let before = self.waiting.len();
        self.waiting.retain(|(until, _)| now < *until);
        self.counts.dropped += (before - self.waiting.len()) as u64;
        self.sending = !self.waiting.is_empty();
        self.waiting.front().map(|(_, alert)| alert)
    }

    /// When [`Delivery::poll`] is due, and for what. `None`: when something
    /// happens.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let waits = !self.sending && !self.waiting.is_empty();
        waits.then_some(self.rest_until).flatten().map(|until| (until, "an alert is sent again"))
    }

    /// How sending went.
    pub fn done(&mut self, outcome: Outcome, now: Instant) {
        if !std::mem::take(&mut self.sending) {
            return;
        }
        match outcome {
            Outcome::Delivered => self.counts.sent += 1,
            Outcome::Refused => self.counts.dropped += 1,
            Outcome::Failed => {
                self.counts.failed += 1;
                let pause = AGAIN_AFTER.saturating_mul(1 << self.failures.min(16)).min(AGAIN_AT_MOST);
                self.failures += 1;
                self.rest_until = Some(now + pause);
                return;
            }
        }
        self.failures = 0;
        self.waiting.pop_front();
    }

    /// There is another receiver: it is tried at once.
    pub fn start_over(&mut self) {
        (self.failures, self.rest_until) = (0, None);
    }

    /// There is no receiver any more: gives up what waits.
    pub fn give_up(&mut self) {
        self.start_over();
        let kept = usize::from(self.sending);
        self.counts.dropped += (self.waiting.len() - kept) as u64;
        self.waiting.truncate(kept);
    }

    /// What became of them.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::alerts::Kind;
    use farm_protocol::id::FarmId;

    fn alert(at: u64) -> Alert {
        let farm = FarmId::from_bytes([1; FarmId::LEN]);
        Alert { farm, name: "North".to_owned(), kind: Kind::Away, since: at, at }
    }

    fn sent(delivery: &mut Delivery, now: Instant) -> Option<u64> {
        delivery.poll(now).map(|alert| alert.at)
    }

    #[test]
    fn alerts_go_one_at_a_time_and_in_order() {
        let (mut delivery, now) = (Delivery::default(), Instant::now());
        for at in 1..=3 {
            delivery.push(alert(at), now);
        }
        for at in 1..=3 {
            assert_eq!(sent(&mut delivery, now), Some(at));
            assert_eq!(sent(&mut delivery, now), None, "it is under way");
            assert_eq!(delivery.poll_timeout(), None);
            delivery.done(Outcome::Delivered, now);
        }
        assert_eq!((sent(&mut delivery, now), delivery.poll_timeout()), (None, None));
        assert_eq!(delivery.counts(), Counts { sent: 3, ..Counts::default() });
    }

    #[test]
    fn failures_are_tried_again_ever_more_slowly_until_nobody_cares() {
        let (mut delivery, start) = (Delivery::default(), Instant::now());
        let mut now = start;
        delivery.push(alert(1), now);
        let mut pauses = Vec::new();
        while sent(&mut delivery, now).is_some() {
            delivery.done(Outcome::Failed, now);
            let (due, _) = delivery.poll_timeout().expect("a deadline");
            assert_eq!(sent(&mut delivery, due - Duration::from_millis(1)), None);
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses[..9], [2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(pauses[9..].iter().all(|pause| *pause == 300));
        assert!(now - start >= KEEP && now - start < KEEP + AGAIN_AT_MOST);
        assert_eq!(delivery.counts(), Counts { sent: 0, failed: pauses.len() as u64, dropped: 1 });
        // The next one is not made to wait for that.
        delivery.push(alert(2), now);
        assert_eq!(sent(&mut delivery, now), Some(2));
    }

    #[test]
    fn what_is_refused_is_not_tried_again_and_holds_nobody_up() {
        let (mut delivery, now) = (Delivery::default(), Instant::now());
        delivery.push(alert(1), now);
        delivery.push(alert(2), now);
        assert_eq!(sent(&mut delivery, now), Some(1));
        delivery.done(Outcome::Refused, now);
        assert_eq!(sent(&mut delivery, now), Some(2));
        assert_eq!(delivery.counts().dropped, 1);
    }

    #[test]
    fn the_oldest_that_is_not_under_way_gives_way() {
        let (mut delivery, now) = (Delivery::default(), Instant::now());
        delivery.push(alert(0), now);
        assert_eq!(sent(&mut delivery, now), Some(0));
        for at in 1..=MOST as u64 {
            delivery.push(alert(at), now);
        }
        assert_eq!((delivery.waiting.len(), delivery.counts().dropped), (MOST, 1));
        delivery.done(Outcome::Delivered, now);
        assert_eq!(sent(&mut delivery, now), Some(2));
    }

    #[test]
    fn without_a_receiver_nothing_waits() {
        let (mut delivery, now) = (Delivery::default(), Instant::now());
        for at in 1..=3 {
            delivery.push(alert(at), now);
        }
        assert_eq!(sent(&mut delivery, now), Some(1));
        delivery.give_up();
        delivery.done(Outcome::Delivered, now);
        assert_eq!(sent(&mut delivery, now), None);
        assert_eq!(delivery.counts(), Counts { sent: 1, failed: 0, dropped: 2 });
    }

    #[test]
    fn another_receiver_is_tried_at_once() {
        let (mut delivery, now) = (Delivery::default(), Instant::now());
        delivery.push(alert(1), now);
        assert_eq!(sent(&mut delivery, now), Some(1));
        delivery.done(Outcome::Failed, now);
        assert_eq!(sent(&mut delivery, now), None);
        delivery.start_over();
        assert_eq!(sent(&mut delivery, now), Some(1));
    }
}
