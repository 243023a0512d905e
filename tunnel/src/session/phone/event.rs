//! What goes into a phone's session, what comes out of it, and what it shows.

use std::time::Instant;

use farm_protocol::control::GoodbyeReason;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::BootId;
use farm_protocol::signal::OfferRefused;

use crate::recovery::{Failure, Strategy, Ways};

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
    /// The broker gave our place to another program with our key, or knows a
    /// newer one that we can't count past.
    Superseded,
    /// Answers [`Action::TakeAnotherSlot`]: a slot of our own is taken, this is
    /// the first epoch in it, and its link to the broker is still to come up.
    NewSlot(Epoch),
    /// Answers [`Action::TakeAnotherSlot`]: there is none.
    NoSlot,
    /// A carrier's channels are open.
    Opened(Epoch),
    /// The farm's hello came on a carrier.
    Hello(Epoch),
    /// The path that a carrier takes is known, or became another one.
    Path {
        /// The carrier's.
        epoch: Epoch,
        /// Through a relay.
        relayed: bool,
    },
    /// A carrier is dead, failed or closed.
    Lost(Epoch),
    /// The farm left a carrier on purpose.
    Goodbye(Epoch, GoodbyeReason),
    /// Our own network went, or came, or changed its address.
    Network(Network),
    /// The path to the broker was gone and is there again.
    PathBack,
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
        /// Which ways it may take. Where there is no relay, relay only means any.
        ways: Ways,
    },
    /// Both hellos are there: streams go on over this carrier.
    Attach(Epoch),
    /// Close a carrier.
    Close(Epoch, GoodbyeReason),
    /// Pings must show now whether the live carrier still works.
    Probe(Epoch),
    /// Move to a slot that this program has not had yet, and say
    /// [`Event::NewSlot`] or [`Event::NoSlot`].
    TakeAnotherSlot,
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
    /// The next attempt at a direct carrier in place of a relayed one.
    Upgrade,
    /// An answer did not come.
    Answer,
    /// A carrier did not open.
    Connect,
    /// A hello did not come.
    Hello,
    /// Nobody has looked for a while: the carrier is given up.
    Rest,
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
    /// Our own network has a way out, as far as we were told.
    pub network_up: bool,
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
    /// Nobody looks, nothing is open, and no carrier is kept: it connects when
    /// somebody looks.
    Resting,
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
            Self::Resting => "resting",
            Self::NotPaired => "not_paired",
        }
    }
}
