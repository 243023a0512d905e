//! The phone's side of the connection lifecycle: one session with one farm.
//!
//! At most one carrier is live and at most one attempt is under way; an
//! attempt replaces the live carrier only once it works (make before break).
//! When nothing is under way there is always a time for the next attempt,
//! unless the phone is no longer paired or the session was stopped.
//!
//! A carrier that goes through a relay is as good as another until a direct one
//! works: that is tried now and then while somebody looks, beside it.

mod attempt;
mod event;
mod runs;
mod upgrade;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use farm_protocol::control::GoodbyeReason;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::BootId;
use farm_protocol::signal::OfferRefused;

use super::{ANSWER_DEADLINE, CONNECT_DEADLINE, HELLO_DEADLINE};
use crate::backoff::Jitter;
use crate::recovery::{self, Context, Decision, Failure, Strategy, Ways};
use attempt::{Attempt, Stage};
use runs::{News, Runs};
use upgrade::Upgrade;

pub use event::{Action, Due, Event, Network, Snapshot, State};

/// A carrier that nobody looks at costs the farm's modem about 50 bytes a second
/// (pings from both ends, consent checks), and a new one about 12 KB: keeping
/// one for as long as a new one would cost is never more than twice the least
/// that could have been spent.
pub const REST_AFTER: Duration = Duration::from_secs(240);

/// How long the first offer waits to hear of the farm's run, after the link to
/// the broker is up: presence is the broker's first answer, so a round trip
/// of a slow link. Without it the offer goes out blindly and is corrected by
/// the farm, which costs a round trip more.
pub const PRESENCE_WITHIN: Duration = Duration::from_millis(500);

/// One phone program's session with one farm.
#[derive(Debug)]
pub struct Session {
    started: bool,
    epoch: Epoch,
    farm: Runs,
    broker_link: bool,
    network_up: bool,
    watched: bool,
    live: Option<Epoch>,
    attempt: Option<Attempt>,
    next_attempt: Option<Instant>,
    upgrade: Upgrade,
    failed: u32,
    failure: Option<Failure>,
    decision: Option<Decision>,
    /// The broker gave our place to another program: the next carrier needs
    /// another one.
    slot_lost: bool,
    /// Instead of the next offer, a slot is to be taken.
    slot_wanted: bool,
    /// Whether to rest, after how long.
    rests_after: Option<Duration>,
    /// Nobody has looked since then.
    unwatched_since: Option<Instant>,
    resting: bool,
    jitter: Jitter,
    shown: (State, Instant),
    actions: VecDeque<Action>,
}

impl Session {
    /// A stopped session. `epoch` is the first of this program's start;
    /// `seed` spreads the retries of many phones.
    pub fn new(epoch: Epoch, seed: u64, now: Instant) -> Self {
        Self {
            started: false,
            epoch,
            farm: Runs::default(),
            broker_link: false,
            network_up: true,
            watched: true,
            live: None,
            attempt: None,
            next_attempt: None,
            upgrade: Upgrade::default(),
            failed: 0,
            failure: None,
            decision: None,
            slot_lost: false,
            slot_wanted: false,
            rests_after: None,
            unwatched_since: None,
            resting: false,
            jitter: Jitter::new(seed),
            shown: (State::Stopped, now),
            actions: VecDeque::new(),
        }
    }

    /// Gives the carrier up after that much time (see [`REST_AFTER`]) in which
    /// nobody looked. Whoever asks for this counts open streams as attention.
    #[must_use]
    pub fn rests_after(self, time: Duration) -> Self {
        Self { rests_after: Some(time), ..self }
    }

