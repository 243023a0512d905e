//! What the broker keeps on disk: enrolled farms and open enrollment tokens.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use farm_protocol::id::FarmId;
use farm_store::{Batch, Error, MAX_BATCH_BYTES, OpenError, Options, Store, Table};

use crate::core::enrollment::{FarmRecord, TokenHash, TokenRecord};
use crate::core::history::{Entry, Past, Writing};
use crate::core::relay::credentials::SECRET_BYTES;

/// The store's schema that this version writes.
const SCHEMA: u32 = 1;

/// Vital: who loses them has to visit every farm.
const FARMS: Table<[u8; FarmId::LEN], FarmRecord> = Table::vital("farms");

/// Vital: a farm that was revoked stays so. When it was, seconds since 1970.
const REVOKED: Table<[u8; FarmId::LEN], u64> = Table::vital("revoked");

/// The log of the farms.
const HISTORY: Table<u64, Entry> = Table::new("history");

/// When the broker ran: from start to last mark, seconds since 1970.
const RUNS: Table<u64, u64> = Table::new("runs");

/// Of which farms' absence the operator was told, and since when they are
/// away. Not vital: what is lost is told again.
const TOLD: Table<[u8; FarmId::LEN], u64> = Table::new("told");

/// Not vital: a lost token is replaced by issuing another.
const TOKENS: Table<[u8; 32], TokenRecord> = Table::new("tokens");

/// Not vital: with another one, devices' credentials for the relay are
/// worthless until their next heartbeat or two.
const SECRETS: Table<[u8; 1], RelaySecret> = Table::new("secrets");

/// The relay's in [`SECRETS`].
const RELAY: [u8; 1] = [1];

/// As stored.
#[derive(serde::Serialize, serde::Deserialize)]
struct RelaySecret {
    secret: [u8; SECRET_BYTES],
}

/// Seconds since 1970, 0 for a clock before that.
pub fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Why the records could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The store did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It opened, but its records can't be read.
    #[error("the broker's records can't be read: {0}")]
    Read(#[from] Error),
}

/// Farms and tokens as stored.
#[derive(Debug)]
pub struct Records {
    /// The enrolled farms.
    pub farms: Vec<(FarmId, FarmRecord)>,
    /// The open tokens.
    pub tokens: Vec<(TokenHash, TokenRecord)>,
    /// The revoked farms, and when.
    pub revoked: Vec<(FarmId, u64)>,
    /// The log.
    pub past: Past,
    /// Farms that the operator was told are away, and since when.
    pub told: Vec<(FarmId, u64)>,
}

/// Opens the store in the state directory and reads all of it. Blocks.
///
/// # Errors
/// [`RecordsError`]; its text says what to do.
pub fn open(state: &Path) -> Result<(Store, Records), RecordsError> {
    let options = Options { schema: SCHEMA, wall_time: unix_time(), ..Options::default() };
    let (store, report) = farm_store::open(state, options)?;
    for alarm in &report.alarms {
        tracing::warn!(%alarm, "store");
    }
    let records = records(&store)?;
    Ok((store, records))
}

/// All records of an open store.
///
/// # Errors
/// The store's.
pub fn records(store: &Store) -> Result<Records, Error> {
    let farms = store.range(&FARMS, .., usize::MAX)?;
    let tokens = store.range(&TOKENS, .., usize::MAX)?;
    let revoked = store.range(&REVOKED, .., usize::MAX)?;
    // Nobody is kept away by a log that can't be read.
    let entries = readable(store.range(&HISTORY, .., usize::MAX), "history");
    let runs = readable(store.range(&RUNS, .., usize::MAX), "runs");
    let told = readable(store.range(&TOLD, .., usize::MAX), "told");
    Ok(Records {
        told: told.into_iter().map(|(id, since)| (FarmId::from_bytes(id), since)).collect(),
        farms: farms.into_iter().map(|(id, record)| (FarmId::from_bytes(id), record)).collect(),
        tokens: tokens.into_iter().map(|(hash, token)| (TokenHash(hash), token)).collect(),
        revoked: revoked.into_iter().map(|(id, at)| (FarmId::from_bytes(id), at)).collect(),
        past: Past { entries, runs },
    })
}

