//! The core's deadlines, each named for what happens when it is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use farm_protocol::id::FarmId;

use super::cluster::message::BrokerId;
use super::connection_state::DeviceId;
use super::event::ConnectionId;

/// What happens at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A connection has to have done its next step.
    Connection(ConnectionId),
    /// A device without a connection may be forgotten.
    Device(DeviceId),
    /// A farm's held-back presence goes out.
    Announce(FarmId),
    /// A farm has been away for as long as the operator wants to know.
    Absence(FarmId),
    /// Expired enrollment tokens are thrown away.
    Tokens,
    /// The log of the farms is written.
    History,
    /// It is noted that the broker still runs.
    Run,
    /// Who did not come back after the broker's start is away.
    Returned,
    /// The other brokers are told that this one is there.
    Beat,
    /// Another broker has to have said something.
    Peer(BrokerId),
    /// All is said again to the other brokers.
    SayAll,
    /// Devices that left other brokers long ago are forgotten.
    Places,
}

impl Timer {
    fn reason(self) -> &'static str {
        match self {
            Self::Connection(_) => "a connection's deadline",
            Self::Device(_) => "an absent device may be forgotten",
            Self::Announce(_) => "held-back presence of a farm",
            Self::Absence(_) => "a farm has been away for long",
            Self::Tokens => "expired enrollment tokens",
            Self::History => "the log of the farms is written",
            Self::Run => "it is noted that the broker still runs",
            Self::Returned => "who did not come back after the start is away",
            Self::Beat => "the other brokers are told that this one is there",
            Self::Peer(_) => "another broker has to have said something",
            Self::SayAll => "all is said again to the other brokers",
            Self::Places => "devices that left other brokers long ago are forgotten",
        }
    }
}

/// At most one deadline for each timer.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Instant, Timer)>,
    armed: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Sets the timer, instead of what was set before.
    pub(super) fn arm(&mut self, timer: Timer, at: Instant) {
        if let Some(before) = self.armed.insert(timer, at) {
            self.by_time.remove(&(before, timer));
        }
        self.by_time.insert((at, timer));
    }

    /// Takes the timer back.
    pub(super) fn disarm(&mut self, timer: Timer) {
        if let Some(at) = self.armed.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// The next deadline, and what it is for.
    pub(super) fn next(&self) -> Option<(Instant, &'static str)> {
        self.by_time.first().map(|(at, timer)| (*at, timer.reason()))
    }

    /// Takes the earliest timer that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.by_time.first()?;
        (at <= now).then(|| {
            self.disarm(timer);
            timer
        })
    }

    /// Whether the timer is set.
    pub(super) fn is_armed(&self, timer: Timer) -> bool {
        self.armed.contains_key(&timer)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.armed.len(), self.by_time.len());
        self.armed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_last_setting_counts() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (one, two) = (Timer::Connection(ConnectionId(1)), Timer::Connection(ConnectionId(2)));
        timers.arm(one, at(5));
        timers.arm(two, at(3));
        timers.arm(one, at(2));
        assert_eq!(timers.next().unwrap().0, at(2));
        assert_eq!(timers.pop_due(at(1)), None);
        assert_eq!(timers.pop_due(at(9)), Some(one));
        timers.disarm(two);
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.len(), 0);
    }
}
