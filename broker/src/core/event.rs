//! What comes into the core and what it wants done.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use farm_protocol::broker::{Authenticate, FromBroker, ToBroker};
use farm_protocol::channel::Channel;
use farm_protocol::id::FarmId;
use farm_protocol::keys::Nonce;

use super::alerts::Alert;
use super::cluster::message::{BrokerId, PeerMessage};
use super::cluster::records::Record;
use super::enrollment::{FarmRecord, TokenHash, TokenRecord};
use super::history::Writing;
use super::relay::Account;

/// One WebSocket, never reused within a run of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The time, as read by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines; never goes back.
    pub instant: Instant,
    /// Seconds since 1970, for what is stored or shown; may jump.
    pub unix: u64,
}

/// What came with the request for a WebSocket, see [`farm_protocol::channel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The TLS connection, as this end knows it.
    pub channel: Channel,
    /// Not checked yet.
    pub claim: Authenticate,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A device opened a WebSocket.
    Opened {
        /// The new connection.
        connection: ConnectionId,
        /// Where it comes from. Port 0 where a proxy did not tell.
        observed: SocketAddr,
        /// Fresh randomness for its challenge.
        nonce: Nonce,
        /// Who it says it is, where its request did.
        claim: Option<Box<Claimed>>,
    },
    /// A device said something.
    Message {
        /// Its connection.
        connection: ConnectionId,
        /// What it said.
        message: ToBroker,
    },
    /// A device said something that is no message of the protocol.
    Malformed {
        /// Its connection.
        connection: ConnectionId,
    },
    /// A connection ended, or does not take what is sent.
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// Whether it was given up because the device does not read.
        slow: bool,
    },
    /// An [`Action::Enroll`] is durable.
    Enrolled {
        /// The farm.
        farm: FarmId,
    },
    /// An [`Action::Enroll`] could not be made durable.
    EnrollmentFailed {
        /// The farm.
        farm: FarmId,
    },
    /// In a cluster: the token of an [`Action::Enroll`] is no good.
    EnrollmentRefused {
        /// The farm.
        farm: FarmId,
    },
    /// In a cluster: the engine has this record.
    Recorded(Box<Record>),
    /// In a cluster: all that the engine has was read.
    RecordsWhole {
        /// The farms that it has.
        farms: BTreeSet<FarmId>,
        /// The revoked ones.
        revoked: BTreeSet<FarmId>,
    },
    /// In a cluster: whether the engine can be reached.
    Engine {
        /// It can.
        there: bool,
    },
    /// In a cluster: another broker said what can't be read.
    PeerUnreadable,
    /// In a cluster: another broker said something.
    Peer(Box<PeerMessage>),
    /// The operator issued an enrollment token; it is durable.
    TokenIssued {
        /// The token's hash.
        hash: TokenHash,
        /// What is kept of it.
        token: TokenRecord,
    },
    /// The operator revoked an enrolled farm; it is durable.
    Revoked {
        /// The farm.
        farm: FarmId,
    },
    /// The operator changed what may change while the broker runs.
    Reconfigured {
        /// See [`Limits::connections`](super::Limits::connections).
        connections: usize,
        /// See [`Limits::connections_per_address`](super::Limits::connections_per_address).
        connections_per_address: usize,
        /// See [`Settings::alert_after`](super::Settings::alert_after).
        alert_after: Option<Duration>,
    },
    /// Time went by.
    Timeout,
    /// The broker goes away.
    ShutDown {
        /// Randomness to spread the devices' return with.
        seed: u64,
    },
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a message.
    Send {
        /// Over this connection.
        connection: ConnectionId,
        /// The message.
        message: Box<FromBroker>,
    },
    /// Close a connection once all was sent. No [`Event::Closed`] is needed.
    Close {
        /// The connection.
        connection: ConnectionId,
    },
    /// Make a farm's record durable and remove its token, in one transaction,
    /// then answer with [`Event::Enrolled`] or [`Event::EnrollmentFailed`].
    Enroll {
        /// The farm.
        farm: FarmId,
        /// Its record.
        record: FarmRecord,
    },
    /// In a cluster: say this to all other brokers. May be lost.
    TellAll {
        /// The message.
        message: Box<PeerMessage>,
    },
    /// In a cluster: say this to one other broker. May be lost.
    Tell {
        /// Which.
        broker: BrokerId,
        /// The message.
        message: Box<PeerMessage>,
    },
    /// In a cluster: the engine has lost this farm; write it again, unless it
    /// is there.
    Restore {
        /// The farm.
        record: Box<FarmRecord>,
    },
    /// In a cluster: the engine has lost that this farm was revoked.
    RestoreRevoked {
        /// The farm.
        farm: FarmId,
        /// When it was, seconds since 1970.
        at: u64,
    },
    /// Refuse this account at the relay, and end what it has there.
    CloseRelay {
        /// A revoked farm's.
        account: Account,
    },
    /// Tell the operator of a farm that is away for long, or back.
    Alert {
        /// Which, and what.
        alert: Box<Alert>,
    },
    /// Forget that the operator was told of a farm's absence: nobody waits for
    /// it any more. Otherwise that is noted when an alert was delivered.
    ForgetAlert {
        /// The farm.
        farm: FarmId,
    },
    /// Remove an expired enrollment token from the store.
    ForgetToken {
        /// The token's hash.
        hash: TokenHash,
    },
    /// Write the log of the farms, in the order of these actions.
    WriteHistory {
        /// What is new, and what gave way.
        writing: Box<Writing>,
    },
    /// Note that the broker runs, in the same order.
    MarkRun {
        /// Since when, seconds since 1970: the run's name.
        start: u64,
        /// Until now.
        until: u64,
        /// Runs that nobody asks for any more.
        forget: Vec<u64>,
    },
}
