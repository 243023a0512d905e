//! The tables of the readings.

use farm_protocol::id::BootId;
use farm_store::Table;
use serde::{Deserialize, Serialize};

use super::block::Block;

/// Blocks, by the number of their first reading.
pub const BLOCKS: Table<u64, Block> = Table::new("readings");

/// Numbers below this may have been given. Vital: a number is never given
/// twice, even where the database is lost.
pub const RESERVED: Table<(), u64> = Table::vital("readings-reserved");

/// Numbers that no reading has, by the first of each range.
pub const HOLES: Table<u64, Hole> = Table::new("readings-holes");

/// The first reading that is kept; those before were pruned.
pub const FIRST: Table<(), u64> = Table::new("readings-first");

/// The device's boots, counted from 1; see [`BootRecord`].
pub const BOOTS: Table<u32, BootRecord> = Table::new("readings-boots");

/// The newest trusted time, milliseconds since 1970: the next start's floor.
pub const TIME: Table<(), u64> = Table::new("time");

/// A range of numbers that no reading has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The last of them.
    pub last: u64,
    /// Readings may have been lost; otherwise the numbers were only left out.
    pub lost: bool,
}

/// A boot of the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    /// The kernel's id of it.
    pub id: serde_bytes::ByteArray<{ BootId::LEN }>,
    /// Milliseconds since 1970 at its beginning, once the clock was trusted:
    /// makes the untrusted times of this boot right.
    pub began: Option<u64>,
}
