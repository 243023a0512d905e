//! The auto-reconnect manager: keeps a device's one WebSocket to the broker,
//! for ever, and sends the smart heartbeat over it.
//!
//! A state machine without I/O. The shell feeds it events and the time,
//! carries out its actions, and calls [`Link::handle_timeout`] when
//! [`Link::poll_timeout`] says so.
//!
//! What it promises: from the moment the broker can be reached again, the
//! next attempt begins within 8 s (at once when our own network came back),
//! so that the link is up within the 10 s that were asked for; it never stops
//! trying; and no sequence of events makes it try more than
//! [`MAX_CONNECTS_PER_MINUTE`] times a minute.

mod event;
mod heartbeat;
mod rotation;
mod state;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use event::{Action, Cause, Event, NetworkChange, SocketEvent, SocketId};
pub use heartbeat::{
    ANSWER_DEADLINE, CHANGE_DEBOUNCE, HEARTBEAT_BURST, HEARTBEAT_EVERY, HEARTBEAT_INTERVAL, LONGEST_PROBE,
    MAX_HEARTBEAT_INTERVAL, MAX_HEARTBEATS_PER_MINUTE, MIN_HEARTBEAT_INTERVAL, SHORTEST_PROBE,
    WATCHED_HEARTBEAT_INTERVAL,
};
use heartbeat::{Heartbeat, Outcome};
use rotation::Rotation;
use state::bounded;
pub use state::{MAX_EXPLANATION, Reason, Snapshot, State, TimeoutReason};

use crate::backoff::{Backoff, FIRST_RETRY_WITHIN, Jitter, RateLimit};

/// An attempt whose socket does not open within this time is given up: TCP
/// asks at 0, 1, 3 and 7 s, then not before 15 s. Together with
/// [`LONGEST_WAIT`], which counts from the beginning of the attempt before,
/// attempts never begin more than 8 s apart: 2 s of the 10 remain for the
/// handshake.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(8);

/// A broker that accepted but does not let us in within this time is given
/// up: one round trip and one signature, so anything longer is overload.
pub const AUTHENTICATE_DEADLINE: Duration = Duration::from_secs(5);

/// The cap of the backoff, see [`CONNECT_DEADLINE`].
pub const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// The second retry waits up to this, the third up to twice as long, …
pub const BACKOFF_BASE: Duration = Duration::from_millis(250);

/// Attempts begin at least this far apart: the burst of events of one network
/// change is one attempt.
pub const CONNECT_DEBOUNCE: Duration = Duration::from_millis(250);

/// An attempt that began this shortly before the path was seen to be back was
/// made on it. Any older one may have lost its first packet, which TCP sends
/// again only after a second.
pub const ON_NEW_PATH: Duration = Duration::from_millis(50);

/// Attempts that may follow each other in a burst (each with a network change
/// before it, or the first steps of the backoff), then one every
/// [`CONNECT_EVERY`].
pub const CONNECT_BURST: u32 = 10;

/// See [`CONNECT_BURST`]. Short enough that the limit never costs the 10 s.
pub const CONNECT_EVERY: Duration = Duration::from_secs(2);

/// Of [`CONNECT_BURST`], what attempts without a network leave: they can't reach anybody, and must
/// not be why the first one on a network that is back has to wait. It may flap a few times.
pub const CONNECT_KEPT: u32 = 4;

/// No minute sees more attempts, whatever happens.
pub const MAX_CONNECTS_PER_MINUTE: u32 = CONNECT_BURST + 30;

/// Time between attempts while the broker refuses us until somebody does
/// something about it, who then wants to see it work.
pub const REFUSED_RETRY: Duration = Duration::from_secs(60);

/// Spread of [`REFUSED_RETRY`].
pub const REFUSED_SPREAD: Duration = Duration::from_secs(6);

