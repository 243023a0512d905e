//! The phone's side of the connection lifecycle: one session with one farm.
//!
//! At most one carrier is live and at most one attempt is under way; an
//! attempt replaces the live carrier only once it works (make before break).
//! When nothing is under way there is always a time for the next attempt,
//! unless the phone is no longer paired or the session was stopped.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use farm_protocol::control::GoodbyeReason;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::BootId;
use farm_protocol::signal::OfferRefused;

use super::{ANSWER_DEADLINE, CONNECT_DEADLINE, HELLO_DEADLINE};
use crate::backoff::Jitter;
use crate::recovery::{self, Context, Decision, Failure, Strategy};

/// Farm's runs that are remembered as over: late presence of one of them is a no-op.
const FORMER_BOOTS: usize = 8;

/// How long the first offer waits to hear of the farm's run, after the link to
/// the broker is up: presence is the broker's first answer, so a round trip
/// of a slow link. Without it the offer goes out blindly and is corrected by
/// the farm, which costs a round trip more.
pub const PRESENCE_WITHIN: Duration = Duration::from_millis(500);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Be connected from now on.
    Start,
    /// End the session.
    Stop,
    /// Whether the link to the broker is online.
    BrokerLink(bool),
    /// The farm's own word, through the broker: its run and epoch.
    Presence {
        /// The farm's run.
        boot: BootId,
        /// Its newest epoch.
        epoch: Epoch,
        /// The broker's word: whether it is connected there.
        online: bool,
    },
    /// The broker knows no such farm for this phone.
    PresenceUnknown,
    /// The farm answered the offer of this epoch.
    Answered(Epoch),
    /// The farm refused the offer of this epoch.
    Refused {
        /// The offer's.
        epoch: Epoch,
        /// Why.
        reason: OfferRefused,
        /// The farm's present run.
        farm_boot: BootId,
        /// What the next epoch must exceed.
        newest: Epoch,
    },
    /// The broker could not hand the offer on.
    Undelivered,
    /// A carrier's channels are open.
    Opened(Epoch),
    /// The farm's hello came on a carrier.
    Hello(Epoch),
    /// A carrier is dead, failed or closed.
    Lost(Epoch),
    /// The farm left a carrier on purpose.
    Goodbye(Epoch, GoodbyeReason),
    /// Our own network went, or came, or changed its address.
    Network(Network),
    /// Somebody looks, or looks away.
    Attention {
        /// Somebody looks.
        watched: bool,
    },
}

/// What happened to our own network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// No address is left.
    Down,
    /// There is one again.
    Up,
    /// The address changed.
    Changed,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Build a carrier and offer it to the farm's run.
    Offer {
        /// The carrier's epoch.
        epoch: Epoch,
        /// The farm's run as far as known.
        farm_boot: BootId,
        /// Only through a relay.
        relay_only: bool,
    },
    /// Both hellos are there: streams go on over this carrier.
    Attach(Epoch),
    /// Close a carrier.
    Close(Epoch, GoodbyeReason),
    /// Pings must show now whether the live carrier still works.
    Probe(Epoch),
    /// The state that is shown changed.
    Changed,
    /// The session is over.
    Ended,
}

/// Why something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The next attempt.
    Attempt,
    /// An answer did not come.
    Answer,
    /// A carrier did not open.
    Connect,
    /// A hello did not come.
    Hello,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Offered,
    Connecting,
    Greeting,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    epoch: Epoch,
    stage: Stage,
    deadline: Instant,
}

/// What is shown of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// What went wrong last, while not live.
    pub failure: Option<Failure>,
    /// What is done about it.
    pub strategy: Option<Strategy>,
    /// Attempts since it was last live.
    pub attempt: u32,
    /// When the next attempt begins, if none is under way.
    pub next_attempt: Option<Instant>,
    /// The broker's word: the farm is connected there.
    pub farm_present: Option<bool>,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not started, or ended.
    Stopped,
    /// Data flows.
    Live,
    /// An attempt is under way.
    Connecting,
    /// Waiting for the next attempt.
    Waiting,
    /// The farm does not know this phone: pair again.
    NotPaired,
}

impl State {
    /// Stable name for status and scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Live => "live",
            Self::Connecting => "connecting",
            Self::Waiting => "waiting",
            Self::NotPaired => "not_paired",
        }
    }
}

