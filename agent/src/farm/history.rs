//! The farm's event log: whether phones could reach it, and since when not.

use std::time::{Duration, Instant};

use farm_protocol::control::{Absence, AbsenceReason, MAX_ABSENCES};
use farm_tunnel::history::{self, History, Kind, Stored};
use farm_tunnel::link;
use farm_tunnel::recovery::Failure;

use super::{Farm, wall_time};
use crate::clocks;
use crate::state::State;

/// Changes within this time are one write to the card.
const SETTLE: Duration = Duration::from_secs(10);

/// How much of a span is lost at most in a power cut. Each mark is one commit of
/// the store: 24 a day, about 0.3 MB of the 5 that may be written.
const MARK_EVERY: Duration = Duration::from_secs(3600);

/// A start counts for nothing until it has found the broker, or for this long.
const STARTING: Duration = Duration::from_secs(10);

/// A wall clock that is this near to the broker's is trusted.
const TRUSTED_WITHIN: u64 = 300;

/// A log that can't be read begins anew: it is no reason not to serve.
pub(super) fn open(state: &State, now: Instant) -> History {
    let stored = state.history().unwrap_or_else(|error| {
        tracing::error!(%error, "the event log can't be read: it begins anew");
        Stored::default()
    });
    History::new(stored, Duration::from_secs(wall_time()), SETTLE, MARK_EVERY, now)
}

impl Farm {
    /// Notes how things stand, and stores what is due.
    pub(super) async fn observe(&mut self, now: Instant) {
        let reachable = self.broker.state().state == link::State::Online
            || self.lifecycle.snapshot().iter().any(|session| session.live.is_some());
        let observed = if reachable {
            Some((Kind::Up, None))
        } else if self.offline {
            Some((Kind::NoUplink, Some(Failure::PhoneOffline.name())))
        } else if now < self.started + STARTING {
            None
        } else {
            Some((Kind::Outage, Some(Failure::BrokerLost.name())))
        };
        self.history.set(observed, now);
        if self.history.poll_timeout().is_some_and(|due| due <= now) {
            self.history.clock(Duration::from_secs(wall_time()), self.clock_trusted, now);
            self.store_history(now).await;
        }
    }

    /// The broker's clock, seconds since 1970.
    pub(super) async fn broker_time(&mut self, time: u64, now: Instant) {
        let wall = wall_time();
        self.clock_trusted = wall.abs_diff(time) <= TRUSTED_WITHIN;
        self.history.clock(Duration::from_secs(wall), self.clock_trusted, now);
        if self.clock_trusted {
            self.note_machine_start(wall, now).await;
        }
    }

    /// Notes once for each start of the machine since when it had been off. Only
    /// a clock that was checked can tell; until then it stays to be noted.
    async fn note_machine_start(&mut self, wall: u64, now: Instant) {
        let boot = clocks::boot_id();
        match self.state.machine_start() {
            Ok(Some(known)) if known == boot => return,
            Ok(Some(_)) => self.history.machine_started(wall - clocks::since_boot().as_secs().min(wall), now),
            // The first start of all: nobody missed it.
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "the event log can't tell whether the machine was off");
                return;
            }
        }
        self.machine_start = Some(boot);
        self.store_history(now).await;
        self.tell_info();
    }

    /// When this farm could not be there, for its phones.
    pub(super) fn absences(&self) -> Vec<Absence> {
        let absences = self.history.absences(MAX_ABSENCES, Instant::now());
        let told = |absence: history::Absence| Absence {
            at: absence.at,
            lasted: u32::try_from(absence.lasted.as_secs()).unwrap_or(u32::MAX),
            why: if absence.power { AbsenceReason::NoPower } else { AbsenceReason::NoNetwork },
        };
        absences.into_iter().map(told).filter(|absence| absence.lasted > 0).collect()
    }

    /// The agent stops in good order.
    pub(super) async fn close_history(&mut self, now: Instant) {
        self.history.set(None, now);
        self.store_history(now).await;
    }

    async fn store_history(&mut self, now: Instant) {
        let changes = self.history.take_changes(now);
        match self.state.store_history(changes, self.machine_start).await {
            Ok(()) => self.machine_start = None,
            Err(error) => tracing::error!(%error, "the event log could not be stored"),
        }
    }
}
