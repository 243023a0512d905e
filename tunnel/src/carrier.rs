//! One carrier at work: the shell that joins a [`peer::Carrier`] to a
//! session's [`Streams`] and to the [`health`] monitor.
//!
//! It greets when its channels are open, moves frames once its owner says
//! [`Carrier::attach`], pings all the time, and reports; the lifecycle decides.
//! How it behaves is in [`conduct`].

pub mod conduct;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};

use farm_protocol::control::{Control, Farm, GoodbyeReason, Hello};
use farm_protocol::epoch::Epoch;
use farm_protocol::frame::StreamState;
use farm_protocol::id::{BootId, SessionId};

use crate::health;
use crate::peer::{self, Path, PathKind, PeerEvent};
use crate::progress::Beat;
use crate::stream::Streams;

use worker::Worker;

/// Commands that wait for a carrier.
const COMMANDS: usize = 32;

/// Which carrier, of which session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarrierId {
    /// The session.
    pub session: SessionId,
    /// The carrier's epoch.
    pub epoch: Epoch,
}

/// What a carrier reports to its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// One more local candidate, for the other side.
    Candidate(String),
    /// The channels are open; our hello is on its way.
    Opened,
    /// The other side's hello.
    Hello(Hello),
    /// The farm's name and services.
    Farm(Farm),
    /// The path that it takes is known, or became another kind of path.
    Path(PathKind),
    /// Whether somebody looks, at the other side.
    Attention(bool),
    /// The other side leaves this carrier.
    Goodbye(GoodbyeReason),
    /// No path, no answer, or broken protocol. The last note.
    Lost(String),
}

/// How a carrier is doing, for status displays.
#[derive(Debug, Clone)]
pub struct Condition {
    /// Pings.
    pub health: health::Snapshot,
    /// The path in use.
    pub path: Option<Path>,
}

enum Command {
    Attach(Vec<StreamState>),
    Send(Control),
    Watched(bool),
    Suspect,
    Close(GoodbyeReason),
}

/// A running carrier. Dropping it closes it without a word.
pub struct Carrier {
    commands: async_channel::Sender<Command>,
    condition: Arc<Mutex<Option<Condition>>>,
}

/// What a carrier needs to begin.
pub struct Setup {
    /// Which one it is.
    pub id: CarrierId,
    /// Our run, for the hello.
    pub boot: BootId,
    /// Whether somebody looks, here or at the other side as far as known.
    pub watched: bool,
    /// The session's streams.
    pub streams: Streams,
    /// The connection.
    pub peer: Arc<dyn peer::Carrier>,
    /// Its events.
    pub events: async_channel::Receiver<PeerEvent>,
    /// Where reports go.
    pub notes: async_channel::Sender<(CarrierId, Note)>,
    /// Asked by the watchdog.
    pub beat: Beat,
}

impl Carrier {
    /// Takes over a connection that is being opened.
    pub fn start(setup: Setup) -> Self {
        let (commands, commanded) = async_channel::bounded(COMMANDS);
        let condition = Arc::new(Mutex::new(None));
        let (worker, events, beat) = Worker::new(setup, condition.clone());
        crate::executor::spawn(worker.run(events, commanded, beat)).detach();
        Self { commands, condition }
    }

    /// The lifecycle made this the session's carrier: data flows.
    pub fn attach(&self, streams: Vec<StreamState>) {
        self.command(Command::Attach(streams));
    }

    /// Says something on the control channel.
    pub fn send(&self, control: Control) {
        self.command(Command::Send(control));
    }

    /// Whether somebody looks: sets the cadence of pings.
    pub fn set_watched(&self, watched: bool) {
        self.command(Command::Watched(watched));
    }

    /// The network changed: pings must show at once whether this still works.
    pub fn suspect(&self) {
        self.command(Command::Suspect);
    }

    /// Says goodbye and closes.
    pub fn close(self, reason: GoodbyeReason) {
        self.command(Command::Close(reason));
    }

    /// How it is doing; `None` until it is open.
    pub fn condition(&self) -> Option<Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn command(&self, command: Command) {
        // Closed: it has reported its loss already. Full: it is stuck, and
        // its pings will tell.
        let _ = self.commands.try_send(command);
    }
}
