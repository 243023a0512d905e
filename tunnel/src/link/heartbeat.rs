//! The smart heartbeat: every minute, at once on a change, and an answer is
//! the only proof that the broker is there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::Cause;
use super::state::TimeoutReason;
use crate::backoff::{Jitter, RateLimit};
use crate::health::rtt::Rtt;

/// Time between heartbeats unless the broker asks for another.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);

/// The shortest interval that a broker can ask for: below it a careless or
/// hostile broker would eat a farm's SIM card.
pub const MIN_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// The longest interval that a broker can ask for: it removes a connection
/// after 300 s of silence.
pub const MAX_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(300);

/// Time between heartbeats while somebody is looking: with
/// [`ANSWER_DEADLINE`] a silent death of the broker shows within 17 s.
pub const WATCHED_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// When a regular heartbeat without answer means that the link is dead. TCP
/// sends again after about 0.2, 0.6, 1.4, 3 and 6.2 s: all five get their
/// chance. A repeat of our own would only queue behind them.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(7);

/// The same for a heartbeat that asks whether the link survived a change:
/// 3 x the round trip, at least 500 ms (one retransmission of TCP) and at
/// most this. A wrong verdict costs one reconnect and no tunnel.
pub const LONGEST_PROBE: Duration = Duration::from_secs(2);

/// See [`LONGEST_PROBE`].
pub const SHORTEST_PROBE: Duration = Duration::from_millis(500);

/// Changes come in bursts (an address goes, another comes, then a route): one
/// heartbeat for all of them within this time.
pub const CHANGE_DEBOUNCE: Duration = Duration::from_millis(250);

/// Heartbeats that may follow each other in a burst of changes, then one
/// every [`HEARTBEAT_EVERY`].
pub const HEARTBEAT_BURST: u32 = 10;

/// See [`HEARTBEAT_BURST`].
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);

/// No minute sees more heartbeats, whatever happens.
pub const MAX_HEARTBEATS_PER_MINUTE: u32 = HEARTBEAT_BURST + 30;

/// Something came on the link this recently: a lost STUN probe says nothing
/// about the broker then.
const JUST_HEARD: Duration = Duration::from_secs(1);

/// Unanswered heartbeats remembered; the rate and [`ANSWER_DEADLINE`] allow
/// 10 + 7 / 2 of them.
const MAX_UNANSWERED: usize = 16;

#[derive(Debug)]
struct Unanswered {
    sequence: u32,
    sent_at: Instant,
    deadline: Instant,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Send(u32, Cause),
    /// The oldest heartbeat waits for this long; the link is dead.
    Dead(Duration),
}

/// The heartbeats of one connection.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    watched: bool,
    sequence: u32,
    wanted: Option<Cause>,
    due: Instant,
    last_sent: Option<Instant>,
    unanswered: VecDeque<Unanswered>,
    rate: RateLimit,
    pub(super) rtt: Rtt,
    pub(super) last_answered: Option<Instant>,
    pub(super) last_received: Option<Instant>,
}

