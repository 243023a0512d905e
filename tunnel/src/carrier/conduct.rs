//! How a carrier behaves once it is open: whom it greets and how often, when
//! it pings, and when it is given up. Pure; the worker does the rest.

use std::time::{Duration, Instant};

use farm_protocol::control::{Attention, Control, Goodbye};
use farm_protocol::ping::Ping;

use super::Note;
use crate::health::{self, Health, Verdict};

/// How often a carrier with unacknowledged data is looked at: silence where
/// data is due is the first sign of a dead path.
pub const BUSY_INTERVAL: Duration = Duration::from_millis(200);

/// The hellos of one carrier.
///
/// The engine drops what arrives before its own channels are open, and the
/// side that opens first has sent its hello by then. The other side's hello
/// proves that its channels are open, so ours is said again: of the two at
/// least the second arrives, and a repeated one changes nothing.
#[derive(Debug, Default)]
pub struct Greeting {
    greeted: bool,
}

impl Greeting {
    /// Takes what the other side says on the control channel. Gives whether
    /// our hello is to be said again, first, and what to tell the owner.
    pub fn take(&mut self, control: Control) -> (bool, Option<Note>) {
        match control {
            Control::Hello(_) if self.greeted => (false, None),
            Control::Hello(hello) => {
                self.greeted = true;
                (true, Some(Note::Hello(hello)))
            }
            Control::Farm(farm) => (false, Some(Note::Farm(farm))),
            Control::Attention(Attention { watched }) => (false, Some(Note::Attention(watched))),
            Control::Goodbye(Goodbye { reason }) => (false, Some(Note::Goodbye(reason))),
        }
    }
}

/// What the data channel shows when the supervision is due.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Frames that came, since the beginning.
    pub heard: u64,
    /// Whether data of ours waits for its acknowledgement.
    pub owed: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send this on the ping channel. It may be lost.
    Send(Ping),
    /// Nothing answers: the carrier is lost, and why.
    Dead(String),
    /// For logs.
    Grade(health::Grade),
}

/// Watches over an open carrier: the health monitor, and the data that it is due.
#[derive(Debug)]
pub struct Supervision {
    health: Health,
    /// When the data channel is looked at; `None` while nothing is owed.
    look: Option<Instant>,
    heard: u64,
}

impl Supervision {
    /// Begins when the channels are open; `watched` is whether somebody looks.
    pub fn new(watched: bool, now: Instant) -> Self {
        Self { health: Health::new(watched, now), look: None, heard: 0 }
    }

    /// Something for the health monitor.
    pub fn handle(&mut self, event: health::Event, now: Instant) {
        self.health.handle(event, now);
    }

    /// A frame was sent; `heard` counts those that came.
    pub fn sent(&mut self, heard: u64, now: Instant) {
        if self.look.is_none() {
            self.heard = heard;
            self.look = Some(now + BUSY_INTERVAL);
        }
    }

    /// Whether the data channel is looked at: [`Self::sent`] adds nothing then.
    pub fn is_looking(&self) -> bool {
        self.look.is_some()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let health = self.health.poll_timeout().map(|(when, _)| when);
        health.into_iter().chain(self.look).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, data: Data, now: Instant) {
        if self.look.is_some_and(|at| at <= now) {
            self.look(data, now);
        }
        if self.health.poll_timeout().is_some_and(|(when, _)| when <= now) {
            self.health.handle_timeout(now);
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        loop {
            return Some(match self.health.poll_action()? {
                health::Action::SendPing(number) => Action::Send(Ping::Ping(number)),
                health::Action::Verdict(Verdict::Alive) => continue,
                health::Action::Verdict(Verdict::Dead { reason, silent_for }) => {
                    Action::Dead(format!("no answer to pings for {silent_for:.1?} ({})", reason.name()))
                }
                health::Action::GradeChanged(grade) => Action::Grade(grade),
            });
        }
    }

    /// How the carrier is doing.
    pub fn state(&self, now: Instant) -> health::Snapshot {
        self.health.state(now)
    }

    /// Data was sent a while ago: is anything heard?
    fn look(&mut self, data: Data, now: Instant) {
        if std::mem::replace(&mut self.heard, data.heard) != data.heard {
            self.health.handle(health::Event::DataReceived, now);
        } else if data.owed {
            self.health.handle(health::Event::DataDue, now);
        } else {
            self.look = None;
            return;
        }
        self.look = Some(now + BUSY_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use farm_protocol::control::{GoodbyeReason, Hello};
    use farm_protocol::epoch::Epoch;
    use farm_protocol::id::{BootId, PhoneId, SessionId, Slot};

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_hello_is_answered_once() {
        let session = SessionId { phone: PhoneId::from_bytes([1; 20]), slot: Slot::default() };
        let boot = BootId::from_bytes([2; 16]);
        let (epoch, streams) = (Epoch::of_start(1), Vec::new());
        let hello = Hello { session, epoch, boot, streams, watched: true, burst: None };
        let mut greeting = Greeting::default();
        let said = Control::Hello(hello.clone());
        assert_eq!(greeting.take(said.clone()), (true, Some(Note::Hello(hello))));
        assert_eq!(greeting.take(said), (false, None));
        let goodbye = Control::Goodbye(Goodbye { reason: GoodbyeReason::Stopping });
        assert_eq!(greeting.take(goodbye), (false, Some(Note::Goodbye(GoodbyeReason::Stopping))));
    }

    #[test]
    fn silence_where_data_is_due_brings_a_ping_and_rest_when_nothing_is_owed() {
        let mut now = Instant::now();
        let mut supervision = Supervision::new(false, now);
        assert_eq!(supervision.poll_action(), Some(Action::Send(Ping::Ping(0))));
        supervision.handle(health::Event::PingAnswered(0), now + ms(40));
        while supervision.poll_action().is_some() {}
        now += ms(5_000);
        supervision.sent(0, now);
        assert_eq!(supervision.poll_timeout(), Some(now + BUSY_INTERVAL));
        now += BUSY_INTERVAL;
        supervision.handle_timeout(Data { heard: 1, owed: true }, now);
        assert_eq!(supervision.poll_action(), None, "something was heard");
        now += BUSY_INTERVAL;
        supervision.handle_timeout(Data { heard: 1, owed: true }, now);
        assert_eq!(supervision.poll_action(), Some(Action::Send(Ping::Ping(1))));
        now += BUSY_INTERVAL;
        supervision.handle_timeout(Data { heard: 1, owed: false }, now);
        assert!(!supervision.is_looking());
        assert!(supervision.poll_timeout().is_some_and(|due| due > now));
    }
}
