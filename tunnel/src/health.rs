//! The health monitor of one carrier. Answered pings are the only proof of
//! life: neither a state of the connection nor anything heard replaces one.
//!
//! A state machine without I/O, one for each end of each carrier, created
//! when its `ping` channel is open. A missing answer raises doubt, doubt sends
//! quick pings, and when [`UNANSWERED_TO_DIE`] of them stay without answer the
//! carrier is dead: 1.4 s after a total loss (median, while somebody looks),
//! and never for lossy radio alone.
//!
//! A carrier that was declared dead is pinged on, slowly, until it is dropped:
//! an answer brings it back to life.

mod quality;
pub mod rtt;
mod timing;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use quality::Quality;
pub use quality::{
    BETTER_HOLD, FAIR_JITTER, FAIR_LOSS, FAIR_RTT, GOOD_JITTER, GOOD_LOSS, GOOD_RTT, Grade, LOSS_WINDOW,
};
pub use timing::{
    BUSY_INTERVAL, CHANGE_DEBOUNCE, DATA_DUE_DEBOUNCE, FROZEN, LONGEST_OVERDUE, LONGEST_TRUST, ONE_WAY_HEARD,
    QUICK_AFTER_DECISIVE, QUICK_INTERVAL, QUIET, SHORTEST_OVERDUE, SHORTEST_SILENCE, SHORTEST_TRUST,
    SLOW_QUICK_INTERVAL, START_GRACE, UNANSWERED_TO_DIE, UNWATCHED_INTERVAL, UNWATCHED_LIMIT,
    WATCHED_INTERVAL, WATCHED_LIMIT,
};

/// Something that happened to a carrier or around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The other side answered the ping of this number.
    PingAnswered(u32),
    /// The other side sent a ping of its own: a hint, since what we send may
    /// be lost nevertheless.
    PingReceived,
    /// Data or an acknowledgement came: a hint.
    DataReceived,
    /// Data of ours waits for an acknowledgement and nothing is heard.
    DataDue,
    /// Our own network changed.
    NetworkChanged,
    /// Whether somebody is looking.
    Attention {
        /// Somebody is.
        watched: bool,
    },
}

/// What the shell is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send a ping of this number on the `ping` channel.
    SendPing(u32),
    /// The carrier is alive or dead now. Changes only.
    Verdict(Verdict),
    /// The quality has another grade now.
    GradeChanged(Grade),
}

/// Whether a carrier is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A ping was answered: the first one, or one after death.
    Alive,
    /// Nothing answers any more.
    Dead {
        /// What kind of silence.
        reason: DeadReason,
        /// Since the last answered ping, or since the start.
        silent_for: Duration,
    },
}

/// What a dead carrier was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// No ping was ever answered.
    NeverAnswered,
    /// Pings were answered before; now nothing is heard.
    Silent,
    /// The other side is heard but does not answer: our direction is lost.
    OneWay,
}

impl DeadReason {
    /// Stable name for logs and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::NeverAnswered => "never_answered",
            Self::Silent => "silent",
            Self::OneWay => "one_way",
        }
    }
}

/// Where the monitor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No ping was answered yet.
    Starting,
    /// Pings are answered.
    Alive,
    /// Quick pings ask whether the carrier is still there.
    Doubted,
    /// It is not.
    Dead,
}

impl Phase {
    /// Stable name for logs and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Alive => "alive",
            Self::Doubted => "doubted",
            Self::Dead => "dead",
        }
    }
}

/// Which deadline [`Health::poll_timeout`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeoutReason {
    /// The next ping.
    Ping,
    /// An answer is missing.
    Doubt,
    /// Too many are.
    Death,
}

/// A carrier's health at one moment, for status displays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Where the monitor stands.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// The quality, once a ping was answered.
    pub grade: Option<Grade>,
    /// Smoothed round trip (RFC 6298).
    pub rtt: Option<Duration>,
    /// The last round trip.
    pub latest_rtt: Option<Duration>,
    /// Jitter (RFC 3550 section 6.4.1).
    pub jitter: Duration,
    /// Share of round trips lost, 0 to 1, of the last [`LOSS_WINDOW`].
    pub loss: f32,
    /// When a ping was last answered.
    pub last_answered: Option<Instant>,
    /// When anything was last heard.
    pub last_heard: Option<Instant>,
}

/// The health monitor of one carrier. See the module.
#[derive(Debug)]
pub struct Health {
    watched: bool,
    phase: Phase,
    since: Instant,
    number: u32,
    last_ping: Option<Instant>,
    /// A ping is wanted at once.
    probe: bool,
    data_due: bool,
    /// When the pings since the last proof were sent, the first
    /// [`UNANSWERED_TO_DIE`] of them.
    unanswered: Vec<Instant>,
    /// The last proof of life or the start, moved on over the time in which
    /// this process could not run.
    silent_since: Instant,
    last_answered: Option<Instant>,
    last_heard: Option<Instant>,
    /// When our network last changed: only a later ping's answer is a proof.
    changed_at: Option<Instant>,
    quality: Quality,
    actions: VecDeque<Action>,
}