/// Puts farms, tokens and revoked farms in the place of those that are there. Not in one transaction: large
/// ones don't fit one. Blocks.
///
/// # Errors
/// The store's.
pub fn replace(store: &Store, there: &Records, wanted: &Records) -> Result<(), Error> {
    let mut batch = Batch::new();
    for (farm, _) in &there.farms {
        batch.remove(&FARMS, farm.as_bytes())?;
        commit_if_large(store, &mut batch)?;
    }
    for (hash, _) in &there.tokens {
        batch.remove(&TOKENS, &hash.0)?;
        commit_if_large(store, &mut batch)?;
    }
    for (farm, _) in &there.revoked {
        batch.remove(&REVOKED, farm.as_bytes())?;
        commit_if_large(store, &mut batch)?;
    }
    for (farm, record) in &wanted.farms {
        batch.put(&FARMS, farm.as_bytes(), record)?;
        commit_if_large(store, &mut batch)?;
    }
    for (hash, token) in &wanted.tokens {
        batch.put(&TOKENS, &hash.0, token)?;
        commit_if_large(store, &mut batch)?;
    }
    for (farm, at) in &wanted.revoked {
        batch.put(&REVOKED, farm.as_bytes(), at)?;
        commit_if_large(store, &mut batch)?;
    }
    store.commit_blocking(batch)
}

fn commit_if_large(store: &Store, batch: &mut Batch) -> Result<(), Error> {
    if batch.bytes() < MAX_BATCH_BYTES / 2 {
        return Ok(());
    }
    store.commit_blocking(std::mem::take(batch))
}

fn readable<T>(read: Result<Vec<T>, Error>, table: &str) -> Vec<T> {
    read.unwrap_or_else(|error| {
        tracing::error!(%error, table, "the log of the farms can't be read: it begins anew");
        Vec::new()
    })
}

/// Makes it durable that a farm is revoked, in one transaction.
///
/// # Errors
/// The store's; nothing has changed then.
pub async fn revoke(store: &Store, farm: FarmId, now: u64) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.remove(&FARMS, farm.as_bytes())?;
    batch.put(&REVOKED, farm.as_bytes(), &now)?;
    store.commit(batch).await
}

/// Writes to the log of the farms.
///
/// # Errors
/// The store's; nothing was written then.
pub async fn write_history(store: &Store, writing: &Writing) -> Result<(), Error> {
    let mut batch = Batch::new();
    for number in &writing.remove {
        batch.remove(&HISTORY, number)?;
    }
    for (number, entry) in &writing.add {
        batch.put(&HISTORY, number, entry)?;
    }
    store.commit(batch).await
}

/// Notes that the broker runs.
///
/// # Errors
/// The store's; nothing was written then.
pub async fn mark_run(store: &Store, start: u64, until: u64, forget: &[u64]) -> Result<(), Error> {
    let mut batch = Batch::new();
    for run in forget {
        batch.remove(&RUNS, run)?;
    }
    batch.put(&RUNS, &start, &until)?;
    store.commit(batch).await
}

/// Notes of which absence of a farm the operator was told, if of any.
///
/// # Errors
/// The store's; nothing was written then.
pub async fn mark_alert(store: &Store, farm: FarmId, since: Option<u64>) -> Result<(), Error> {
    let mut batch = Batch::new();
    match since {
        Some(since) => batch.put(&TOLD, farm.as_bytes(), &since)?,
        None => batch.remove(&TOLD, farm.as_bytes())?,
    };
    store.commit(batch).await
}

/// Makes an enrollment durable, and its token used, in one transaction.
///
/// # Errors
/// The store's; nothing is there then, or all of it.
pub async fn enroll(store: &Store, farm: FarmId, record: &FarmRecord) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.put(&FARMS, farm.as_bytes(), record)?;
    batch.remove(&TOKENS, &record.token.0)?;
    store.commit(batch).await
}

/// Copies what the engine of a cluster has, in one transaction.
///
/// # Errors
/// The store's; nothing has changed then.
pub async fn copy(store: &Store, farms: &[FarmRecord], revoked: &[(FarmId, u64)]) -> Result<(), Error> {
    let mut batch = Batch::new();
    for record in farms {
        batch.put(&FARMS, FarmId::of(&record.key).as_bytes(), record)?;
    }
    for (farm, at) in revoked {
        batch.remove(&FARMS, farm.as_bytes())?;
        batch.put(&REVOKED, farm.as_bytes(), at)?;
    }
    store.commit(batch).await
}

/// Makes a new token durable.
///
/// # Errors
/// The store's.
pub async fn add_token(store: &Store, hash: TokenHash, token: &TokenRecord) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.put(&TOKENS, &hash.0, token)?;
    store.commit(batch).await
}

/// The relay's secret; `fresh` becomes it where there is none yet.
///
/// # Errors
/// The store's.
pub async fn relay_secret(store: &Store, fresh: [u8; SECRET_BYTES]) -> Result<[u8; SECRET_BYTES], Error> {
    if let Some(stored) = store.get(&SECRETS, &RELAY)? {
        return Ok(stored.secret);
    }
    let mut batch = Batch::new();
    batch.put(&SECRETS, &RELAY, &RelaySecret { secret: fresh })?;
    store.commit(batch).await?;
    Ok(fresh)
}

/// Removes an expired token.
///
/// # Errors
/// The store's.
pub async fn remove_token(store: &Store, hash: TokenHash) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.remove(&TOKENS, &hash.0)?;
    store.commit(batch).await
}
