//! When to ping, when to doubt, when to give up, and why these numbers.

use std::time::{Duration, Instant};

use super::{Health, Phase};

/// Time between pings while somebody is looking and all is well.
pub const WATCHED_INTERVAL: Duration = Duration::from_secs(1);

/// The same while data of ours waits for an acknowledgement, or a ping for
/// its answer.
pub const BUSY_INTERVAL: Duration = Duration::from_millis(500);

/// Time between pings while nobody is looking: with the quick pings that
/// follow a missing answer, a dead carrier is known within 30 s.
pub const UNWATCHED_INTERVAL: Duration = Duration::from_secs(20);

/// Time between pings while in doubt and somebody is looking: about 100 bytes
/// each, for less than a second. Nothing makes pings come faster than this.
pub const QUICK_INTERVAL: Duration = Duration::from_millis(40);

/// How long quick pings go on after the decisive one was sent: until its
/// answer is overdue on most paths. Ends a short gap of the radio in time
/// without a flood on a path that takes seconds.
pub const QUICK_AFTER_DECISIVE: Duration = Duration::from_millis(500);

/// Time between pings in doubt while nobody is looking, and once the quick
/// ones are over.
pub const SLOW_QUICK_INTERVAL: Duration = Duration::from_millis(250);

/// Pings in a row without answer that make a carrier dead.
///
/// A radio that loses 30 % of the packets in each direction answers 0.7² =
/// 49 % of pings. A row of failures begins with one of the 60 regular pings of
/// a minute, so a lossy but living carrier is declared dead in at most
/// 60 × 0.51^15 = 0.25 % of minutes (12 would make it 1.9 %), and less while
/// the quick pings go on until the verdict.
pub const UNANSWERED_TO_DIE: usize = 15;

/// No carrier dies of less silence than this: a mobile hand-over takes up to
/// a second, in which all quick pings would be lost together.
pub const SHORTEST_SILENCE: Duration = Duration::from_millis(1_200);

/// While something is still heard (data, the other side's pings) the verdict
/// waits until that has been quiet for this long: one interval of a busy
/// carrier. It is how a swelling queue in a modem (the round trip grows from
/// 40 ms to seconds while a download fills it) differs from a dead path.
pub const QUIET: Duration = Duration::from_millis(500);

/// But not longer than until this much silence, when somebody is looking.
pub const WATCHED_LIMIT: Duration = Duration::from_secs(3);

/// The same while nobody is looking.
pub const UNWATCHED_LIMIT: Duration = Duration::from_secs(30);

/// A carrier whose first ping is never answered is dead after this: the other
/// side may open its end a few round trips after us.
pub const START_GRACE: Duration = Duration::from_secs(3);

/// An answer later than the round trip's usual (RFC 6298: smoothed + 4 ×
/// variation) raises doubt, within these bounds. Doubt costs a few quick pings,
/// so the lower one is small.
pub const SHORTEST_TRUST: Duration = Duration::from_millis(100);

/// See [`SHORTEST_TRUST`]; also what holds before anything was measured
/// (RFC 6298 section 2.1).
pub const LONGEST_TRUST: Duration = Duration::from_secs(1);

/// An unanswered ping counts against the carrier after the same time within
/// wider bounds: a round trip may jump when the path changes or a queue fills.
pub const SHORTEST_OVERDUE: Duration = Duration::from_millis(250);

/// See [`SHORTEST_OVERDUE`]. A path known to take seconds is bad, not dead;
/// beyond a round trip of 0.8 s a death takes longer than [`WATCHED_LIMIT`].
pub const LONGEST_OVERDUE: Duration = Duration::from_secs(5);

/// Data due asks for no further ping this soon after the last.
pub const DATA_DUE_DEBOUNCE: Duration = Duration::from_millis(250);

/// Network changes this close together are one: else a flood of them would
/// outdate every answer before it comes.
pub const CHANGE_DEBOUNCE: Duration = Duration::from_secs(1);

/// Heard this shortly before a death, the other side is there and our
/// direction is lost.
pub const ONE_WAY_HEARD: Duration = Duration::from_secs(1);

/// A deadline served later than this means that the process did not run.
pub const FROZEN: Duration = Duration::from_millis(250);

impl Health {
    pub(super) fn ping_at(&self) -> Instant {
        let Some(last) = self.last_ping else { return self.since };
        last + if self.probe { QUICK_INTERVAL } else { self.interval(last) }
    }

    fn interval(&self, last: Instant) -> Duration {
        let quick_until = self.decisive_ping().map(|sent| sent + QUICK_AFTER_DECISIVE);
        match self.phase {
            Phase::Starting | Phase::Doubted if self.watched && quick_until.is_none_or(|end| last < end) => {
                QUICK_INTERVAL
            }
            Phase::Starting | Phase::Doubted => SLOW_QUICK_INTERVAL,
            Phase::Alive | Phase::Dead if !self.watched => UNWATCHED_INTERVAL,
            Phase::Alive if self.data_due || !self.unanswered.is_empty() => BUSY_INTERVAL,
            Phase::Alive | Phase::Dead => WATCHED_INTERVAL,
        }
    }

    /// When the oldest unanswered ping raises doubt.
    pub(super) fn doubt_at(&self) -> Option<Instant> {
        let usual = self.quality.rtt.answer_within().unwrap_or(LONGEST_TRUST);
        let oldest = self.unanswered.first().filter(|_| self.phase == Phase::Alive)?;
        Some(*oldest + usual.clamp(SHORTEST_TRUST, LONGEST_TRUST))
    }

    /// How long a ping may stay unanswered before it counts as lost.
    pub(super) fn answer_overdue(&self) -> Duration {
        let usual = self.quality.rtt.answer_within().unwrap_or(LONGEST_TRUST);
        usual.clamp(SHORTEST_OVERDUE, LONGEST_OVERDUE)
    }

    /// When the last of the pings was sent that make the carrier dead.
    fn decisive_ping(&self) -> Option<Instant> {
        self.unanswered.get(UNANSWERED_TO_DIE - 1).copied()
    }

    /// When the carrier is dead, if nothing answers until then.
    pub(super) fn death_at(&self) -> Option<Instant> {
        if self.phase == Phase::Dead {
            return None;
        }
        let decisive = self.decisive_ping()? + self.answer_overdue();
        let (shortest, longest) = match self.phase {
            Phase::Starting => (START_GRACE, START_GRACE),
            _ if self.watched => (SHORTEST_SILENCE, WATCHED_LIMIT),
            _ => (SHORTEST_SILENCE, UNWATCHED_LIMIT),
        };
        let quiet = self.last_heard.map_or(decisive, |heard| heard + QUIET);
        let (soonest, latest) = (self.silent_since + shortest, self.silent_since + longest);
        Some(decisive.max(soonest).max(quiet.min(latest)))
    }
}