impl Health {
    /// Begins to ping at once.
    pub fn new(watched: bool, now: Instant) -> Self {
        let mut health = Self {
            watched,
            phase: Phase::Starting,
            since: now,
            number: 0,
            last_ping: None,
            probe: true,
            data_due: false,
            unanswered: Vec::with_capacity(UNANSWERED_TO_DIE),
            silent_since: now,
            last_answered: None,
            last_heard: None,
            changed_at: None,
            quality: Quality::default(),
            actions: VecDeque::new(),
        };
        health.advance(now);
        health
    }

    /// Takes in what happened. Actions may follow.
    pub fn handle(&mut self, event: Event, now: Instant) {
        self.thaw(now);
        match event {
            Event::PingAnswered(number) => self.on_answer(number, now),
            Event::PingReceived => self.last_heard = Some(now),
            Event::DataReceived => {
                self.last_heard = Some(now);
                self.data_due = false;
            }
            Event::DataDue => {
                self.data_due = true;
                // A ping on its way already asks the same.
                let asked = self.last_ping.is_some_and(|at| now < at + DATA_DUE_DEBOUNCE);
                self.probe |= !asked;
            }
            Event::NetworkChanged => {
                if self.changed_at.is_none_or(|at| now >= at + CHANGE_DEBOUNCE) {
                    self.changed_at = Some(now);
                    self.doubt(now);
                }
            }
            Event::Attention { watched } => {
                self.watched = watched;
                if watched && now >= self.silent_since + WATCHED_INTERVAL {
                    self.doubt(now);
                }
            }
        }
        self.advance(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.thaw(now);
        self.advance(now);
    }

    /// The next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called, and why. Never `None`:
    /// even a dead carrier is pinged until it is dropped.
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        let doubt = self.doubt_at().map(|at| (at, TimeoutReason::Doubt));
        let death = self.death_at().map(|at| (at, TimeoutReason::Death));
        let ping = Some((self.ping_at(), TimeoutReason::Ping));
        [death, doubt, ping].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// The health at this moment, for status displays.
    pub fn state(&self, now: Instant) -> Snapshot {
        Snapshot {
            phase: self.phase,
            since: self.since,
            grade: self.quality.grade,
            rtt: self.quality.rtt.smoothed(),
            latest_rtt: self.quality.rtt.latest(),
            jitter: self.quality.rtt.jitter(),
            loss: self.quality.loss(self.answer_overdue(), now),
            last_answered: self.last_answered,
            last_heard: self.last_heard,
        }
    }

    fn on_answer(&mut self, number: u32, now: Instant) {
        self.last_heard = Some(now);
        let Some(sent_at) = self.quality.answered(number, now) else { return };
        if self.changed_at.is_some_and(|changed| sent_at < changed) {
            return;
        }
        self.unanswered.clear();
        self.silent_since = now;
        self.last_answered = Some(now);
        if matches!(self.phase, Phase::Starting | Phase::Dead) {
            self.actions.push_back(Action::Verdict(Verdict::Alive));
        }
        self.enter(Phase::Alive, now);
        let grade = self.quality.grade_answer(self.answer_overdue(), now);
        self.actions.extend(grade.map(Action::GradeChanged));
    }

    /// Asks at once and quickly.
    fn doubt(&mut self, now: Instant) {
        self.probe = true;
        if self.phase == Phase::Alive {
            self.enter(Phase::Doubted, now);
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        if self.phase != phase {
            self.phase = phase;
            self.since = now;
        }
    }

    fn advance(&mut self, now: Instant) {
        loop {
            if self.death_at().is_some_and(|at| at <= now) {
                self.die(now);
            } else if self.doubt_at().is_some_and(|at| at <= now) {
                self.enter(Phase::Doubted, now);
            } else if self.ping_at() <= now {
                self.ping(now);
            } else {
                break;
            }
        }
    }

    /// A process that did not run (a sleeping phone, a stopped process) could
    /// not hear answers: that time is no silence.
    fn thaw(&mut self, now: Instant) {
        let late = self.poll_timeout().map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(at));
        if late > FROZEN {
            self.silent_since += late;
            self.unanswered.iter_mut().for_each(|sent| *sent += late);
        }
    }

    fn ping(&mut self, now: Instant) {
        let number = self.number;
        self.number = number.wrapping_add(1);
        self.probe = false;
        self.last_ping = Some(now);
        if self.unanswered.len() < UNANSWERED_TO_DIE {
            self.unanswered.push(now);
        }
        self.quality.sent(number, now);
        self.actions.push_back(Action::SendPing(number));
    }

    fn die(&mut self, now: Instant) {
        let reason = match (self.last_answered, self.last_heard) {
            (None, _) => DeadReason::NeverAnswered,
            (_, Some(heard)) if now < heard + ONE_WAY_HEARD => DeadReason::OneWay,
            _ => DeadReason::Silent,
        };
        let silent_for = now.saturating_duration_since(self.silent_since);
        self.enter(Phase::Dead, now);
        self.actions.push_back(Action::Verdict(Verdict::Dead { reason, silent_for }));
        let grade = self.quality.lost();
        self.actions.extend(grade.map(Action::GradeChanged));
    }
}

#[cfg(test)]
mod lossy;
#[cfg(test)]
mod tests;
