//! Farms and tokens as the engine keeps them, for all brokers.
//!
//! One key is one token, and what became of it: open, then spent on a farm.
//! Spending it is one write that succeeds only if nobody else's came first, so
//! a token is used once however many brokers are asked at the same time, and
//! nothing is ever half done. A spent token is its farm's record.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use farm_protocol::codec::{self, CodecError};
use farm_protocol::id::FarmId;
use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::core::enrollment::{FarmRecord, TokenHash, TokenRecord};
use crate::core::event::{Action, Now};

/// The version of the records that this program reads and writes.
pub const SCHEMA: u16 = 1;

/// The key of their version.
const SCHEMA_KEY: &str = "schema";

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// It can be used.
    Open(TokenRecord),
    /// This farm used it.
    Spent(FarmRecord),
}

/// One record, as it is written or was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// What became of a token; `None` once it is forgotten.
    Token(TokenHash, Option<Entry>),
    /// A farm is to be seen no more; since then, seconds since 1970.
    Revoked(FarmId, u64),
    /// The version of the records.
    Schema(u16),
}

/// Why a record can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its key is none of ours.
    #[error("nothing that this version keeps is called {0:?}")]
    Key(String),
    /// Its value is damaged.
    #[error("{0}: {1}")]
    Value(String, CodecError),
}

/// The key of a token.
pub fn token_key(hash: TokenHash) -> String {
    format!("token.{}", HEXLOWER.encode(&hash.0))
}

impl Record {
    /// As it is written.
    ///
    /// # Errors
    /// [`CodecError`]: never for what the core made.
    pub fn encode(&self) -> Result<(String, Vec<u8>), CodecError> {
        Ok(match self {
            Self::Token(hash, Some(entry)) => (token_key(*hash), codec::encode(entry)?),
            Self::Token(hash, None) => (token_key(*hash), Vec::new()),
            Self::Revoked(farm, at) => (format!("revoked.{farm}"), codec::encode(at)?),
            Self::Schema(version) => (SCHEMA_KEY.to_owned(), codec::encode(version)?),
        })
    }

    /// Reads what is kept under a key; `None` is what was deleted. Gives
    /// nothing for a deletion that means nothing.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(key: &str, value: Option<&[u8]>) -> Result<Option<Self>, RecordError> {
        let unknown = || RecordError::Key(key.chars().take(100).collect());
        let damaged = |error| RecordError::Value(key.to_owned(), error);
        if key == SCHEMA_KEY {
            return value.map(|value| codec::decode(value).map(Self::Schema).map_err(damaged)).transpose();
        }
        let (kind, name) = key.split_once('.').ok_or_else(unknown)?;
        match kind {
            "token" => {
                let hash = HEXLOWER.decode(name.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
                let hash = TokenHash(hash.ok_or_else(unknown)?);
                let entry = value.map(codec::decode).transpose().map_err(damaged)?;
                Ok(Some(Self::Token(hash, entry)))
            }
            "revoked" => {
                let farm = name.parse().map_err(|_| unknown())?;
                let at = value.map(codec::decode).transpose().map_err(damaged)?;
                Ok(at.map(|at| Self::Revoked(farm, at)))
            }
            _ => Err(unknown()),
        }
    }
}

/// What to do about a farm that brings a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// Write this in the place of what was read.
    Write(FarmRecord),
    /// It is written already: an earlier try of ours, whose answer was lost.
    Already(FarmRecord),
    /// The token is no good.
    Refused,
}

/// Decides by what the engine has under the token's key now. `wanted` is what
/// the farm's broker would store.
pub fn redeem(there: Option<Entry>, wanted: FarmRecord, now: u64) -> Redeemed {
    match there {
        Some(Entry::Open(token)) if token.expires > now => {
            let name = token.name.unwrap_or(wanted.name);
            Redeemed::Write(FarmRecord { name, ..wanted })
        }
        Some(Entry::Spent(record)) if record.key == wanted.key => Redeemed::Already(record),
        _ => Redeemed::Refused,
    }
}

/// Whether a token may be forgotten: never one that is a farm's record.
pub fn may_forget(there: Option<&Entry>, now: u64) -> bool {
    matches!(there, Some(Entry::Open(token)) if token.expires <= now)
}

/// Whether a farm's record may be written again where this is. An open token
/// is one whose use the engine lost.
pub fn may_restore(there: Option<&Entry>) -> bool {
    !matches!(there, Some(Entry::Spent(_)))
}

impl Core {
    /// The engine has this record.
    pub(in crate::core) fn recorded(&mut self, record: Record, now: Now) {
        match record {
            Record::Token(hash, Some(Entry::Open(token))) => self.token_issued(hash, token, now),
            Record::Token(hash, Some(Entry::Spent(record))) => {
                self.enrollment.tokens.remove(&hash);
                self.farm_recorded(record, now);
            }
            Record::Token(hash, None) => {
                self.enrollment.tokens.remove(&hash);
            }
            Record::Revoked(farm, at) => {
                if !self.enrollment.revoked.contains_key(&farm) {
                    self.revoked(farm, Now { unix: at, ..now });
                }
            }
            Record::Schema(_) => {}
        }
    }

