//! How good a carrier is: round trip, jitter, loss, and a grade for people.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::rtt::Rtt;

/// Loss is counted over this many pings: a minute of them while somebody is
/// looking.
pub const LOSS_WINDOW: usize = 64;

/// Up to here a path is [`Grade::Good`]: ITU-T G.114 finds 150 ms of delay
/// transparent in conversation, and an echoed keystroke feels immediate.
pub const GOOD_RTT: Duration = Duration::from_millis(150);

/// Up to here a path is [`Grade::Fair`]: G.114's limit for planning.
pub const FAIR_RTT: Duration = Duration::from_millis(400);

/// One lost round trip of [`LOSS_WINDOW`] is chance, a third is not.
pub const GOOD_LOSS: f32 = 0.035;

/// Above this, retransmission timeouts rule instead of the window: bulk
/// throughput falls off (it goes with 1 / sqrt(loss) at best; Mathis, 1997).
pub const FAIR_LOSS: f32 = 0.10;

/// Above this, a live picture stutters with the usual small buffers.
pub const GOOD_JITTER: Duration = Duration::from_millis(30);

/// Above this, the smallest retransmission timers fire for nothing.
pub const FAIR_JITTER: Duration = Duration::from_millis(100);

/// A better grade must hold this long before it is shown; a worse one shows
/// at once. Else a path on a threshold would flicker.
pub const BETTER_HOLD: Duration = Duration::from_secs(5);

/// A carrier's quality in one word, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// One doesn't notice the distance.
    Good,
    /// Usable; typing shows the delay.
    Fair,
    /// Slow or lossy.
    Poor,
    /// Dead.
    Lost,
}

impl Grade {
    /// Stable name for logs and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Poor => "poor",
            Self::Lost => "lost",
        }
    }

    /// The grade of an answering path.
    pub fn of(rtt: Duration, jitter: Duration, loss: f32) -> Self {
        if rtt <= GOOD_RTT && jitter <= GOOD_JITTER && loss <= GOOD_LOSS {
            Self::Good
        } else if rtt <= FAIR_RTT && jitter <= FAIR_JITTER && loss <= FAIR_LOSS {
            Self::Fair
        } else {
            Self::Poor
        }
    }
}

#[derive(Debug)]
struct Sent {
    number: u32,
    at: Instant,
    answered: bool,
}

/// What is known of a carrier's quality.
#[derive(Debug, Default)]
pub(super) struct Quality {
    window: VecDeque<Sent>,
    pub(super) rtt: Rtt,
    pub(super) grade: Option<Grade>,
    better_since: Option<Instant>,
}

impl Quality {
    pub(super) fn sent(&mut self, number: u32, at: Instant) {
        if self.window.len() == LOSS_WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(Sent { number, at, answered: false });
    }

    /// When the answered ping was sent; `None` for one that is unknown, long
    /// ago, or answered before.
    pub(super) fn answered(&mut self, number: u32, now: Instant) -> Option<Instant> {
        let sent = self.window.iter_mut().find(|sent| sent.number == number && !sent.answered)?;
        sent.answered = true;
        let at = sent.at;
        self.rtt.sample(now.saturating_duration_since(at));
        Some(at)
    }

    /// Share of round trips lost, 0 to 1; what may still be answered within
    /// `answer_within` counts neither way.
    pub(super) fn loss(&self, answer_within: Duration, now: Instant) -> f32 {
        let settled = |sent: &&Sent| sent.answered || sent.at + answer_within <= now;
        let (mut lost, mut all) = (0_u16, 0_u16);
        for sent in self.window.iter().filter(settled) {
            all += 1;
            lost += u16::from(!sent.answered);
        }
        f32::from(lost) / f32::from(all.max(1))
    }

    /// Grades the path after an answer; returns the grade if it changed.
    pub(super) fn grade_answer(&mut self, answer_within: Duration, now: Instant) -> Option<Grade> {
        let loss = self.loss(answer_within, now);
        let measured = Grade::of(self.rtt.smoothed()?, self.rtt.jitter(), loss);
        match self.grade {
            Some(shown) if measured == shown => self.better_since = None,
            Some(shown) if measured < shown && shown != Grade::Lost => {
                let since = *self.better_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= BETTER_HOLD {
                    return self.show(measured);
                }
            }
            _ => return self.show(measured),
        }
        None
    }

    /// The carrier is dead; returns the grade if it changed.
    pub(super) fn lost(&mut self) -> Option<Grade> {
        if self.grade == Some(Grade::Lost) { None } else { self.show(Grade::Lost) }
    }

    fn show(&mut self, grade: Grade) -> Option<Grade> {
        self.better_since = None;
        self.grade = Some(grade);
        self.grade
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn thresholds() {
        for (rtt, jitter, loss, grade) in [
            (150, 30, 0.0, Grade::Good),
            (151, 0, 0.0, Grade::Fair),
            (10, 31, 0.0, Grade::Fair),
            (10, 0, 2.0 / 64.0, Grade::Good),
            (10, 0, 3.0 / 64.0, Grade::Fair),
            (400, 100, 0.10, Grade::Fair),
            (401, 0, 0.0, Grade::Poor),
            (10, 101, 0.0, Grade::Poor),
            (10, 0, 0.11, Grade::Poor),
        ] {
            assert_eq!(Grade::of(ms(rtt), ms(jitter), loss), grade, "{rtt} ms, {jitter} ms, {loss}");
        }
    }

    #[test]
    fn loss_counts_what_is_settled_and_forgets() {
        let (mut quality, start) = (Quality::default(), Instant::now());
        for number in 0..10 {
            quality.sent(number, start);
        }
        for number in 0..5 {
            assert_eq!(quality.answered(number, start + ms(40)), Some(start));
            assert_eq!(quality.answered(number, start + ms(50)), None, "answered twice");
        }
        assert_eq!(quality.loss(ms(100), start + ms(99)), 0.0);
        assert_eq!(quality.loss(ms(100), start + ms(100)), 0.5);
        // A late answer is an answer.
        quality.answered(5, start + ms(900));
        assert_eq!(quality.loss(ms(100), start + ms(900)), 0.4);
        for number in 10..10 + LOSS_WINDOW as u32 {
            quality.sent(number, start + ms(1_000));
            quality.answered(number, start + ms(1_040));
        }
        assert_eq!(quality.loss(ms(100), start + ms(2_000)), 0.0);
        assert_eq!(quality.answered(6, start + ms(2_000)), None);
        assert_eq!(quality.window.len(), LOSS_WINDOW);
    }

    #[test]
    fn worse_shows_at_once_and_better_must_hold() {
        let (mut quality, start) = (Quality::default(), Instant::now());
        let mut answer = |number: u32, at: u64, rtt: u64| {
            let now = start + ms(at);
            quality.sent(number, now - ms(rtt));
            quality.answered(number, now);
            quality.grade_answer(ms(10_000), now)
        };
        assert_eq!(answer(0, 1_000, 100), Some(Grade::Good));
        assert_eq!(answer(1, 2_000, 5_000), Some(Grade::Poor));
        let mut shown = None;
        for n in 2..200 {
            if let Some(grade) = answer(n, 1_000 * u64::from(n) + 1_000, 100) {
                shown.get_or_insert((n, grade));
            }
        }
        // Jitter first has to wear off (1/16 a ping), then the better grade holds.
        let (n, grade) = shown.unwrap();
        assert!(n > 7 && grade < Grade::Poor, "{n} {grade:?}");
    }
}
