//! What the demo knows at the moment: written by whoever finds something out,
//! read by the screen.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::probe::{Answer, Transfer};
use super::tunnel::Tunnel;
use super::units::clock;

/// Messages kept; the screen has room for fewer.
const MESSAGES: usize = 50;

/// How a message is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Just so.
    Plain,
    /// It worked.
    Good,
    /// It did not.
    Bad,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Since the start.
    pub(super) at: Duration,
    /// How it is meant.
    pub(super) tone: Tone,
    /// What happened in the first line; an error may bring a program's last
    /// lines after it.
    pub(super) text: String,
}

/// All there is to show.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The broker's URL.
    pub(super) broker: String,
    /// Whether it runs.
    pub(super) broker_up: bool,
    /// The farm's address, where it has one of its own.
    pub(super) address: String,
    /// Whether the farm has power.
    pub(super) power: bool,
    /// The agent's own word for its link to the broker.
    pub(super) broker_link: String,
    /// Where the forward listens.
    pub(super) forward: Option<SocketAddr>,
    /// The tunnel, by `farm-connect status`.
    pub(super) tunnel: Tunnel,
    /// The newest answer through the tunnel, and when it came.
    pub(super) answer: Option<(Answer, Instant)>,
    /// The newest transfer.
    pub(super) transfer: Option<Transfer>,
    /// A pairing link to be shown until a key is pressed.
    pub(super) invitation: Option<String>,
    /// What is being done.
    pub(super) busy: Option<(&'static str, Instant)>,
    /// What happened.
    pub(super) messages: VecDeque<Message>,
}

/// The facts, shared.
pub(super) struct Board {
    start: Instant,
    /// Whether messages also go to standard output.
    echo: bool,
    facts: Mutex<Facts>,
}

impl Board {
    /// Nothing known yet.
    pub(super) fn new(echo: bool) -> Self {
        let facts = Facts {
            broker: String::new(),
            broker_up: false,
            address: String::new(),
            power: false,
            broker_link: String::new(),
            forward: None,
            tunnel: Tunnel::default(),
            answer: None,
            transfer: None,
            invitation: None,
            busy: None,
            messages: VecDeque::new(),
        };
        Self { start: Instant::now(), echo, facts: Mutex::new(facts) }
    }

    /// The facts, to read or change; held for no longer than that takes.
    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start.
    pub(super) fn age(&self) -> Duration {
        self.start.elapsed()
    }

    /// Says what happened.
    pub(super) fn say(&self, tone: Tone, text: impl Into<String>) {
        let text = text.into();
        let at = self.age();
        if self.echo {
            let mark = if tone == Tone::Bad { "FAILED " } else { "" };
            println!("{:>6}  {mark}{text}", clock(at));
        }
        let mut facts = self.facts();
        if facts.messages.len() == MESSAGES {
            facts.messages.pop_front();
        }
        facts.messages.push_back(Message { at, tone, text });
    }
}