    /// Takes what happened; ask [`Self::poll_action`] afterwards until it is empty.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Start => {
                self.started = true;
                if self.broker_link {
                    self.call_the_farm(now);
                } else {
                    // The link's return starts the attempt; this only looks after it.
                    self.attempt_at(now + recovery::RECHECK);
                }
            }
            Event::Stop => self.stop(),
            Event::BrokerLink(online) => {
                let was_online = std::mem::replace(&mut self.broker_link, online);
                // Let in: the place is ours.
                self.slot_lost &= !online;
                if online && !was_online {
                    // An offer without answer was lost with the former link.
                    let lost = self.drop_unanswered_offer();
                    if lost || (self.attempt.is_none() && self.live.is_none()) {
                        self.call_the_farm(now);
                    }
                }
            }
            Event::Presence { boot, epoch, online } => self.presence(boot, epoch, online, now),
            Event::PresenceUnknown => self.farm.not_known(),
            Event::Answered(epoch) => {
                if let Some(attempt) = self.attempt_mut(epoch)
                    && attempt.stage == Stage::Offered
                {
                    attempt.stage = Stage::Connecting;
                    attempt.deadline = now + CONNECT_DEADLINE;
                }
            }
            Event::Refused { epoch, reason, farm_boot, newest } => {
                self.refused(epoch, reason, farm_boot, newest, now);
            }
            Event::Undelivered => {
                if let Some(attempt) = self.attempt.filter(|a| a.stage == Stage::Offered) {
                    self.farm.set_online(false);
                    self.give_up(attempt.epoch, Failure::FarmOffline, now);
                }
            }
            Event::Superseded if self.live.is_some() => self.slot_lost = true,
            Event::Superseded => self.superseded(now),
            Event::NewSlot(epoch) => {
                (self.slot_lost, self.slot_wanted, self.broker_link) = (false, false, false);
                // No carrier of this session is ever called by the name of another.
                self.epoch = self.epoch.max(epoch);
                self.failed = 0;
                // The new link's coming up starts the attempt; this only looks after it.
                self.next_attempt = None;
                self.attempt_at(now + recovery::RECHECK);
            }
            Event::NoSlot => {
                (self.slot_lost, self.slot_wanted) = (false, false);
                self.fail(Failure::NoSlotLeft, now);
            }
            Event::Opened(epoch) => {
                if let Some(attempt) = self.attempt_mut(epoch)
                    && attempt.stage != Stage::Greeting
                {
                    attempt.stage = Stage::Greeting;
                    attempt.deadline = now + HELLO_DEADLINE;
                }
            }
            Event::Hello(epoch) => self.hello(epoch, now),
            Event::Path { epoch, relayed } => self.path(epoch, relayed, now),
            Event::Lost(epoch) => self.lost(epoch, Failure::NetworkTimeout, now),
            Event::Goodbye(epoch, reason) => self.goodbye(epoch, reason, now),
            Event::Network(change) => self.network(change, now),
            Event::PathBack => {
                if self.started && self.live.is_none() {
                    self.failed = 0;
                    self.start_over(now);
                }
            }
            Event::Attention { watched } => self.attention(watched, now),
        }
        self.advance(now);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] is due, and why. `None` while live and
    /// direct with nothing under way, and while stopped.
    pub fn poll_timeout(&self) -> Option<(Instant, Due)> {
        let attempt = self.attempt.map(|attempt| attempt.due());
        let next = self.next_attempt.map(|at| (at, Due::Attempt));
        // Of the last two there is one at most: nobody looks, or somebody does.
        let upgrade = self.upgrade_at().map(|at| (at, Due::Upgrade));
        let rest = self.rest_at().map(|at| (at, Due::Rest));
        attempt.or(next).or(upgrade).or(rest)
    }

    fn upgrade_at(&self) -> Option<Instant> {
        let farm_there = self.farm.is_online() && self.broker_link && self.network_up;
        let wanted = self.live.is_some() && self.watched && !self.slot_lost;
        self.upgrade.due().filter(|_| wanted && farm_there)
    }

    fn rest_at(&self) -> Option<Instant> {
        self.live?;
        Some(self.unwatched_since? + self.rests_after?)
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(attempt) = self.attempt.filter(|a| a.deadline <= now) {
            self.give_up(attempt.epoch, Failure::CarrierFailed, now);
        }
        let idle = self.attempt.is_none() && self.next_attempt.is_none();
        if idle && self.rest_at().is_some_and(|at| at <= now) {
            self.resting = true;
            let live = self.live.take();
            self.actions.extend(live.map(|epoch| Action::Close(epoch, GoodbyeReason::SessionEnded)));
        }
        self.advance(now);
    }

    /// How the session stands.
    pub fn snapshot(&self) -> Snapshot {
        let live = self.live.is_some();
        Snapshot {
            state: self.shown.0,
            since: self.shown.1,
            failure: self.failure.filter(|_| !live),
            strategy: self.decision.map(|d| d.strategy).filter(|_| !live),
            attempt: self.failed,
            next_attempt: self.next_attempt.filter(|_| self.attempt.is_none()),
            network_up: self.network_up,
            farm_present: self.farm.shown(),
        }
    }

    /// The carrier that streams use.
    pub fn live(&self) -> Option<Epoch> {
        self.live
    }

    /// The carrier that is being tried, beside the live one or in its place.
    pub fn attempting(&self) -> Option<Epoch> {
        self.attempt.map(|attempt| attempt.epoch)
    }

    /// The newest epoch that was used.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn attempt_mut(&mut self, epoch: Epoch) -> Option<&mut Attempt> {
        self.attempt.as_mut().filter(|a| a.epoch == epoch)
    }

    fn attempt_at(&mut self, when: Instant) {
        if self.started && !self.resting {
            self.next_attempt = Some(self.next_attempt.map_or(when, |known| known.min(when)));
        }
    }

    /// The link to the broker is there: connect, at once if the farm's run is
    /// known, else when its presence comes.
    fn call_the_farm(&mut self, now: Instant) {
        self.failed = 0;
        self.next_attempt = None;
        let patience = if self.farm.boot().is_some() { Duration::ZERO } else { PRESENCE_WITHIN };
        self.attempt_at(now + patience);
    }

    fn changed(&mut self) {
        if !self.actions.contains(&Action::Changed) {
            self.actions.push_back(Action::Changed);
        }
    }

    /// Starts what is due and keeps what is shown up to date.
    fn advance(&mut self, now: Instant) {
        if self.started && self.attempt.is_none() && self.next_attempt.is_some_and(|at| at <= now) {
            self.next_attempt = None;
            if self.slot_wanted {
                self.actions.push_back(Action::TakeAnotherSlot);
                // Answered at once; this only looks after it.
                self.attempt_at(now + recovery::RECHECK);
            } else {
                self.offer(now);
            }
        }
        let idle = self.attempt.is_none() && self.next_attempt.is_none();
        if idle && self.upgrade_at().is_some_and(|at| at <= now) {
            self.upgrade.begun(now, &mut self.jitter);
            self.send_offer(Ways::DirectOnly, now);
        }
        let state = match (self.started, self.live, self.attempt) {
            (false, ..) => State::Stopped,
            (true, Some(_), _) => State::Live,
            (true, None, Some(_)) => State::Connecting,
            (true, None, None) if self.resting => State::Resting,
            (true, None, None) if matches!(self.failure, Some(Failure::Refused(OfferRefused::NotPaired))) => {
                State::NotPaired
            }
            (true, None, None) => State::Waiting,
        };
        if state != self.shown.0 {
            self.shown = (state, now);
            self.changed();
        }
    }

    fn offer(&mut self, now: Instant) {
        if !self.broker_link {
            // Nothing can be said; the link's return starts the next attempt.
            return self.fail(Failure::BrokerLost, now);
        }
        if !self.network_up {
            return self.fail(Failure::PhoneOffline, now);
        }
        let relay_only = self.decision.is_some_and(|d| d.relay_only);
        self.send_offer(if relay_only { Ways::RelayOnly } else { Ways::Any }, now);
    }

    fn send_offer(&mut self, ways: Ways, now: Instant) {
        self.epoch = self.epoch.next();
        // A run that was never heard of is refused, with the present one.
        let farm_boot = self.farm.boot().unwrap_or(BootId::from_bytes([0; 16]));
        let deadline = now + ANSWER_DEADLINE;
        self.attempt =
            Some(Attempt { epoch: self.epoch, stage: Stage::Offered, deadline, ways, relayed: false });
        self.actions.push_back(Action::Offer { epoch: self.epoch, farm_boot, ways });
    }

    /// Something failed: decide what to do about it, and when.
    fn fail(&mut self, failure: Failure, now: Instant) {
        let failure = match failure {
            Failure::NoSlotLeft | Failure::Refused(OfferRefused::NotPaired) => failure,
            _ if self.slot_lost => Failure::Superseded,
            // Whatever shows first, this is why.
            _ if !self.network_up => Failure::PhoneOffline,
            _ => failure,
        };
        let context = Context {
            attempt: self.failed,
            farm_present: self.farm.is_online(),
            broker_link: self.broker_link,
            network_up: self.network_up,
            watched: self.watched,
        };
        let decision = recovery::decide(failure, &context, &mut self.jitter);
        self.failed = self.failed.saturating_add(1);
        self.failure = Some(failure);
        self.decision = Some(decision);
        self.slot_wanted = decision.strategy == Strategy::TakeAnotherSlot;
        self.next_attempt = None;
        if let Some(delay) = decision.retry_after {
            self.attempt_at(now + delay);
        }
        self.changed();
    }

    /// Ends the attempt of this epoch, if it is the present one.
    fn give_up(&mut self, epoch: Epoch, failure: Failure, now: Instant) {
        let Some(attempt) = self.attempt.take_if(|a| a.epoch == epoch) else { return };
        self.actions.push_back(Action::Close(epoch, GoodbyeReason::Superseded));
        if attempt.stage == Stage::Greeting
            && let Some(live) = self.live.take()
        {
            // Its streams moved over with our hello: they wait for a carrier.
            self.actions.push_back(Action::Close(live, GoodbyeReason::Superseded));
        }
        if self.live.is_some()
            && attempt.is_idle_upgrade()
            && failure != Failure::Refused(OfferRefused::OtherBoot)
        {
            // Nothing is broken: the relayed carrier goes on.
            return;
        }
        self.fail(failure, now);
    }

    /// Gives up an attempt whose offer was not answered yet: whether there was
    /// one that is missed.
    fn drop_unanswered_offer(&mut self) -> bool {
        let dropped = self.attempt.take_if(|attempt| attempt.stage == Stage::Offered);
        if let Some(attempt) = dropped {
            self.actions.push_back(Action::Close(attempt.epoch, GoodbyeReason::Superseded));
        }
        dropped.is_some_and(|attempt| !attempt.is_idle_upgrade())
    }

    /// Gives up an attempt that could only have come out direct.
    fn drop_upgrade(&mut self) {
        if let Some(attempt) = self.attempt.take_if(|attempt| attempt.is_idle_upgrade()) {
            self.actions.push_back(Action::Close(attempt.epoch, GoodbyeReason::Superseded));
        }
    }

    /// Another program has our place: whatever we had there is over.
    fn superseded(&mut self, now: Instant) {
        for epoch in self.live.take().into_iter().chain(self.attempt.take().map(|a| a.epoch)) {
            self.actions.push_back(Action::Close(epoch, GoodbyeReason::Superseded));
        }
        self.fail(Failure::Superseded, now);
    }

    /// Forgets the attempt under way and starts another at once.
    fn start_over(&mut self, now: Instant) {
        if let Some(attempt) = self.attempt.take() {
            self.actions.push_back(Action::Close(attempt.epoch, GoodbyeReason::Superseded));
            if attempt.stage == Stage::Greeting
                && let Some(live) = self.live.take()
            {
                self.actions.push_back(Action::Close(live, GoodbyeReason::Superseded));
            }
        }
        self.next_attempt = None;
        self.attempt_at(now);
    }

    fn path(&mut self, epoch: Epoch, relayed: bool, now: Instant) {
        if self.live == Some(epoch) {
            self.upgrade.path(relayed, now, &mut self.jitter);
            if !relayed {
                // It found the direct way by itself.
                self.drop_upgrade();
            }
        } else if let Some(attempt) = self.attempt_mut(epoch) {
            attempt.relayed = relayed;
        }
    }

    fn hello(&mut self, epoch: Epoch, now: Instant) {
        let Some(attempt) = self.attempt.take_if(|a| a.epoch == epoch) else { return };
        self.upgrade = Upgrade::default();
        self.upgrade.path(attempt.relayed, now, &mut self.jitter);
        let former = self.live.replace(epoch);
        self.failed = 0;
        self.next_attempt = None;
        self.failure = None;
        self.decision = None;
        self.farm.set_online(true);
        self.actions.push_back(Action::Attach(epoch));
        if let Some(former) = former {
            self.actions.push_back(Action::Close(former, GoodbyeReason::Superseded));
        }
        self.changed();
    }

    fn lost(&mut self, epoch: Epoch, failure: Failure, now: Instant) {
        if self.live == Some(epoch) {
            self.live = None;
            self.actions.push_back(Action::Close(epoch, GoodbyeReason::Superseded));
            // An attempt that is under way is the reconnect, unless it may only
            // come out direct.
            self.drop_upgrade();
            if self.attempt.is_none() {
                self.fail(failure, now);
            }
        } else {
            self.give_up(epoch, Failure::CarrierFailed, now);
        }
    }

    fn goodbye(&mut self, epoch: Epoch, reason: GoodbyeReason, now: Instant) {
        let failure = match reason {
            GoodbyeReason::TakenOver if self.live == Some(epoch) => return self.superseded(now),
            GoodbyeReason::Revoked => Failure::Refused(OfferRefused::NotPaired),
            GoodbyeReason::Stopping => {
                self.farm.set_online(false);
                Failure::PeerRestart
            }
            _ => Failure::NetworkTimeout,
        };
        self.lost(epoch, failure, now);
    }

    fn presence(&mut self, boot: BootId, epoch: Epoch, online: bool, now: Instant) {
        match (self.farm.heard(boot, epoch, online), self.live) {
            // The broker's word alone ends nothing; pings must show it.
            (News::Away, Some(live)) => self.actions.push_back(Action::Probe(live)),
            (News::Away, None) => self.changed(),
            (News::Restarted, Some(_)) => {
                // The run that the live carrier led to is over for certain:
                // the farm signed the new one.
                self.failure = Some(Failure::PeerRestart);
                self.start_over(now);
            }
            (News::Moved, Some(live)) => {
                self.actions.push_back(Action::Probe(live));
                self.drop_unanswered_offer();
                self.drop_upgrade();
                if self.attempt.is_none() {
                    self.attempt_at(now);
                }
            }
            (News::Restarted | News::Moved | News::Came, None) => {
                // An unanswered offer went to a connection that the farm no longer has.
                if self.attempt.is_none_or(|a| a.stage == Stage::Offered) {
                    self.failed = 0;
                    self.start_over(now);
                }
            }
            (News::Came, Some(_)) | (News::None, _) => {}
        }
    }

    fn refused(
        &mut self,
        epoch: Epoch,
        reason: OfferRefused,
        farm_boot: BootId,
        newest: Epoch,
        now: Instant,
    ) {
        if self.attempt.is_none_or(|a| a.epoch != epoch || a.stage != Stage::Offered) {
            return;
        }
        if reason == OfferRefused::StaleEpoch && newest == epoch {
            // The offer came twice, and the first was taken: its answer comes.
            return;
        }
        // Signed by the farm, and for this very offer: its word on itself.
        if self.farm.spoke(farm_boot) {
            // It is there, and now we know where: what failed was to reach
            // another run.
            self.failed = 0;
        }
        if newest > self.epoch && !newest.is_absurd_after(self.epoch) {
            self.epoch = newest;
        }
        self.give_up(epoch, Failure::Refused(reason), now);
    }

    fn network(&mut self, change: Network, now: Instant) {
        match change {
            Network::Down => self.network_up = false,
            Network::Up | Network::Changed => {
                self.network_up = true;
                if !self.started {
                    return;
                }
                if let Some(live) = self.live {
                    self.actions.push_back(Action::Probe(live));
                }
                if self.live.is_some() {
                    self.failure = Some(Failure::IpChange);
                }
                // An attempt from the old address leads nowhere.
                self.failed = 0;
                self.start_over(now);
            }
        }
    }

    fn attention(&mut self, watched: bool, now: Instant) {
        let came = !std::mem::replace(&mut self.watched, watched) && watched;
        self.unwatched_since = if watched { None } else { self.unwatched_since.or(Some(now)) };
        self.resting &= !watched;
        if !came {
            return;
        }
        match self.live {
            Some(live) => self.actions.push_back(Action::Probe(live)),
            None if self.attempt.is_none() => {
                self.failed = 0;
                self.attempt_at(now);
            }
            None => {}
        }
    }

    fn stop(&mut self) {
        self.started = false;
        self.next_attempt = None;
        for epoch in self.live.take().into_iter().chain(self.attempt.take().map(|a| a.epoch)) {
            self.actions.push_back(Action::Close(epoch, GoodbyeReason::SessionEnded));
        }
        self.actions.push_back(Action::Ended);
    }
}

#[cfg(test)]
mod tests;
