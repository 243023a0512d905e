//! How readings are stored: those that become durable together stand in one
//! record, a block, under the number of the first. Pure.
//!
//! A record of its own for each reading would cost the card three times as
//! much where many come at once, and memory for each.

use farm_protocol::readings::{LabelError, check_name, check_unit};
use serde::{Deserialize, Serialize};

/// Largest block, in bytes of names, units and [`READING_BYTES`] each: with
/// the encoding around it below the store's limit of 4096.
pub const MAX_BYTES: usize = 3500;

/// What a reading takes besides its name and unit, in bytes: a value of 9, an
/// offset of up to 9, and the heads of its parts.
pub const READING_BYTES: usize = 24;

/// Names that begin so are the agent's own.
pub const RESERVED_PREFIX: &str = "agent.";

/// A reading that may be recorded: its name, value and unit are good.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    name: String,
    value: f64,
    unit: Option<String>,
}

/// Why a reading is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// Its name or unit.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// Its value.
    #[error("the value {0} is not usable: a finite number is expected")]
    NotFinite(f64),
    /// The name is the agent's.
    #[error("names that begin with {RESERVED_PREFIX:?} are the agent's own: choose another")]
    Reserved,
}

impl Sample {
    /// From a local program.
    ///
    /// # Errors
    /// [`SampleError`].
    pub fn new(name: String, value: f64, unit: Option<String>) -> Result<Self, SampleError> {
        if name.starts_with(RESERVED_PREFIX) {
            return Err(SampleError::Reserved);
        }
        Self::checked(name, value, unit)
    }

    /// One of the agent's own: its name follows [`RESERVED_PREFIX`].
    ///
    /// # Errors
    /// [`SampleError`].
    pub fn own(name: &str, value: f64, unit: Option<&str>) -> Result<Self, SampleError> {
        Self::checked(format!("{RESERVED_PREFIX}{name}"), value, unit.map(str::to_owned))
    }

    fn checked(name: String, value: f64, unit: Option<String>) -> Result<Self, SampleError> {
        check_name(&name)?;
        if let Some(unit) = &unit {
            check_unit(unit)?;
        }
        if !value.is_finite() {
            return Err(SampleError::NotFinite(value));
        }
        Ok(Self { name, value, unit })
    }

    /// What it takes in a block, in bytes.
    pub fn bytes(&self) -> usize {
        READING_BYTES + self.name.len() + self.unit.as_ref().map_or(0, String::len)
    }
}

/// When something was recorded, by every clock there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Which boot of the device: see [`super::tables::BOOTS`].
    pub boot: u32,
    /// Milliseconds since that boot.
    pub monotonic: u64,
    /// Milliseconds since 1970, as good as was known.
    pub wall: u64,
    /// Whether the clock behind `wall` was right.
    pub trusted: bool,
}

/// A reading on its way into a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// What.
    pub sample: Sample,
    /// When.
    pub at: Moment,
}

/// Readings with consecutive numbers. In the store an array, to be small.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Stored", from = "Stored")]
pub struct Block {
    /// When the first was recorded.
    pub start: Moment,
    /// At least one.
    pub entries: Vec<Entry>,
}

/// One reading in a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Milliseconds after the block's start.
    pub after: u64,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored(u32, u64, u64, bool, Vec<(u64, String, f64, Option<String>)>);

impl From<Block> for Stored {
    fn from(block: Block) -> Self {
        let Moment { boot, monotonic, wall, trusted } = block.start;
        let entries = block.entries.into_iter().map(|e| (e.after, e.name, e.value, e.unit)).collect();
        Stored(boot, monotonic, wall, trusted, entries)
    }
}

impl From<Stored> for Block {
    fn from(Stored(boot, monotonic, wall, trusted, entries): Stored) -> Self {
        let entry = |(after, name, value, unit)| Entry { after, name, value, unit };
        Self {
            start: Moment { boot, monotonic, wall, trusted },
            entries: entries.into_iter().map(entry).collect(),
        }
    }
}

impl Block {
    /// What it counts for in the log's bounds, in bytes: its record in the
    /// store with key and checksum.
    pub fn bytes(&self) -> u64 {
        let entries: usize = self
            .entries
            .iter()
            .map(|e| READING_BYTES + e.name.len() + e.unit.as_ref().map_or(0, String::len))
            .sum();
        BLOCK_BYTES + entries as u64
    }
}

