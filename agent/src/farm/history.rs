//! The farm's event log: whether phones could reach it, and since when not.

use std::time::{Duration, Instant};

use farm_tunnel::history::{History, Kind, Stored};
use farm_tunnel::link;
use farm_tunnel::recovery::Failure;

use super::{Farm, wall_time};
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
    pub(super) fn broker_time(&mut self, time: u64, now: Instant) {
        let wall = wall_time();
        self.clock_trusted = wall.abs_diff(time) <= TRUSTED_WITHIN;
        self.history.clock(Duration::from_secs(wall), self.clock_trusted, now);
    }

    /// The agent stops in good order.
    pub(super) async fn close_history(&mut self, now: Instant) {
        self.history.set(None, now);
        self.store_history(now).await;
    }

    async fn store_history(&mut self, now: Instant) {
        let changes = self.history.take_changes(now);
        if let Err(error) = self.state.store_history(changes).await {
            tracing::error!(%error, "the event log could not be stored");
        }
    }
}
