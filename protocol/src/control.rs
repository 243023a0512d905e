//! What the two ends say on a carrier's `control` channel.

use serde::{Deserialize, Serialize};

use crate::epoch::Epoch;
use crate::frame::StreamState;
use crate::id::{BootId, PhoneId, SessionId};
use crate::readings::safe;
use crate::service::Service;

/// Most absences that a farm tells, the newest ones: 1 KB of a connection that
/// costs 12. A month of one a day fits.
pub const MAX_ABSENCES: usize = 32;

/// From either end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// First on a new carrier, from both ends: which session, and where its
    /// streams stand. Once both have it, data flows.
    Hello(Hello),
    /// The farm's name and services; again whenever they change.
    Farm(Farm),
    /// Whether somebody is looking: sets the cadence of pings at both ends.
    Attention(Attention),
    /// The sender leaves this carrier on purpose.
    Goodbye(Goodbye),
}

/// See [`Control::Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The session.
    pub session: SessionId,
    /// The carrier's epoch.
    pub epoch: Epoch,
    /// The sender's run.
    pub boot: BootId,
    /// Every stream that the sender knows.
    pub streams: Vec<StreamState>,
    /// From the phone: whether somebody is looking.
    pub watched: bool,
    /// Bytes of data that the sender's socket holds while its program does not
    /// run: what comes at once beyond is lost. A browser's holds little, and
    /// can't be made to hold more. Absent: enough for anything we send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// See [`Control::Farm`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farm {
    /// What its owner calls it.
    pub name: String,
    /// What it lets its phones reach.
    pub services: Vec<Service>,
    /// Every phone that it is paired with, the listener too: who looks after a
    /// farm should see who else gets in. Empty from an older farm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phones: Vec<PairedPhone>,
    /// When its box lately had no power or no network: what a phone saw as an
    /// outage, and is none of the tunnel's. At most [`MAX_ABSENCES`], in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absences: Vec<Absence>,
}

/// A time in which a farm could not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// When it began at the earliest, seconds since 1970 by a clock that was
    /// checked. After a power cut this is when the box last wrote that it was there.
    #[serde(rename = "a", deserialize_with = "safe")]
    pub at: u64,
    /// How long it lasted, in seconds.
    #[serde(rename = "l")]
    pub lasted: u32,
    /// Why.
    #[serde(rename = "w")]
    pub why: AbsenceReason,
}

/// Why a farm could not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbsenceReason {
    /// The box was off, or started anew.
    NoPower,
    /// It had no network address.
    NoNetwork,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// A phone that a farm is paired with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedPhone {
    /// Its id.
    pub id: PhoneId,
    /// What its owner calls it.
    pub name: String,
}

/// See [`Control::Attention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attention {
    /// Somebody is looking.
    pub watched: bool,
}

/// Why a side leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoodbyeReason {
    /// A newer carrier took over; the session goes on there.
    Superseded,
    /// The program stops; the session is over.
    Stopping,
    /// The phone was revoked.
    Revoked,
    /// The session is over at its owner's wish.
    SessionEnded,
    /// Another program with the same key and slot took the session's place:
    /// it is over, and its streams with it.
    TakenOver,
    /// The other side broke the protocol on this carrier.
    ProtocolError,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// See [`Control::Goodbye`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// Why.
    pub reason: GoodbyeReason,
}