impl Heartbeat {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            interval: HEARTBEAT_INTERVAL,
            watched: false,
            sequence: 0,
            wanted: None,
            due: now,
            last_sent: None,
            unanswered: VecDeque::new(),
            rate: RateLimit::new(HEARTBEAT_BURST, HEARTBEAT_EVERY),
            rtt: Rtt::default(),
            last_answered: None,
            last_received: None,
        }
    }

    /// A new connection: what was measured on the old one may not hold on
    /// this one. The rate limit stays, or flapping would evade it.
    pub(super) fn begin(&mut self, interval: Duration, now: Instant) {
        *self = Self {
            interval: interval.clamp(MIN_HEARTBEAT_INTERVAL, MAX_HEARTBEAT_INTERVAL),
            watched: self.watched,
            rate: self.rate.clone(),
            wanted: Some(Cause::Connected),
            last_received: Some(now),
            ..Self::new(now)
        };
    }

    /// The connection ended: nothing of it is shown as if it still held.
    pub(super) fn end(&mut self, now: Instant) {
        self.begin(HEARTBEAT_INTERVAL, now);
        (self.wanted, self.last_received) = (None, None);
    }

    /// Counts from the next heartbeat on, which attention itself causes.
    pub(super) fn set_watched(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// A heartbeat is to go out at once, or as soon as the debounce allows.
    pub(super) fn want(&mut self, cause: Cause, now: Instant) {
        let just_heard = self.last_received.is_some_and(|at| now.saturating_duration_since(at) < JUST_HEARD);
        if !(cause == Cause::ProbeLost && just_heard) {
            self.wanted = Some(cause);
        }
    }

    pub(super) fn received(&mut self, now: Instant) {
        self.last_received = Some(now);
    }

    /// An answer proves that the link carried all earlier heartbeats too.
    pub(super) fn answered(&mut self, sequence: u32, now: Instant) {
        self.received(now);
        let Some(at) = self.unanswered.iter().position(|sent| sent.sequence == sequence) else {
            return;
        };
        if let Some(sent) = self.unanswered.drain(..=at).next_back() {
            self.rtt.sample(now.saturating_duration_since(sent.sent_at));
        }
        self.last_answered = Some(now);
    }

    pub(super) fn poll(&mut self, now: Instant, jitter: &mut Jitter) -> Option<Outcome> {
        if let Some(dead) = self.first_to_fail().filter(|sent| sent.deadline <= now) {
            return Some(Outcome::Dead(now.saturating_duration_since(dead.sent_at)));
        }
        let cause = self.wanted.unwrap_or(Cause::Regular);
        (self.send_at() <= now).then(|| Outcome::Send(self.send(cause, now, jitter), cause))
    }

    pub(super) fn timeout(&self) -> (Instant, TimeoutReason) {
        let due = (self.send_at(), TimeoutReason::HeartbeatDue);
        let unanswered = self.first_to_fail().map(|sent| (sent.deadline, TimeoutReason::HeartbeatUnanswered));
        unanswered.into_iter().fold(due, |soonest, other| if other.0 <= soonest.0 { other } else { soonest })
    }

    /// Whether a heartbeat waits for an answer longer than a working path needs.
    pub(super) fn is_waiting_for_long(&self, now: Instant) -> bool {
        self.unanswered.front().is_some_and(|sent| now >= sent.sent_at + SHORTEST_PROBE)
    }

    fn first_to_fail(&self) -> Option<&Unanswered> {
        self.unanswered.iter().min_by_key(|sent| sent.deadline)
    }

    fn send_at(&self) -> Instant {
        let debounced = self.last_sent.map(|sent| sent + CHANGE_DEBOUNCE);
        match (self.wanted, debounced) {
            (Some(_), Some(debounced)) => self.rate.ready_at(debounced),
            (Some(_), None) => self.rate.ready_at(self.due),
            (None, _) => self.rate.ready_at(self.due),
        }
    }

    fn effective_interval(&self) -> Duration {
        if self.watched { self.interval.min(WATCHED_HEARTBEAT_INTERVAL) } else { self.interval }
    }

    fn send(&mut self, cause: Cause, now: Instant, jitter: &mut Jitter) -> u32 {
        let answer_within = match cause {
            Cause::Regular | Cause::Connected => ANSWER_DEADLINE,
            Cause::ProbeLost => LONGEST_PROBE,
            Cause::NetworkChanged | Cause::AddressChanged | Cause::Attention => self
                .rtt
                .smoothed()
                .map_or(LONGEST_PROBE, |rtt| (rtt * 3).clamp(SHORTEST_PROBE, LONGEST_PROBE)),
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.wanted = None;
        self.last_sent = Some(now);
        self.rate.take(now);
        if self.unanswered.len() < MAX_UNANSWERED {
            let deadline = now + answer_within;
            self.unanswered.push_back(Unanswered { sequence: self.sequence, sent_at: now, deadline });
        }
        // Up to a tenth early, never late: ten thousand devices that came
        // back together drift apart.
        let interval = self.effective_interval();
        self.due = now + interval - jitter.up_to(interval / 10);
        self.sequence
    }
}
