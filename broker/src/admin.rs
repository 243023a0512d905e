//! The operator's side: one JSON object a line over a unix socket that only
//! the broker's own user can open.

mod client;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use client::{AdminError, ask};

use crate::core::counters::Counters;

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
