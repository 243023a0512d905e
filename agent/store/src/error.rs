//! What can go wrong, in words that say what to do.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use crate::{
    batch::MAX_BATCH_BYTES,
    table::{MAX_KEY_BYTES, MAX_VALUE_BYTES},
    vital::MAX_VITAL_BYTES,
};

/// Why a store could not be opened. Nothing was wiped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process (or another store in this one) has it open.
    #[error(
        "state directory {path} is in use by {}: stop that one, or choose another directory with --state",
        holder(.pid)
    )]
    InUse {
        /// The state directory.
        path: PathBuf,
        /// Process id of the holder, if it could be read.
        pid: Option<u32>,
    },
    /// The directory belongs to somebody else.
    #[error(
        "state directory {path} is owned by uid {owner}, not by uid {user}: run as uid {owner}, or choose another directory with --state"
    )]
    WrongOwner {
        /// The state directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user this process runs as.
        user: u32,
    },
    /// The directory is open to others and holds what is not a store's.
    #[error(
        "{path} is open to other users and holds other files: choose another directory with --state, or make it private yourself (chmod 700)"
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
    },
    /// The path is there but not a directory.
    #[error("{path} is not a directory: choose another one with --state")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// No space, or the quota is used up.
    #[error("no space left while {doing} {path}: free some space, then try again")]
    DiskFull {
        /// What was being done.
        doing: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The file system can't be written, often because it found errors.
    #[error(
        "the file system is read-only while {doing} {path}: look for file system errors in the kernel log, check the card, and mount it for writing"
    )]
    ReadOnly {
        /// What was being done.
        doing: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// Not allowed.
    #[error(
        "not permitted: {doing} {path}: give it to the user this runs as, or choose another directory with --state"
    )]
    NotPermitted {
        /// What was being done.
        doing: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The device failed to read or write. What is stored was left untouched.
    #[error("{doing} {path} failed: {source}; the data was left as it is, check the card")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Written by a newer version of the program.
    #[error(
        "{path} was written with schema {found}, this version knows up to {supported}: install the newer version again, or choose another directory with --state"
    )]
    NewerSchema {
        /// The state directory.
        path: PathBuf,
        /// The schema it has.
        found: u32,
        /// The newest this version knows.
        supported: u32,
    },
    /// The program ends with a panic, and would with the first damage.
    #[error(
        "this program is built with panic = \"abort\" and could not survive damage at {path}: call farm_store::restart_on_panic first, or build it with panic = \"unwind\""
    )]
    PanicsEndTheProgram {
        /// The state directory.
        path: PathBuf,
    },
    /// Written by another version of the database engine.
    #[error("{path} was written by another database version: {why}; install the version that wrote it")]
    OtherEngine {
        /// The database directory.
        path: PathBuf,
        /// What the engine said.
        why: String,
    },
}

impl OpenError {
    /// Sorts an I/O error by what the operator can do about it.
    pub(crate) fn from_io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DiskFull { doing, path },
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { doing, path },
            ErrorKind::PermissionDenied => Self::NotPermitted { doing, path },
            _ => Self::Io { doing, path, source },
        }
    }

    /// Whether trying again later may work without anybody changing the
    /// configuration: wait and report, never give up.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::DiskFull { .. } | Self::ReadOnly { .. } | Self::Io { .. })
    }
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("another process (pid {pid})"))
}

/// Adds to an I/O error what was being done, on what.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, OpenError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, OpenError> {
        self.map_err(|e| OpenError::from_io(doing, path, e))
    }
}

/// Why a read or a commit failed on an open store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The value is longer than a value may be.
    #[error("a value for table {table} takes {bytes} bytes, at most {MAX_VALUE_BYTES} are allowed: split it")]
    ValueTooLarge {
        /// The table.
        table: &'static str,
        /// Its encoded length.
        bytes: usize,
    },
    /// The key is longer than a key may be.
    #[error("a key of table {table} takes {bytes} bytes, at most {MAX_KEY_BYTES} are allowed")]
    KeyTooLarge {
        /// The table.
        table: &'static str,
        /// Its encoded length, the table's name included.
        bytes: usize,
    },
    /// The batch would be larger than a batch may be.
    #[error(
        "with this write to table {table} the batch takes {bytes} bytes, at most {MAX_BATCH_BYTES} are allowed: commit in parts"
    )]
    BatchTooLarge {
        /// The table.
        table: &'static str,
        /// What the batch would take.
        bytes: usize,
    },
    /// The vital tables together would be larger than they may be.
    #[error(
        "the vital tables would take {bytes} bytes, at most {MAX_VITAL_BYTES} are allowed: remove records first"
    )]
    VitalFull {
        /// What they would take.
        bytes: usize,
    },
    /// The value can't be written as CBOR.
    #[error("a value for table {table} can't be encoded: {why}")]
    Encode {
        /// The table.
        table: &'static str,
        /// What the encoder said.
        why: String,
    },
    /// What is stored is whole, but not of the type it is read as.
    #[error("a record of table {table} is not what this version expects: {why}")]
    Decode {
        /// The table.
        table: &'static str,
        /// What the decoder said.
        why: String,
    },
    /// A stored value whose checksum does not hold.
    #[error(
        "a record of table {table} is damaged on the disk: check the card; writing or removing the record clears it"
    )]
    Damaged {
        /// The table.
        table: &'static str,
    },
    /// The database can't be used at the moment; the store keeps trying to
    /// open it again.
    #[error("the store is not available at the moment: {why}")]
    Unavailable {
        /// Why, and what to do.
        why: String,
    },
    /// This commit failed: it may or may not be there after the database has
    /// been opened again. Committing it again is safe.
    #[error("the commit was not acknowledged: {why}")]
    NotCommitted {
        /// Why.
        why: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_path_and_the_way_out() {
        let path = PathBuf::from("/var/lib/farm");
        let text = OpenError::InUse { path: path.clone(), pid: Some(7) }.to_string();
        assert!(text.contains("/var/lib/farm") && text.contains("pid 7") && text.contains("--state"));
        let text = OpenError::WrongOwner { path: path.clone(), owner: 5, user: 6 }.to_string();
        assert!(text.contains("owned by uid 5") && text.contains("run as uid 5"));
    }

    #[test]
    fn errors_are_sorted_by_what_to_do() {
        // ENOSPC, EDQUOT, EROFS, EACCES, EIO as the kernel numbers them.
        let sorted =
            |errno| OpenError::from_io("writing", Path::new("/x"), io::Error::from_raw_os_error(errno));
        assert!(matches!(sorted(28), OpenError::DiskFull { .. }));
        assert!(matches!(sorted(122), OpenError::DiskFull { .. }));
        assert!(matches!(sorted(30), OpenError::ReadOnly { .. }));
        assert!(matches!(sorted(13), OpenError::NotPermitted { .. }));
        assert!(matches!(sorted(5), OpenError::Io { .. }));
        assert!(sorted(5).may_pass() && sorted(28).may_pass() && !sorted(13).may_pass());
    }
}
