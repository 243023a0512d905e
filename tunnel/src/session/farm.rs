//! The farm's side of the connection lifecycle: many sessions, one rule each.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use farm_protocol::control::GoodbyeReason;
use farm_protocol::epoch::Epoch;
use farm_protocol::frame::ResetReason;
use farm_protocol::id::{BootId, PhoneId, SessionId};
use farm_protocol::signal::OfferRefused;

use super::{CONNECT_DEADLINE, HELLO_DEADLINE, PARKED_FOR};

/// Sessions at once: each holds about half a megabyte with its carrier, and
/// the agent has 12 MB; a farm has a handful of phones.
pub const MAX_SESSIONS: usize = 32;

/// Why something is due, for logs and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A carrier did not open in time.
    Connect,
    /// A carrier's hello did not come in time.
    Hello,
    /// A parked session is over.
    Expiry,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A paired phone's verified offer.
    Offer {
        /// The session.
        session: SessionId,
        /// The carrier's epoch.
        epoch: Epoch,
        /// The phone program's run.
        phone_boot: BootId,
        /// The farm's run that the phone means.
        farm_boot: BootId,
    },
    /// A carrier's channels are open: hellos may be exchanged.
    Opened(SessionId, Epoch),
    /// The phone's hello came on a carrier, for the right session and epoch.
    Hello(SessionId, Epoch),
    /// A carrier is dead, closed, or was left by the phone.
    Lost(SessionId, Epoch),
    /// The phone ended its session on purpose.
    Ended(SessionId, Epoch),
    /// The phone may no longer come.
    Revoked(PhoneId),
    /// The agent stops.
    Stop,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Refuse the offer just handled.
    Refuse {
        /// The session.
        session: SessionId,
        /// The offer's epoch.
        epoch: Epoch,
        /// Why.
        reason: OfferRefused,
        /// What the next epoch must exceed.
        newest: Epoch,
    },
    /// Make a session: its multiplexer starts empty.
    Begin(SessionId),
    /// Build the carrier for the offer just handled, and answer.
    Connect(SessionId, Epoch),
    /// Both hellos are there: the session's streams go on over this carrier.
    Attach(SessionId, Epoch),
    /// Close a carrier and say why, if it can still be said.
    Close(SessionId, Epoch, GoodbyeReason),
    /// The session has no carrier now; its streams are kept for a while.
    Park(SessionId),
    /// The session is over; its streams end with this reason.
    End(SessionId, ResetReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Greeting,
}

#[derive(Debug)]
struct Attempt {
    epoch: Epoch,
    stage: Stage,
    deadline: Instant,
}

#[derive(Debug)]
struct Session {
    phone_boot: BootId,
    live: Option<Epoch>,
    attempt: Option<Attempt>,
    /// When the session ends unless a carrier comes; set while none is live.
    expires: Option<Instant>,
}

/// One session as status displays show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// The session.
    pub session: SessionId,
    /// The carrier that its streams use; `None` while parked.
    pub live: Option<Epoch>,
    /// Whether a new carrier is on its way.
    pub connecting: bool,
}

/// All sessions of a farm.
#[derive(Debug)]
pub struct Lifecycle {
    boot: BootId,
    sessions: BTreeMap<SessionId, Session>,
    /// The newest epoch of every session that ever was in this run, so that
    /// a recorded offer can't be replayed after its session has ended.
    /// Bounded by the paired phones and their slots.
    newest: BTreeMap<SessionId, Epoch>,
    actions: VecDeque<Action>,
}

impl Lifecycle {
    /// For the given run of the farm.
    pub fn new(boot: BootId) -> Self {
        Self { boot, sessions: BTreeMap::new(), newest: BTreeMap::new(), actions: VecDeque::new() }
    }