/// One phone program's session with one farm.
#[derive(Debug)]
pub struct Session {
    started: bool,
    epoch: Epoch,
    farm: Option<FarmRun>,
    former_boots: VecDeque<BootId>,
    presence_unknown: bool,
    broker_link: bool,
    network_up: bool,
    watched: bool,
    live: Option<Epoch>,
    attempt: Option<Attempt>,
    next_attempt: Option<Instant>,
    failed: u32,
    failure: Option<Failure>,
    decision: Option<Decision>,
    jitter: Jitter,
    shown: (State, Instant),
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy)]
struct FarmRun {
    boot: BootId,
    epoch: Epoch,
    online: bool,
}

impl Session {
    /// A stopped session. `epoch` is the first of this program's start;
    /// `seed` spreads the retries of many phones.
    pub fn new(epoch: Epoch, seed: u64, now: Instant) -> Self {
        Self {
            started: false,
            epoch,
            farm: None,
            former_boots: VecDeque::new(),
            presence_unknown: false,
            broker_link: false,
            network_up: true,
            watched: true,
            live: None,
            attempt: None,
            next_attempt: None,
            failed: 0,
            failure: None,
            decision: None,
            jitter: Jitter::new(seed),
            shown: (State::Stopped, now),
            actions: VecDeque::new(),
        }
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
                let back = online && !std::mem::replace(&mut self.broker_link, online);
                if back && self.attempt.is_none() && self.live.is_none() {
                    self.call_the_farm(now);
                }
            }
            Event::Presence { boot, epoch, online } => self.presence(boot, epoch, online, now),
            Event::PresenceUnknown => self.presence_unknown = true,
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
                    if let Some(farm) = &mut self.farm {
                        farm.online = false;
                    }
                    self.give_up(attempt.epoch, Failure::FarmOffline, now);
                }
            }
            Event::Opened(epoch) => {
                if let Some(attempt) = self.attempt_mut(epoch)
                    && attempt.stage != Stage::Greeting
                {
                    attempt.stage = Stage::Greeting;
                    attempt.deadline = now + HELLO_DEADLINE;
                }
            }
            Event::Hello(epoch) => self.hello(epoch),
            Event::Lost(epoch) => self.lost(epoch, Failure::NetworkTimeout, now),
            Event::Goodbye(epoch, reason) => self.goodbye(epoch, reason, now),
            Event::Network(change) => self.network(change, now),
            Event::Attention { watched } => self.attention(watched, now),
        }
        self.advance(now);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] is due, and why. `None` while live with
    /// nothing under way, and while stopped.
    pub fn poll_timeout(&self) -> Option<(Instant, Due)> {
        let attempt = self.attempt.map(|a| match a.stage {
            Stage::Offered => (a.deadline, Due::Answer),
            Stage::Connecting => (a.deadline, Due::Connect),
            Stage::Greeting => (a.deadline, Due::Hello),
        });
        attempt.or(self.next_attempt.map(|at| (at, Due::Attempt)))
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(attempt) = self.attempt.filter(|a| a.deadline <= now) {
            self.give_up(attempt.epoch, Failure::CarrierFailed, now);
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
            farm_present: if self.presence_unknown { Some(false) } else { self.farm.map(|f| f.online) },
        }
    }

    /// The carrier that streams use.
    pub fn live(&self) -> Option<Epoch> {
        self.live
    }

    /// The newest epoch that was used.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn attempt_mut(&mut self, epoch: Epoch) -> Option<&mut Attempt> {
        self.attempt.as_mut().filter(|a| a.epoch == epoch)
    }

    fn attempt_at(&mut self, when: Instant) {
        if self.started {
            self.next_attempt = Some(self.next_attempt.map_or(when, |known| known.min(when)));
        }
    }

    /// The link to the broker is there: connect, at once if the farm's run is
    /// known, else when its presence comes.
    fn call_the_farm(&mut self, now: Instant) {
        self.failed = 0;
        self.next_attempt = None;
        let patience = if self.farm.is_some() { Duration::ZERO } else { PRESENCE_WITHIN };
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
            self.offer(now);
        }
        let state = match (self.started, self.live, self.attempt) {
            (false, ..) => State::Stopped,
            (true, Some(_), _) => State::Live,
            (true, None, Some(_)) => State::Connecting,
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
        self.epoch = self.epoch.next();
        // A run that was never heard of is refused, with the present one.
        let farm_boot = self.farm.map_or(BootId::from_bytes([0; 16]), |f| f.boot);
        let relay_only = self.decision.is_some_and(|d| d.relay_only);
        self.attempt =
            Some(Attempt { epoch: self.epoch, stage: Stage::Offered, deadline: now + ANSWER_DEADLINE });
        self.actions.push_back(Action::Offer { epoch: self.epoch, farm_boot, relay_only });
    }

    /// Something failed: decide what to do about it, and when.
    fn fail(&mut self, failure: Failure, now: Instant) {
        let context = Context {
            attempt: self.failed,
            farm_present: self.farm.is_some_and(|f| f.online),
            broker_link: self.broker_link,
            network_up: self.network_up,
            watched: self.watched,
        };
        let decision = recovery::decide(failure, &context, &mut self.jitter);
        self.failed = self.failed.saturating_add(1);
        self.failure = Some(failure);
        self.decision = Some(decision);
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
        self.fail(failure, now);
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

    fn hello(&mut self, epoch: Epoch) {
        if self.attempt.take_if(|a| a.epoch == epoch).is_none() {
            return;
        }
        let former = self.live.replace(epoch);
        self.failed = 0;
        self.next_attempt = None;
        self.failure = None;
        self.decision = None;
        if let Some(farm) = &mut self.farm {
            farm.online = true;
        }
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
            // An attempt that is under way is the reconnect.
            if self.attempt.is_none() {
                self.fail(failure, now);
            }
        } else {
            self.give_up(epoch, Failure::CarrierFailed, now);
        }
    }

    fn goodbye(&mut self, epoch: Epoch, reason: GoodbyeReason, now: Instant) {
        let failure = match reason {
            GoodbyeReason::Revoked => Failure::Refused(OfferRefused::NotPaired),
            GoodbyeReason::Stopping => {
                if let Some(farm) = &mut self.farm {
                    farm.online = false;
                }
                Failure::PeerRestart
            }
            _ => Failure::NetworkTimeout,
        };
        self.lost(epoch, failure, now);
    }

    fn presence(&mut self, boot: BootId, epoch: Epoch, online: bool, now: Instant) {
        self.presence_unknown = false;
        if self.former_boots.contains(&boot) {
            return;
        }
        let known = self.farm;
        if known.is_some_and(|k| k.boot == boot && epoch < k.epoch) {
            return;
        }
        self.farm = Some(FarmRun { boot, epoch, online });
        let restarted = known.is_some_and(|k| k.boot != boot);
        if let Some(k) = known.filter(|_| restarted) {
            if self.former_boots.len() == FORMER_BOOTS {
                self.former_boots.pop_front();
            }
            self.former_boots.push_back(k.boot);
        }
        let moved = known.is_some_and(|k| k.boot == boot && epoch > k.epoch);
        match (online, self.live) {
            (false, live) => {
                // The broker's word alone ends nothing; pings must show it.
                if let Some(live) = live {
                    self.actions.push_back(Action::Probe(live));
                } else {
                    self.changed();
                }
            }
            (true, Some(_)) if restarted => {
                // The run that the live carrier led to is over for certain:
                // the farm signed the new one.
                self.failure = Some(Failure::PeerRestart);
                self.start_over(now);
            }
            (true, Some(live)) if moved => {
                self.actions.push_back(Action::Probe(live));
                if self.attempt.is_none() {
                    self.attempt_at(now);
                }
            }
            (true, None) if restarted || moved || known.is_none_or(|k| !k.online) => {
                let stale = self.attempt.is_some_and(|a| a.stage == Stage::Offered) && restarted;
                if self.attempt.is_none() || stale {
                    self.failed = 0;
                    self.start_over(now);
                }
            }
            (true, _) => {}
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
        // Signed by the farm, and for this very offer: its word on itself.
        let online = true;
        match &mut self.farm {
            Some(farm) if farm.boot == farm_boot => farm.online = online,
            _ => self.farm = Some(FarmRun { boot: farm_boot, epoch: Epoch::default(), online }),
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
        let came = watched && !std::mem::replace(&mut self.watched, watched);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOOT: BootId = BootId::from_bytes([1; 16]);
    const NEXT_BOOT: BootId = BootId::from_bytes([2; 16]);

    fn drain(session: &mut Session) -> Vec<Action> {
        std::iter::from_fn(|| session.poll_action()).filter(|a| *a != Action::Changed).collect()
    }

    fn present(boot: BootId, epoch: Epoch) -> Event {
        Event::Presence { boot, epoch, online: true }
    }

    /// A session that is live, and its epoch.
    fn live(now: Instant) -> (Session, Epoch) {
        let mut session = Session::new(Epoch::of_start(1), 7, now);
        session.handle(Event::Start, now);
        session.handle(Event::BrokerLink(true), now);
        session.handle(present(BOOT, Epoch::of_start(5)), now);
        let offers: Vec<_> =
            drain(&mut session).into_iter().filter(|a| matches!(a, Action::Offer { .. })).collect();
        let Some(Action::Offer { epoch, .. }) = offers.last().copied() else { panic!("{offers:?}") };
        complete(&mut session, epoch, now);
        (session, epoch)
    }

    fn complete(session: &mut Session, epoch: Epoch, now: Instant) {
        session.handle(Event::Answered(epoch), now);
        session.handle(Event::Opened(epoch), now);
        session.handle(Event::Hello(epoch), now);
        assert_eq!(session.live(), Some(epoch));
        session.actions.clear();
    }

    #[test]
    fn a_lost_carrier_is_replaced_at_once() {
        let now = Instant::now();
        let (mut session, epoch) = live(now);
        session.handle(Event::Lost(epoch), now);
        let actions = drain(&mut session);
        assert!(actions.contains(&Action::Close(epoch, GoodbyeReason::Superseded)));
        assert!(
            matches!(actions.last(), Some(Action::Offer { farm_boot: BOOT, .. }))
                || session.poll_timeout().is_some_and(|(at, _)| at <= now + Duration::from_millis(50)),
            "{actions:?}"
        );
    }

    #[test]
    fn an_address_change_makes_before_it_breaks() {
        let now = Instant::now();
        let (mut session, old) = live(now);
        session.handle(Event::Network(Network::Changed), now);
        let actions = drain(&mut session);
        assert!(actions.contains(&Action::Probe(old)), "{actions:?}");
        let Some(Action::Offer { epoch: new, .. }) = actions.last().copied() else { panic!("{actions:?}") };
        assert_eq!(session.live(), Some(old), "the old carrier goes on until the new one works");
        session.handle(Event::Answered(new), now);
        session.handle(Event::Opened(new), now);
        session.handle(Event::Hello(new), now);
        assert_eq!(drain(&mut session), [Action::Attach(new), Action::Close(old, GoodbyeReason::Superseded)]);
        assert_eq!(session.poll_timeout(), None);
    }

    #[test]
    fn a_restarted_farm_is_called_at_once_and_late_word_of_its_old_run_is_ignored() {
        let now = Instant::now();
        let (mut session, _) = live(now);
        session.handle(present(NEXT_BOOT, Epoch::of_start(6)), now);
        assert!(matches!(drain(&mut session)[..], [Action::Offer { farm_boot: NEXT_BOOT, .. }]));
        let before = session.snapshot();
        session.handle(Event::Presence { boot: BOOT, epoch: Epoch::of_start(5), online: false }, now);
        assert_eq!(drain(&mut session), []);
        assert_eq!(session.snapshot(), before);
    }

    #[test]
    fn a_lying_broker_ends_nothing() {
        let now = Instant::now();
        let (mut session, epoch) = live(now);
        session.handle(Event::Presence { boot: BOOT, epoch: Epoch::of_start(5), online: false }, now);
        session.handle(Event::PresenceUnknown, now);
        session.handle(Event::BrokerLink(false), now);
        assert_eq!(drain(&mut session), [Action::Probe(epoch)]);
        assert_eq!(session.live(), Some(epoch));
    }

    #[test]
    fn an_offer_for_an_unknown_run_is_corrected_by_the_farm() {
        let now = Instant::now();
        let mut session = Session::new(Epoch::of_start(1), 7, now);
        session.handle(Event::BrokerLink(true), now);
        session.handle(Event::Start, now);
        assert_eq!(drain(&mut session), [], "presence may come first");
        let now = now + PRESENCE_WITHIN;
        session.handle_timeout(now);
        let Some(Action::Offer { epoch, .. }) = drain(&mut session).last().copied() else { panic!() };
        let newest = Epoch::of_start(3);
        let reason = OfferRefused::OtherBoot;
        session.handle(Event::Refused { epoch, reason, farm_boot: BOOT, newest }, now);
        let actions = drain(&mut session);
        let Some(Action::Offer { epoch, farm_boot, .. }) = actions.last().copied() else {
            panic!("{actions:?}")
        };
        assert_eq!((epoch, farm_boot), (newest.next(), BOOT));
    }

    #[test]
    fn every_step_has_a_deadline_and_attempts_never_end() {
        let start = Instant::now();
        let mut now = start;
        let mut session = Session::new(Epoch::of_start(1), 7, now);
        session.handle(Event::Start, now);
        session.handle(Event::BrokerLink(true), now);
        let mut offers = 0;
        while now < start + Duration::from_secs(3600) {
            let (at, due) = session.poll_timeout().expect("always a deadline");
            now = now.max(at);
            session.handle_timeout(now);
            for action in drain(&mut session) {
                offers += u32::from(matches!(action, Action::Offer { .. }));
            }
            assert!(at <= now + Duration::from_secs(60), "{due:?}");
        }
        assert!((60..=1200).contains(&offers), "{offers} offers in an hour to a farm that never answers");
    }

    #[test]
    fn a_hello_that_never_comes_costs_the_frozen_carrier_too() {
        let now = Instant::now();
        let (mut session, old) = live(now);
        session.handle(Event::Network(Network::Changed), now);
        let Some(Action::Offer { epoch: new, .. }) = drain(&mut session).last().copied() else { panic!() };
        session.handle(Event::Answered(new), now);
        session.handle(Event::Opened(new), now);
        session.handle_timeout(now + HELLO_DEADLINE);
        let actions = drain(&mut session);
        assert!(actions.contains(&Action::Close(old, GoodbyeReason::Superseded)), "{actions:?}");
        assert!(session.poll_timeout().is_some() || matches!(actions.last(), Some(Action::Offer { .. })));
    }

    fn event() -> impl Strategy_<Value = Event> {
        (0u8..14, 0u64..4).prop_map(|(kind, n)| {
            let epoch = (0..n).fold(Epoch::of_start(1), |e, _| e.next());
            match kind {
                0 => Event::Start,
                1 => Event::Stop,
                2 => Event::BrokerLink(n % 2 == 0),
                3 => Event::Presence {
                    boot: BootId::from_bytes([n as u8; 16]),
                    epoch: Epoch::of_start(n),
                    online: n != 3,
                },
                4 => Event::PresenceUnknown,
                5 => Event::Answered(epoch),
                6 => Event::Refused {
                    epoch,
                    reason: [OfferRefused::OtherBoot, OfferRefused::StaleEpoch, OfferRefused::NotPaired]
                        [n as usize % 3],
                    farm_boot: BOOT,
                    newest: Epoch::of_start(n),
                },
                7 => Event::Undelivered,
                8 => Event::Opened(epoch),
                9 => Event::Hello(epoch),
                10 => Event::Lost(epoch),
                11 => Event::Goodbye(epoch, GoodbyeReason::Stopping),
                12 => Event::Network([Network::Up, Network::Down, Network::Changed][n as usize % 3]),
                _ => Event::Attention { watched: n % 2 == 0 },
            }
        })
    }

    use proptest::strategy::Strategy as Strategy_;

    proptest! {
        /// Whatever comes in whatever order: every carrier that was started
        /// is closed, and a started session that is not live has a deadline.
        #[test]
        fn carriers_never_leak(script in proptest::collection::vec((event(), 0u64..20), 0..80)) {
            let mut now = Instant::now();
            let mut session = Session::new(Epoch::of_start(1), 7, now);
            let mut open = std::collections::BTreeSet::new();
            for (event, seconds) in script {
                now += Duration::from_secs(seconds);
                session.handle_timeout(now);
                session.handle(event.clone(), now);
                for action in drain(&mut session) {
                    match action {
                        Action::Offer { epoch, .. } => prop_assert!(open.insert(epoch)),
                        Action::Close(epoch, _) => { open.remove(&epoch); }
                        Action::Attach(epoch) => prop_assert!(open.contains(&epoch)),
                        _ => {}
                    }
                }
                let held: std::collections::BTreeSet<_> =
                    session.live.into_iter().chain(session.attempt.map(|a| a.epoch)).collect();
                prop_assert_eq!(&open, &held, "after {:?}", event);
                prop_assert!(!session.started || session.live.is_some() || session.poll_timeout().is_some());
            }
        }
    }
}
