//! What an open, or a later recovery, found and did.

use std::{fmt, path::PathBuf};

/// What [`open`](crate::open) found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// The database was made new: first start, or the old one was moved aside.
    pub created: bool,
    /// The schema of the data. Lower than the one asked for: migrate, with
    /// [`Batch::migrated_to`](crate::Batch::migrated_to) in the last batch.
    pub schema: u32,
    /// The high-water mark: how many group commits this store has seen.
    pub commits: u64,
    /// Vital records that were restored from the mirror.
    pub vital_restored: usize,
    /// What the operator should know. Empty in good times, also after a power
    /// cut.
    pub alarms: Vec<Alarm>,
}

/// Something is or was wrong with what the disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alarm {
    /// The database could not be used and was moved aside; a new one was made,
    /// and the vital records restored from the mirror.
    Quarantined {
        /// Where it is now.
        to: PathBuf,
        /// What was wrong with it.
        why: String,
    },
    /// The database had no marker of a finished creation although something
    /// had been stored: it was moved aside, and the vital records restored.
    Unfinished {
        /// Where it is now.
        to: PathBuf,
    },
    /// There was no database although something had been stored; the vital
    /// records were restored.
    DatabaseMissing,
    /// The newest commits are gone from the database. Vital records were
    /// restored from the mirror, ordinary ones are lost.
    TailLost {
        /// The commit the mirror knows of.
        expected: u64,
        /// The newest one in the database.
        found: u64,
    },
    /// Vital records in the database were damaged.
    VitalDamaged {
        /// Restored from the mirror.
        restored: usize,
        /// In neither; they are lost.
        lost: usize,
    },
    /// The database was lost and no mirror could be read: the vital records
    /// are lost. Pair again, or put back the directory that was moved aside.
    VitalLost,
    /// A mirror file was damaged or missing; it was written anew.
    MirrorDamaged {
        /// Which one.
        file: PathBuf,
        /// What was wrong with it.
        why: String,
    },
    /// sled's settings file was damaged; it was written anew.
    SettingsDamaged,
    /// A value whose checksum does not hold; the record is left out of ranges.
    ValueDamaged {
        /// Its table.
        table: &'static str,
    },
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quarantined { to, why } => write!(
                f,
                "the database was damaged ({why}) and moved to {}; a new one was started, check the card",
                to.display()
            ),
            Self::Unfinished { to } => write!(
                f,
                "the database had lost its marker and was moved to {}; a new one was started, check the card",
                to.display()
            ),
            Self::DatabaseMissing => {
                write!(f, "the database is gone; a new one was started with the mirror's vital records")
            }
            Self::TailLost { expected, found } => write!(
                f,
                "the newest {} commits are gone from the database, check the card",
                expected.saturating_sub(*found)
            ),
            Self::VitalDamaged { restored, lost } => {
                write!(f, "vital records were damaged: {restored} restored, {lost} lost; check the card")
            }
            Self::VitalLost => write!(
                f,
                "identity and pairings are lost: database and mirror were both unreadable; pair again, or put back what was moved aside"
            ),
            Self::MirrorDamaged { file, why } => {
                write!(f, "{} was damaged ({why}) and was written anew, check the card", file.display())
            }
            Self::SettingsDamaged => {
                write!(f, "the database's settings file was damaged and was written anew, check the card")
            }
            Self::ValueDamaged { table } => {
                write!(f, "a record of table {table} is damaged on the disk, check the card")
            }
        }
    }
}

/// What a store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Batches acknowledged.
    pub batches: u64,
    /// Group commits: each one sled flush and one fsync of its file.
    pub groups: u64,
    /// Times the mirror was written.
    pub mirror_writes: u64,
    /// Estimate of the bytes handed to the disk for them, in whole 4 KiB
    /// pages, without the file system's own journal.
    pub bytes_written: u64,
    /// Times the database was dropped and opened again after a failure.
    pub reopens: u64,
    /// Damaged values met while reading.
    pub damaged_values: u64,
}
