//! What the broker keeps on disk: enrolled farms and open enrollment tokens.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use farm_protocol::id::FarmId;
use farm_store::{Batch, Error, OpenError, Options, Store, Table};

use crate::core::enrollment::{FarmRecord, TokenHash, TokenRecord};
use crate::core::relay::credentials::SECRET_BYTES;

/// The store's schema that this version writes.
const SCHEMA: u32 = 1;

/// Vital: who loses them has to visit every farm.
const FARMS: Table<[u8; FarmId::LEN], FarmRecord> = Table::vital("farms");

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
    let farms = store.range(&FARMS, .., usize::MAX)?;
    let tokens = store.range(&TOKENS, .., usize::MAX)?;
    let records = Records {
        farms: farms.into_iter().map(|(id, record)| (FarmId::from_bytes(id), record)).collect(),
        tokens: tokens.into_iter().map(|(hash, token)| (TokenHash(hash), token)).collect(),
    };
    Ok((store, records))
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
