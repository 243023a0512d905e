//! The operator's side: one JSON object a line over a unix socket that only
//! the broker's own user can open.

mod client;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use client::{AdminError, ask};

use crate::backup::Backup;
use crate::core::counters::Counters;
use crate::core::history::{Availability, Change, Entry};

/// Longest request, in bytes.
pub const MAX_REQUEST: u64 = 4 * 1024;

/// Shortest and longest validity of an enrollment token, in seconds: a minute
/// and a year.
pub const VALID_SECONDS: std::ops::RangeInclusive<u64> = 60..=366 * 24 * 3600;

/// The socket's place in a state directory.
pub fn socket_path(state: &Path) -> PathBuf {
    state.join("admin.sock")
}

/// What the operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// A new enrollment token.
    Enroll {
        /// The farm's name, for the list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// How long it is good for.
        valid_seconds: u64,
    },
    /// All enrolled farms.
    Farms {},
    /// All about one farm.
    Show {
        /// Its id, the beginning of that, or its name.
        farm: String,
    },
    /// The log of the farms.
    Events {
        /// From this line on; else the newest lines.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        /// Of this farm alone, named as in [`Request::Show`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        farm: Option<String>,
    },
    /// See a farm no more.
    Revoke {
        /// Named as in [`Request::Show`].
        farm: String,
    },
    /// All that a backup keeps.
    Backup {},
    /// What happened since the broker started.
    Counters {},
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Enroll`]; shown only here and only now.
    Token(String),
    /// To [`Request::Farms`].
    Farms(Vec<FarmLine>),
    /// To [`Request::Show`].
    Farm(Box<FarmDetails>),
    /// To [`Request::Events`].
    Events(Events),
    /// To [`Request::Revoke`]: the id of the farm.
    Revoked(String),
    /// To [`Request::Backup`].
    Backup(Box<Backup>),
    /// To [`Request::Counters`].
    Counters(Box<Counters>),
    /// It could not be done.
    Error(String),
}

/// One farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmLine {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is connected now.
    pub online: bool,
    /// When it came or went, seconds since 1970; `null` if it was not seen
    /// since the broker started.
    pub since: Option<u64>,
    /// When it was enrolled, seconds since 1970.
    pub enrolled: u64,
    /// Bytes that the broker's relay carried for it and the phones that it
    /// pays for, both directions, since the broker started; `null` without a
    /// relay of its own.
    #[serde(default)]
    pub relayed_bytes: Option<u64>,
}

/// All about one farm. What says where it is goes to the operator alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmDetails {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is connected now.
    pub online: bool,
    /// When it came or went, seconds since 1970.
    pub since: Option<u64>,
    /// When it was enrolled, seconds since 1970.
    pub enrolled: u64,
    /// Where it is, or was last seen.
    pub address: Option<String>,
    /// Of the last 24 hours.
    pub day: Availability,
    /// Of the last 30 days.
    pub month: Availability,
    /// See [`FarmLine::relayed_bytes`].
    #[serde(default)]
    pub relayed_bytes: Option<u64>,
    /// The newest lines of its log, oldest first.
    pub events: Vec<EventLine>,
}

/// A piece of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<EventLine>,
    /// Where the next piece begins.
    pub next: u64,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// Its number.
    pub number: u64,
    /// When, seconds since 1970.
    pub at: u64,
    /// The farm's id.
    pub farm: String,
    /// Its name.
    pub name: String,
    /// `online`, `offline` or `moved`.
    pub event: String,
    /// Where it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl EventLine {
    /// A line of the log as it is shown.
    pub fn of(number: u64, entry: &Entry, name: &str) -> Self {
        let (event, address) = match entry.change {
            Change::Online(address) => ("online", Some(address.to_string())),
            Change::Moved(address) => ("moved", Some(address.to_string())),
            Change::Offline => ("offline", None),
        };
        let (farm, name, event) = (entry.farm.to_string(), name.to_owned(), event.to_owned());
        Self { number, at: entry.at, farm, name, event, address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_plain_object() {
        let enroll = Request::Enroll { name: None, valid_seconds: 60 };
        let text = serde_json::to_string(&enroll).unwrap();
        assert_eq!(text, r#"{"command":"enroll","valid_seconds":60}"#);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), enroll);
        let farms = serde_json::from_str::<Request>(r#"{"command":"farms"}"#).unwrap();
        assert_eq!(farms, Request::Farms {});
        assert!(serde_json::from_str::<Request>(r#"{"command":"farms","x":1}"#).is_err());
    }
}