/// What a block takes besides its entries, in bytes.
const BLOCK_BYTES: u64 = 64;

/// Puts readings into blocks, in order.
pub fn pack(readings: Vec<Recorded>) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut room = 0;
    for Recorded { sample, at } in readings {
        let bytes = sample.bytes();
        let entry = |after| Entry { after, name: sample.name, value: sample.value, unit: sample.unit };
        match blocks.last_mut() {
            Some(block)
                if bytes <= room
                    && let Some(after) = offset(&block.start, &at) =>
            {
                block.entries.push(entry(after));
                room -= bytes;
            }
            _ => {
                blocks.push(Block { start: at, entries: vec![entry(0)] });
                room = MAX_BYTES - bytes;
            }
        }
    }
    blocks
}

/// How far `at` is after `start`, where one number says it by both clocks: not
/// after the wall clock was set, or became trusted.
fn offset(start: &Moment, at: &Moment) -> Option<u64> {
    let after = at.monotonic.checked_sub(start.monotonic)?;
    let same = at.boot == start.boot
        && at.trusted == start.trusted
        // A millisecond either way is rounding.
        && (start.wall + after).abs_diff(at.wall) <= 1;
    same.then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str) -> Sample {
        Sample::new(name.to_owned(), 0.1, Some("%".to_owned())).unwrap()
    }

    fn at(monotonic: u64) -> Moment {
        Moment { boot: 3, monotonic, wall: 1_790_000_000_000 + monotonic, trusted: true }
    }

    #[test]
    fn bad_readings_are_told_what_is_wrong() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let refused = Sample::new("x".to_owned(), bad, None).unwrap_err();
            assert!(refused.to_string().contains("finite"), "{refused}");
        }
        for name in ["", "\n", "agent.uptime", "a\0b"] {
            assert!(Sample::new(name.to_owned(), 1.0, None).is_err(), "{name:?}");
        }
        assert!(Sample::new("x".to_owned(), 1.0, Some("not a unit".to_owned())).is_err());
        assert!(Sample::own("uptime", 1.0, Some("s")).is_ok());
    }

    #[test]
    fn the_largest_blocks_fit_the_store() {
        let long = "n".repeat(64);
        let extreme = Moment { boot: u32::MAX, monotonic: u64::MAX / 2, wall: u64::MAX / 2, trusted: true };
        for name in [long.as_str(), "n"] {
            let many = (0..1000)
                .map(|n| Recorded {
                    sample: Sample::new(name.to_owned(), 0.1, Some("u".repeat(16))).unwrap(),
                    at: Moment {
                        monotonic: extreme.monotonic + n * 100_000,
                        wall: extreme.wall + n * 100_000,
                        ..extreme
                    },
                })
                .collect();
            let blocks = pack(many);
            assert_eq!(blocks.iter().map(|b| b.entries.len()).sum::<usize>(), 1000);
            for block in blocks {
                let mut batch = farm_store::Batch::new();
                batch.put(&super::super::tables::BLOCKS, &u64::MAX, &block).unwrap();
                // What it counts for is what it takes, or a little more.
                assert!(batch.bytes() as u64 <= block.bytes() + 32, "{} of {}", block.bytes(), batch.bytes());
            }
        }
    }

    #[test]
    fn a_block_holds_one_view_of_time() {
        let set = Moment { wall: 1_790_000_900_000, ..at(30) };
        let moments =
            [at(10), at(20), set, Moment { trusted: false, ..at(40) }, Moment { boot: 4, ..at(50) }];
        let readings = moments.map(|at| Recorded { sample: sample("a"), at });
        let blocks = pack(readings.to_vec());
        assert_eq!(blocks.iter().map(|b| b.entries.len()).collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert_eq!(blocks[0].entries[1].after, 10);
        assert_eq!(blocks[1].start, set);
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let block = pack(vec![
            Recorded { sample: sample("a"), at: at(1) },
            Recorded { sample: sample("b"), at: at(5) },
        ]);
        let bytes = serde_json::to_vec(&block[0]).unwrap();
        assert_eq!(serde_json::from_slice::<Block>(&bytes).unwrap(), block[0]);
    }
}