/// The link of one device to its broker. See the module.
#[derive(Debug)]
pub struct Link {
    state: State,
    since: Instant,
    reason: Reason,
    /// Attempts since the link was last up for a stable time.
    attempt: u32,
    socket: Option<SocketId>,
    sockets: u64,
    last_connect: Option<Instant>,
    /// The attempt began before the network changed, and is cut short for it.
    cut_short: bool,
    /// Attempts in a row that were cut short.
    cuts: u32,
    network_up: bool,
    probe_lost: bool,
    backoff: Backoff,
    rate: RateLimit,
    heartbeat: Heartbeat,
    rotation: Rotation,
    actions: VecDeque<Action>,
}

impl Link {
    /// A stopped link. `seed` spreads its retries: devices must differ in it.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self {
            state: State::Stopped,
            since: now,
            reason: Reason::Stopped,
            attempt: 0,
            socket: None,
            sockets: 0,
            last_connect: None,
            cut_short: false,
            cuts: 0,
            network_up: true,
            probe_lost: false,
            backoff: Backoff::new(BACKOFF_BASE, LONGEST_WAIT, Jitter::new(seed)),
            rate: RateLimit::new(CONNECT_BURST, CONNECT_EVERY),
            heartbeat: Heartbeat::new(now),
            rotation: Rotation::new(1),
            actions: VecDeque::new(),
        }
    }

    /// The same for a device that may use any of so many brokers: when one is
    /// gone, refuses for now or asks to wait, the next one is tried at once.
    #[must_use]
    pub fn among(self, brokers: usize) -> Self {
        Self { rotation: Rotation::new(brokers), ..self }
    }

    /// Which of them [`Action::Connect`] is about, from 0.
    pub fn broker(&self) -> usize {
        self.rotation.current()
    }

    /// Takes in what happened. Actions may follow.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Start => self.start(now),
            Event::Stop => self.stop(now),
            Event::Socket(socket, event) if self.socket == Some(socket) => self.on_socket(event, now),
            Event::Socket(..) => {}
            Event::NetworkChanged(NetworkChange::Down) => self.network_up = false,
            Event::NetworkChanged(NetworkChange::Up | NetworkChange::AddressChanged) => {
                self.network_up = true;
                self.on_change(Cause::NetworkChanged, now);
            }
            Event::AddressChanged => self.on_change(Cause::AddressChanged, now),
            Event::Attention { watched } => {
                self.heartbeat.set_watched(watched);
                match self.state {
                    State::Online if watched => self.heartbeat.want(Cause::Attention, now),
                    State::Offline { .. } if watched => self.on_change(Cause::Attention, now),
                    _ => {}
                }
            }
            Event::ProbeAnswered => {
                let back = std::mem::take(&mut self.probe_lost);
                if back && matches!(self.state, State::Offline { .. }) {
                    self.on_change(Cause::NetworkChanged, now);
                }
            }
            Event::ProbeLost => {
                // Only the first: where UDP is blocked every probe is lost.
                let first = !std::mem::replace(&mut self.probe_lost, true);
                if first && self.state == State::Online {
                    self.heartbeat.want(Cause::ProbeLost, now);
                }
            }
            Event::PathBack => self.path_back(now),
        }
        self.advance(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// The next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called, and why; `None` only
    /// while stopped.
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        match self.state {
            State::Stopped => None,
            State::Offline { until, .. } => Some((until, TimeoutReason::Retry)),
            State::Connecting { deadline, .. } => Some((deadline, TimeoutReason::Connect)),
            State::Authenticating { deadline, .. } => Some((deadline, TimeoutReason::Authenticate)),
            State::Online => Some(self.heartbeat.timeout()),
        }
    }

    /// The link at this moment, for status displays.
    pub fn state(&self) -> Snapshot {
        let next_attempt = match self.state {
            State::Offline { until, .. } => Some(until),
            _ => None,
        };
        Snapshot {
            state: self.state.clone(),
            since: self.since,
            reason: self.reason.clone(),
            attempt: self.attempt,
            next_attempt,
            network_up: self.network_up,
            rtt: self.heartbeat.rtt.smoothed(),
            last_answered: self.heartbeat.last_answered,
            last_received: self.heartbeat.last_received,
        }
    }

    /// Whether the broker let us in and has not failed a heartbeat since.
    pub fn is_online(&self) -> bool {
        self.state == State::Online
    }

    fn start(&mut self, now: Instant) {
        match self.state {
            State::Stopped => {
                self.reason = Reason::Started;
                self.wait_until(now, now);
            }
            State::Offline { .. } => {
                self.backoff.reset();
                self.retry_at_once(now);
            }
            _ => {}
        }
    }

    fn stop(&mut self, now: Instant) {
        if self.state == State::Stopped {
            return;
        }
        if let (State::Online, Some(socket)) = (&self.state, self.socket) {
            self.actions.push_back(Action::Goodbye(socket));
        }
        self.reason = Reason::Stopped;
        self.close();
        self.backoff.reset();
        self.attempt = 0;
        self.change(State::Stopped, now);
    }

    fn on_socket(&mut self, event: SocketEvent, now: Instant) {
        let online = self.state == State::Online;
        match event {
            SocketEvent::Opened => {
                if let State::Connecting { attempt, .. } = self.state {
                    self.cut_short = false;
                    let deadline = now + AUTHENTICATE_DEADLINE;
                    self.change(State::Authenticating { deadline, attempt }, now);
                }
            }
            SocketEvent::Failed(why) => {
                self.socket = None;
                self.lose(Reason::ConnectFailed(bounded(why)), now);
            }
            SocketEvent::Closed(why) => {
                self.socket = None;
                self.lose(Reason::Closed(bounded(why)), now);
            }
            SocketEvent::Welcomed { heartbeat_interval } => {
                if let State::Authenticating { .. } = self.state {
                    self.cuts = 0;
                    self.rotation.succeeded();
                    self.heartbeat.begin(heartbeat_interval, now);
                    self.change(State::Online, now);
                }
            }
            SocketEvent::Refused { permanent, explanation } => {
                let explanation = bounded(explanation);
                let reason = if permanent { Reason::Refused } else { Reason::RefusedForNow };
                self.lose(reason(explanation), now);
            }
            SocketEvent::RetryAfter(told) => self.lose(Reason::AskedToWait(told), now),
            SocketEvent::Received if online => self.heartbeat.received(now),
            SocketEvent::HeartbeatAnswered { sequence, address_changed } if online => {
                self.heartbeat.answered(sequence, now);
                if address_changed {
                    self.heartbeat.want(Cause::AddressChanged, now);
                }
            }
            SocketEvent::Received | SocketEvent::HeartbeatAnswered { .. } => {}
        }
    }

    /// Something says that the way to the broker may be another one now:
    /// forget how long we meant to wait.
    fn on_change(&mut self, cause: Cause, now: Instant) {
        if matches!(&self.state, State::Offline { reason, .. } if reason.is_brokers_word()) {
            return;
        }
        self.backoff.reset();
        match &mut self.state {
            State::Stopped => {}
            State::Offline { .. } => self.retry_at_once(now),
            State::Connecting { deadline, .. } | State::Authenticating { deadline, .. } => {
                // The attempt may wait for a resolver or a route of the old
                // network: begin anew, but with a patience that doubles, so
                // that a flood of changes can't starve slow handshakes.
                let patience = CONNECT_DEBOUNCE * (1 << self.cuts.min(6));
                let cut = self.last_connect.map_or(now, |began| began + patience).max(now);
                if cut < *deadline {
                    *deadline = cut;
                    self.cut_short = true;
                }
            }
            State::Online => self.heartbeat.want(cause, now),
        }
    }

    /// The way to the broker was gone and is there again. TCP does not know:
    /// what it holds is sent when its timer says so, which may be as long
    /// again as the gap was. A new connection carries data at once.
    fn path_back(&mut self, now: Instant) {
        self.probe_lost = false;
        let stuck = self.state == State::Online && self.heartbeat.is_waiting_for_long(now);
        if stuck {
            self.backoff.reset();
            self.lose(Reason::NetworkChanged, now);
            // It was a connection, no attempt that was cut short.
            self.cuts = 0;
        }
        let fresh = self.socket.is_some() && self.last_connect.is_some_and(|at| now < at + ON_NEW_PATH);
        if self.state == State::Online || !fresh {
            self.on_change(Cause::NetworkChanged, now);
        }
    }

    fn advance(&mut self, now: Instant) {
        // Each round leaves a deadline later than `now`, or one thing less to do.
        while self.step(now) {}
    }

    fn step(&mut self, now: Instant) -> bool {
        match self.state {
            State::Offline { until, .. } if until <= now => self.connect(now),
            State::Connecting { deadline, .. } if deadline <= now => {
                let reason = self.expired(Reason::ConnectTimedOut);
                self.lose(reason, now);
            }
            State::Authenticating { deadline, .. } if deadline <= now => {
                let reason = self.expired(Reason::AuthenticationTimedOut);
                self.lose(reason, now);
            }
            State::Online => match (self.heartbeat.poll(now, self.backoff.jitter()), self.socket) {
                (Some(Outcome::Send(sequence, cause)), Some(socket)) => {
                    self.actions.push_back(Action::SendHeartbeat { socket, sequence, cause });
                }
                (Some(Outcome::Dead(waited)), _) => self.lose(Reason::HeartbeatUnanswered(waited), now),
                _ => return false,
            },
            _ => return false,
        }
        true
    }

    fn expired(&self, reason: Reason) -> Reason {
        if self.cut_short { Reason::NetworkChanged } else { reason }
    }

    fn connect(&mut self, now: Instant) {
        let socket = SocketId(self.sockets);
        self.sockets += 1;
        self.socket = Some(socket);
        self.last_connect = Some(now);
        self.rate.take(now);
        self.attempt = self.attempt.saturating_add(1);
        self.cut_short = false;
        self.actions.push_back(Action::Connect(socket));
        self.change(State::Connecting { deadline: now + CONNECT_DEADLINE, attempt: self.attempt }, now);
    }

    /// The connection or attempt is over: wait for the next.
    fn lose(&mut self, reason: Reason, now: Instant) {
        let was_online = self.state == State::Online;
        if was_online && self.backoff.ended_after(now.saturating_duration_since(self.since)) {
            self.attempt = 0;
        }
        self.cuts = if reason == Reason::NetworkChanged { self.cuts.saturating_add(1) } else { 0 };
        self.reason = reason;
        self.close();
        let until = match &self.reason {
            _ if self.rotation.moves_on(&self.reason) => {
                now + self.backoff.jitter().up_to(FIRST_RETRY_WITHIN)
            }
            Reason::Refused(_) => now + REFUSED_RETRY + self.backoff.jitter().up_to(REFUSED_SPREAD),
            Reason::AskedToWait(told) => now + self.backoff.retry_after(*told),
            // What an attempt took counts as waited: see CONNECT_DEADLINE. A
            // connection that was up has earned no such credit.
            _ => {
                let from = self.last_connect.filter(|_| !was_online).unwrap_or(now);
                from + self.backoff.next_delay()
            }
        };
        self.wait_until(until, now);
    }

    fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.actions.push_back(Action::Close { socket, reason: self.reason.clone() });
        }
    }

    fn retry_at_once(&mut self, now: Instant) {
        let soonest = self.earliest_connect(now);
        if let State::Offline { until, .. } = &mut self.state {
            *until = soonest.min(*until);
        }
    }

    fn wait_until(&mut self, until: Instant, now: Instant) {
        let until = until.max(self.earliest_connect(now));
        self.change(State::Offline { until, attempt: self.attempt, reason: self.reason.clone() }, now);
    }

    fn earliest_connect(&self, now: Instant) -> Instant {
        let debounced = self.last_connect.map_or(now, |began| (began + CONNECT_DEBOUNCE).max(now));
        self.rate.ready_keeping(if self.network_up { 0 } else { CONNECT_KEPT }, debounced)
    }

    fn change(&mut self, state: State, now: Instant) {
        if self.state == State::Online {
            self.heartbeat.end(now);
        }
        self.state = state;
        self.since = now;
        self.actions.push_back(Action::Changed(self.state.clone()));
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