    fn farm_recorded(&mut self, record: FarmRecord, now: Now) {
        let farm = FarmId::of(&record.key);
        if self.enrollment.revoked.contains_key(&farm) || self.farms.is_enrolled(farm) {
            return;
        }
        if self.farms.enrolled() >= self.settings.limits.farms {
            self.counters.limit_farms += 1;
            return;
        }
        tracing::info!(%farm, name = record.name, "farm enrolled");
        self.farms.add(farm, record);
        self.farm_became_known(farm, now);
    }

    /// Whether a farm that is not known here may be told that it is not
    /// enrolled: only by a broker that has read all records once.
    pub(in crate::core) fn knows_all_farms(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.records_are_whole)
    }

    /// All that the engine has was read: what is known here and is not there
    /// was lost, and is written again. Nothing else takes a farm away than
    /// its revocation, which is kept for ever.
    pub(in crate::core) fn records_whole(&mut self, farms: &BTreeSet<FarmId>, revoked: &BTreeSet<FarmId>) {
        if let Some(cluster) = &mut self.cluster {
            cluster.records_are_whole = true;
        }
        let lost = self.farms.records().filter(|record| !farms.contains(&FarmId::of(&record.key)));
        let lost: Vec<FarmRecord> = lost.cloned().collect();
        for record in lost {
            self.counters.restored += 1;
            self.actions.push_back(Action::Restore { record: Box::new(record) });
        }
        let lost = self.enrollment.revoked.iter().filter(|(farm, _)| !revoked.contains(farm));
        let lost: Vec<(FarmId, u64)> = lost.map(|(farm, at)| (*farm, *at)).collect();
        for (farm, at) in lost {
            self.counters.restored += 1;
            self.actions.push_back(Action::RestoreRevoked { farm, at });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farm_protocol::keys::PublicKey;
    use proptest::prelude::*;

    const NOW: u64 = 1_790_000_000;
    const HASH: TokenHash = TokenHash([0xa5; 32]);

    fn farm(n: u8) -> FarmRecord {
        FarmRecord { key: PublicKey::from_bytes([n; 32]), name: "own".into(), enrolled: NOW, token: HASH }
    }

    fn open(name: Option<&str>, expires: u64) -> Option<Entry> {
        Some(Entry::Open(TokenRecord { name: name.map(str::to_owned), expires }))
    }

    #[test]
    fn records_round_trip() {
        for record in [
            Record::Token(HASH, open(Some("North field"), NOW)),
            Record::Token(HASH, Some(Entry::Spent(farm(1)))),
            Record::Revoked(FarmId::from_bytes([4; 20]), NOW),
            Record::Schema(SCHEMA),
        ] {
            let (key, value) = record.encode().unwrap();
            assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.'), "{key} is a subject");
            assert_eq!(Record::decode(&key, Some(&value)).unwrap(), Some(record));
        }
        let key = token_key(HASH);
        assert_eq!(Record::decode(&key, None).unwrap(), Some(Record::Token(HASH, None)));
        assert_eq!(Record::decode("schema", None).unwrap(), None);
    }

    #[test]
    fn what_is_not_ours_is_named() {
        for key in ["", "token", "token.xyz", "token.aa", "revoked.", "farm.1"] {
            assert!(matches!(Record::decode(key, Some(b"")), Err(RecordError::Key(_))), "{key}");
        }
        let error = Record::decode(&token_key(HASH), Some(b"\x00")).unwrap_err();
        assert!(matches!(error, RecordError::Value(..)), "{error}");
    }

    #[test]
    fn a_token_is_spent_once() {
        assert_eq!(redeem(None, farm(1), NOW), Redeemed::Refused);
        assert_eq!(redeem(open(None, NOW), farm(1), NOW), Redeemed::Refused, "expired");
        assert_eq!(redeem(open(None, NOW + 1), farm(1), NOW), Redeemed::Write(farm(1)));
        let named = FarmRecord { name: "North field".into(), ..farm(1) };
        let there = open(Some("North field"), NOW + 1);
        assert_eq!(redeem(there, farm(1), NOW), Redeemed::Write(named), "the operator's name comes first");
        assert_eq!(redeem(Some(Entry::Spent(farm(2))), farm(1), NOW), Redeemed::Refused);
        let again = redeem(Some(Entry::Spent(farm(1))), farm(1), NOW);
        assert_eq!(again, Redeemed::Already(farm(1)), "its answer was lost");
    }

    #[test]
    fn a_farms_record_is_neither_forgotten_nor_overwritten() {
        let spent = Some(Entry::Spent(farm(1)));
        assert!(!may_forget(spent.as_ref(), u64::MAX) && !may_restore(spent.as_ref()));
        assert!(may_forget(open(None, NOW).as_ref(), NOW) && !may_forget(open(None, NOW + 1).as_ref(), NOW));
        assert!(!may_forget(None, NOW));
        assert!(may_restore(None) && may_restore(open(None, NOW).as_ref()));
    }

    proptest! {
        #[test]
        fn any_record_is_survived(key in "\\PC{0,90}", value in prop::collection::vec(any::<u8>(), 0..99)) {
            let _ = Record::decode(&key, Some(&value));
            let _ = Record::decode(&token_key(HASH), Some(&value));
        }
    }
}