    /// Takes what happened; ask [`Self::poll_action`] afterwards until it is empty.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Offer { session, epoch, phone_boot, farm_boot } => {
                self.offer(session, epoch, phone_boot, farm_boot, now);
            }
            Event::Opened(session, epoch) => self.opened(session, epoch, now),
            Event::Hello(session, epoch) => self.hello(session, epoch),
            Event::Lost(session, epoch) => self.lost(session, epoch, now),
            Event::Ended(session, epoch) => {
                if self.newest.get(&session) == Some(&epoch) || self.live(session) == Some(epoch) {
                    self.end(session, GoodbyeReason::SessionEnded, ResetReason::SessionEnded);
                }
            }
            Event::Revoked(phone) => {
                let revoked: Vec<_> = self.sessions.keys().filter(|s| s.phone == phone).copied().collect();
                for session in revoked {
                    self.end(session, GoodbyeReason::Revoked, ResetReason::SessionEnded);
                }
                self.newest.retain(|session, _| session.phone != phone);
            }
            Event::Stop => {
                let all: Vec<_> = self.sessions.keys().copied().collect();
                for session in all {
                    self.end(session, GoodbyeReason::Stopping, ResetReason::SessionEnded);
                }
            }
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Due)> {
        let attempts = self.sessions.values().filter_map(|s| s.attempt.as_ref()).map(|a| match a.stage {
            Stage::Connecting => (a.deadline, Due::Connect),
            Stage::Greeting => (a.deadline, Due::Hello),
        });
        // An attempt may still save the session, and has a deadline of its own.
        let waiting = self.sessions.values().filter(|s| s.attempt.is_none());
        let expiries = waiting.filter_map(|s| Some((s.expires?, Due::Expiry)));
        attempts.chain(expiries).min_by_key(|(when, _)| *when)
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<_> = self
            .sessions
            .iter()
            .filter_map(|(id, s)| s.attempt.as_ref().filter(|a| a.deadline <= now).map(|a| (*id, a.epoch)))
            .collect();
        for (session, epoch) in late {
            self.actions.push_back(Action::Close(session, epoch, GoodbyeReason::Superseded));
            self.lost(session, epoch, now);
        }
        let expired: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.expires.is_some_and(|at| at <= now) && s.attempt.is_none())
            .map(|(id, _)| *id)
            .collect();
        for session in expired {
            self.end(session, GoodbyeReason::SessionEnded, ResetReason::Expired);
        }
    }

    /// Every session, in a stable order.
    pub fn snapshot(&self) -> Vec<Snapshot> {
        self.sessions
            .iter()
            .map(|(session, s)| Snapshot { session: *session, live: s.live, connecting: s.attempt.is_some() })
            .collect()
    }

    fn offer(&mut self, id: SessionId, epoch: Epoch, phone_boot: BootId, farm_boot: BootId, now: Instant) {
        let known = self.newest.get(&id).copied();
        let newest = known.unwrap_or_default();
        let mut refuse =
            |reason| self.actions.push_back(Action::Refuse { session: id, epoch, reason, newest });
        if farm_boot != self.boot {
            return refuse(OfferRefused::OtherBoot);
        }
        // A session's first epoch may be any: there is nothing to leap from.
        if known.is_some_and(|known| !epoch.follows(known)) {
            return refuse(OfferRefused::StaleEpoch);
        }
        let same_run = self.sessions.get(&id).is_some_and(|s| s.phone_boot == phone_boot);
        if !self.sessions.contains_key(&id) && self.sessions.len() >= MAX_SESSIONS && !self.make_room() {
            return self.actions.push_back(Action::Refuse {
                session: id,
                epoch,
                reason: OfferRefused::Limit,
                newest,
            });
        }
        if self.sessions.contains_key(&id) && !same_run {
            // The phone's program restarted: its former streams end now, not
            // when their carrier times out.
            // Should that program still run (a copied key), it is told.
            self.end(id, GoodbyeReason::TakenOver, ResetReason::Restarted);
        }
        let begin = !self.sessions.contains_key(&id);
        let session = self.sessions.entry(id).or_insert_with(|| Session {
            phone_boot,
            live: None,
            attempt: None,
            expires: Some(now + PARKED_FOR),
        });
        self.newest.insert(id, epoch);
        let deadline = now + CONNECT_DEADLINE;
        let former = session.attempt.replace(Attempt { epoch, stage: Stage::Connecting, deadline });
        if begin {
            self.actions.push_back(Action::Begin(id));
        }
        if let Some(former) = former {
            self.actions.push_back(Action::Close(id, former.epoch, GoodbyeReason::Superseded));
        }
        self.actions.push_back(Action::Connect(id, epoch));
    }

    fn live(&self, id: SessionId) -> Option<Epoch> {
        self.sessions.get(&id)?.live
    }

    /// Ends the session that has been parked for longest, if there is one.
    fn make_room(&mut self) -> bool {
        let oldest = self
            .sessions
            .iter()
            .filter(|(_, s)| s.live.is_none() && s.attempt.is_none())
            .min_by_key(|(_, s)| s.expires)
            .map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.end(id, GoodbyeReason::SessionEnded, ResetReason::Limit);
        }
        oldest.is_some()
    }

    fn attempt_mut(&mut self, id: SessionId, epoch: Epoch) -> Option<&mut Attempt> {
        self.sessions.get_mut(&id)?.attempt.as_mut().filter(|a| a.epoch == epoch)
    }

    fn opened(&mut self, id: SessionId, epoch: Epoch, now: Instant) {
        if let Some(attempt) = self.attempt_mut(id, epoch)
            && attempt.stage == Stage::Connecting
        {
            attempt.stage = Stage::Greeting;
            attempt.deadline = now + HELLO_DEADLINE;
        }
    }

    fn hello(&mut self, id: SessionId, epoch: Epoch) {
        if self.attempt_mut(id, epoch).is_none() {
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.attempt = None;
        session.expires = None;
        let former = session.live.replace(epoch);
        self.actions.push_back(Action::Attach(id, epoch));
        if let Some(former) = former {
            self.actions.push_back(Action::Close(id, former, GoodbyeReason::Superseded));
        }
    }

    fn lost(&mut self, id: SessionId, epoch: Epoch, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.attempt.as_ref().is_some_and(|a| a.epoch == epoch) {
            session.attempt = None;
        }
        if session.live == Some(epoch) {
            session.live = None;
            session.expires = Some(now + PARKED_FOR);
            self.actions.push_back(Action::Park(id));
        }
    }

    fn end(&mut self, id: SessionId, goodbye: GoodbyeReason, reset: ResetReason) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        // Streams first, so that their reset can still travel on the carrier.
        self.actions.push_back(Action::End(id, reset));
        for epoch in session.live.into_iter().chain(session.attempt.map(|a| a.epoch)) {
            self.actions.push_back(Action::Close(id, epoch, goodbye));
        }
    }
}

#[cfg(test)]
mod tests;
