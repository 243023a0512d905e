//! Farm Tunnel: the store. sled behind one small typed interface, used so that
//! a power cut loses nothing that was acknowledged and the store always opens.
//!
//! ```
//! use farm_store::{Batch, Options, Table};
//!
//! const PHONES: Table<[u8; 4], String> = Table::vital("phones");
//! const READINGS: Table<u64, f32> = Table::new("readings");
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("state");
//! let options = Options { schema: 1, wall_time: 1_790_000_000, ..Options::default() };
//! let (store, report) = farm_store::open(&path, options)?;
//! assert!(report.alarms.is_empty());
//!
//! let mut batch = Batch::new();
//! batch.put(&PHONES, &[1, 2, 3, 4], &"Ada's phone".to_owned())?;
//! batch.put(&READINGS, &7, &21.5)?;
//! store.commit_blocking(batch)?; // durable from here on
//!
//! assert_eq!(store.last(&READINGS)?, Some((7, 21.5)));
//! store.close_blocking();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The rules behind it, and the measurements that made them, are in
//! `docs/decisions/0002-sled-recipe.md`. In short: a commit is acknowledged
//! after sled's `flush` *and* an fsync of its file; a failed fsync is never
//! retried, the database is dropped and opened again; a damaged database is
//! moved aside, never wiped; *vital* tables (identity, paired phones) are also
//! kept in a checksummed mirror file, from which they are restored.
//!
//! In the state directory:
//!
//! | name | what |
//! |---|---|
//! | `store/` | sled's files, and the marker `ok` of a finished creation |
//! | `vital.cbor`, `vital.cbor.1` | the mirror, newest and previous generation |
//! | `lock` | held (flock) by the process that has the store open |
//! | `corrupt-<time>/` | a database that could not be used; newest 3 are kept |
//! | `unfinished-<time>/` | a directory without its marker; newest 3 are kept |
// But for one call that takes sled's file from it: see `grip`.
#![deny(unsafe_code)]

mod aside;
mod backwards;
mod batch;
mod bring_up;
mod codec;
mod directory;
mod engine;
mod error;
mod failure;
mod files;
mod grip;
mod group;
mod key;
mod layout;
mod meta;
mod mirror;
mod reconcile;
mod report;
mod restart;
mod shared;
mod slack;
mod store;
mod table;
mod vital;
mod writer;

pub use batch::{Batch, MAX_BATCH_BYTES};
pub use bring_up::Options;
pub use error::{Error, OpenError};
pub use key::{FixedKey, Key};
pub use report::{Alarm, Counters, OpenReport};
pub use restart::restart_on_panic;
pub use store::{Store, open};
pub use table::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Table};
pub use vital::{MAX_VITAL_BYTES, Vital};
