//! Keeps farms and tokens in the engine. What returns is on most of its nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use farm_protocol::id::FarmId;
use smol::Timer;

use super::stream::{Stored, Stream, StreamError};
use crate::core::cluster::records::{
    Entry, Record, Redeemed, SCHEMA, may_forget, may_restore, redeem, token_key,
};
use crate::core::enrollment::{FarmRecord, TokenHash, TokenRecord};
use crate::register::{Enrolled, Register, RegisterError};
use crate::store::unix_time;

/// A write is tried for this long: a change of the engine's leader takes up to
/// 5 s, and a farm that waits is told to come back after 10 s.
const WRITE_WITHIN: Duration = Duration::from_secs(8);

/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Clone)]
pub(super) struct NatsRegister {
    stream: Stream,
    /// The version of the records, if it is not ours.
    other_schema: Arc<AtomicU16>,
}

impl NatsRegister {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, other_schema: Arc::default() }
    }

    /// The records are of this version.
    pub(super) fn set_schema(&self, version: u16) {
        let other = if version == SCHEMA { 0 } else { version };
        if self.other_schema.swap(other, Ordering::Relaxed) != other && other != 0 {
            tracing::error!("{}: known farms keep working, nothing new is written", of_other_version(other));
        }
    }

    /// Tries until it is done, or for [`WRITE_WITHIN`].
    async fn keep(&self, change: Change) -> Result<Done, RegisterError> {
        let until = Instant::now() + WRITE_WITHIN;
        loop {
            let other = self.other_schema.load(Ordering::Relaxed);
            if other != 0 {
                return Err(RegisterError::Engine(of_other_version(other)));
            }
            let error = match self.attempt(&change).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            // Somebody wrote at the same time, say: look again what is there.
            if !error.is_passing() || Instant::now() + TRY_AGAIN >= until {
                return Err(RegisterError::Engine(error.to_string()));
            }
            Timer::after(TRY_AGAIN).await;
        }
    }

    async fn attempt(&self, change: &Change) -> Result<Done, StreamError> {
        let now = unix_time();
        match change {
            Change::Enroll(record) => {
                let there = self.token(record.token).await?;
                match redeem(there.value, record.clone(), now) {
                    Redeemed::Already(record) => Ok(Done::Enrolled(Enrolled::Kept(record))),
                    Redeemed::Refused => Ok(Done::Enrolled(Enrolled::Refused)),
                    Redeemed::Write(record) => {
                        self.spend(&record, there.revision).await?;
                        Ok(Done::Enrolled(Enrolled::Kept(record)))
                    }
                }
            }
            Change::AddToken(hash, token) => {
                let open = Record::Token(*hash, Some(Entry::Open(token.clone())));
                match self.stream.write(&open, 0).await {
                    // An earlier try of ours: nobody else draws the same token.
                    Ok(()) | Err(StreamError::Conflict) => Ok(Done::Changed),
                    Err(error) => Err(error),
                }
            }
            Change::RemoveToken(hash) => {
                let there = self.token(*hash).await?;
                if may_forget(there.value.as_ref(), now) {
                    self.stream.delete(&token_key(*hash), there.revision).await?;
                }
                Ok(Done::Changed)
            }
            Change::Revoke(farm, at) => {
                self.stream.overwrite(&Record::Revoked(*farm, *at)).await?;
                Ok(Done::Changed)
            }
            Change::Restore(record) => {
                let there = self.token(record.token).await?;
                if may_restore(there.value.as_ref()) {
                    self.spend(record, there.revision).await?;
                }
                Ok(Done::Changed)
            }
        }
    }

    async fn spend(&self, record: &FarmRecord, revision: u64) -> Result<(), StreamError> {
        let spent = Record::Token(record.token, Some(Entry::Spent(record.clone())));
        self.stream.write(&spent, revision).await
    }

    /// What became of a token, as the engine has it now.
    async fn token(&self, hash: TokenHash) -> Result<Stored<Option<Entry>>, StreamError> {
        let Stored { value, revision } = self.stream.read(&token_key(hash)).await?;
        let value = match value {
            Some(Record::Token(_, entry)) => entry,
            _ => None,
        };
        Ok(Stored { value, revision })
    }
}

fn of_other_version(version: u16) -> String {
    let which = if version > SCHEMA { "this broker" } else { "the brokers that wrote them" };
    format!("the records in NATS are of version {version}, this broker knows {SCHEMA}: update {which}")
}

/// What is to be written.
enum Change {
    Enroll(FarmRecord),
    AddToken(TokenHash, TokenRecord),
    RemoveToken(TokenHash),
    Revoke(FarmId, u64),
    Restore(FarmRecord),
}

enum Done {
    Enrolled(Enrolled),
    Changed,
}

#[async_trait]
impl Register for NatsRegister {
    async fn enroll(&self, _farm: FarmId, record: &FarmRecord) -> Result<Enrolled, RegisterError> {
        match self.keep(Change::Enroll(record.clone())).await? {
            Done::Enrolled(enrolled) => Ok(enrolled),
            Done::Changed => Ok(Enrolled::Kept(record.clone())),
        }
    }

    async fn add_token(&self, hash: TokenHash, token: &TokenRecord) -> Result<(), RegisterError> {
        self.keep(Change::AddToken(hash, token.clone())).await.map(drop)
    }

    async fn remove_token(&self, hash: TokenHash) -> Result<(), RegisterError> {
        self.keep(Change::RemoveToken(hash)).await.map(drop)
    }

    async fn revoke(&self, farm: FarmId, now: u64) -> Result<(), RegisterError> {
        self.keep(Change::Revoke(farm, now)).await.map(drop)
    }

    async fn restore(&self, record: &FarmRecord) -> Result<(), RegisterError> {
        self.keep(Change::Restore(record.clone())).await.map(drop)
    }
}
