//! The broker's state in one file: which farms may use it, which may not, and
//! the open enrollment tokens. Not the log of the farms, and no certificate.
//!
//! The first line names the format and the SHA-256 of the rest, which is JSON.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use farm_protocol::base32;
use farm_protocol::id::FarmId;
use farm_protocol::keys::PublicKey;
use farm_store::{Error, Store};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::core::enrollment::{FarmRecord, TokenHash, TokenRecord, presentable};
use crate::core::history::Past;
use crate::store::{self, Records, RecordsError};

/// What the first line begins with.
const FORMAT: &str = "farm-broker backup 1 sha256 ";

/// Largest backup, in bytes: 16,000 farms and 16,000 revoked ones are below 8 MB.
pub const MAX_BACKUP: u64 = 32 * 1024 * 1024;

/// What is kept, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// When, seconds since 1970.
    pub taken: u64,
    /// The enrolled farms.
    pub farms: Vec<KeptFarm>,
    /// The open tokens: their hashes, which nobody can enroll with.
    pub tokens: Vec<KeptToken>,
    /// The revoked farms.
    pub revoked: Vec<KeptRevoked>,
}

/// An enrolled farm in a backup; its id follows from its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptFarm {
    /// Its public key, in base 32.
    key: String,
    /// Its name.
    name: String,
    /// When it was enrolled, seconds since 1970.
    enrolled: u64,
    /// The hash of the token that it used, in base 32.
    token: String,
}

/// An open token in a backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptToken {
    /// Its hash, in base 32.
    hash: String,
    /// The name that it gives.
    name: Option<String>,
    /// Good until then, seconds since 1970.
    expires: u64,
}

/// A revoked farm in a backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptRevoked {
    /// Its id.
    farm: String,
    /// When, seconds since 1970.
    at: u64,
}

impl KeptFarm {
    /// As it is kept.
    pub fn of(record: &FarmRecord) -> Self {
        Self {
            key: base32::encode(record.key.as_bytes()),
            name: record.name.clone(),
            enrolled: record.enrolled,
            token: base32::encode(&record.token.0),
        }
    }

    /// As the broker has it.
    pub fn record(&self) -> Option<(FarmId, FarmRecord)> {
        let key = PublicKey::from_bytes(bytes(&self.key)?);
        let token = TokenHash(bytes(&self.token)?);
        let record = FarmRecord { key, name: presentable(&self.name), enrolled: self.enrolled, token };
        Some((FarmId::of(&key), record))
    }
}

impl KeptToken {
    /// As it is kept.
    pub fn of(hash: TokenHash, token: &TokenRecord) -> Self {
        Self { hash: base32::encode(&hash.0), name: token.name.clone(), expires: token.expires }
    }

    /// As the broker has it.
    pub fn record(&self) -> Option<(TokenHash, TokenRecord)> {
        let record = TokenRecord { name: self.name.clone(), expires: self.expires };
        Some((TokenHash(bytes(&self.hash)?), record))
    }
}

impl KeptRevoked {
    /// As it is kept.
    pub fn of(farm: FarmId, at: u64) -> Self {
        Self { farm: farm.to_string(), at }
    }

    /// As the broker has it.
    pub fn record(&self) -> Option<(FarmId, u64)> {
        Some((self.farm.parse().ok()?, self.at))
    }
}

fn bytes(text: &str) -> Option<[u8; 32]> {
    base32::decode(text)?.try_into().ok()
}

impl Backup {
    /// What is kept of these records.
    pub fn of<'a>(
        taken: u64,
        farms: impl Iterator<Item = &'a FarmRecord>,
        tokens: impl Iterator<Item = (TokenHash, &'a TokenRecord)>,
        revoked: impl Iterator<Item = (FarmId, u64)>,
    ) -> Self {
        Self {
            taken,
            farms: farms.map(KeptFarm::of).collect(),
            tokens: tokens.map(|(hash, token)| KeptToken::of(hash, token)).collect(),
            revoked: revoked.map(|(farm, at)| KeptRevoked::of(farm, at)).collect(),
        }
    }

    /// All that is in it, as the broker has it. `None` where something is not
    /// what it should be.
    pub fn records(&self) -> Option<Records> {
        Some(Records {
            farms: self.farms.iter().map(KeptFarm::record).collect::<Option<_>>()?,
            tokens: self.tokens.iter().map(KeptToken::record).collect::<Option<_>>()?,
            revoked: self.revoked.iter().map(KeptRevoked::record).collect::<Option<_>>()?,
            past: Past::default(),
            told: Vec::new(),
        })
    }
}

/// Why a backup was not written or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file can't be written.
    #[error("can't write the backup {}: {source}; nothing is left there that looks like one", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file can't be read.
    #[error("can't read the backup {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no whole backup.
    #[error("{} is no whole backup ({why}): nothing was restored; use another one", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The state can't be opened: a broker runs, or it is damaged.
    #[error("nothing was restored: {0}")]
    State(#[from] RecordsError),
    /// The state is not empty.
    #[error(
        "{} holds {farms} farms already: nothing was restored; name another directory with --state, or replace it with --force",
        .path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Its farms.
        farms: usize,
    },
    /// The store failed half way.
    #[error("the restore broke off: {0}; run it again with --force")]
    Store(#[from] Error),
    /// What was written is not what is there.
    #[error(
        "what was restored does not read back as it was written: run it again with --force, on another disk if it stays so"
    )]
    Unverified,
}

/// Writes a backup to a file: whole and durable, or not at all.
///
/// # Errors
/// [`BackupError::Write`].
pub fn write(path: &Path, backup: &Backup) -> Result<(), BackupError> {
    let new = path.with_added_extension("new");
    let written = write_at(&new, path, backup);
    written.map_err(|source| {
        // It may not be there.
        let _ = std::fs::remove_file(&new);
        BackupError::Write { path: path.to_owned(), source }
    })
}

fn write_at(new: &Path, path: &Path, backup: &Backup) -> io::Result<()> {
    let body = serde_json::to_vec(backup)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
    writeln!(file, "{FORMAT}{}", hash(&body))?;
    file.write_all(&body)?;
    file.sync_all()?;
    std::fs::rename(new, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads a backup and checks that it is whole.
///
/// # Errors
/// [`BackupError::Read`] or [`BackupError::Damaged`].
pub fn read(path: &Path) -> Result<Backup, BackupError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BACKUP + 1).read_to_end(&mut bytes));
    read.map_err(|source| BackupError::Read { path: path.to_owned(), source })?;
    let damaged = |why: &str| BackupError::Damaged { path: path.to_owned(), why: why.to_owned() };
    if bytes.len() as u64 > MAX_BACKUP {
        return Err(damaged("it is too large"));
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Err(damaged("its first line is missing"));
    };
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let Some(expected) = head.strip_prefix(FORMAT.as_bytes()) else {
        return Err(damaged("it begins otherwise"));
    };
    if expected != hash(body).as_bytes() {
        return Err(damaged("its checksum does not match"));
    }
    let backup: Backup = serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
    backup.records().ok_or_else(|| damaged("a key, a hash or an id in it is none"))?;
    Ok(backup)
}

fn hash(body: &[u8]) -> String {
    digest(&SHA256, body).as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Puts a backup into a state directory that no broker has open; with `force`
/// in the place of what is there. Blocks.
///
/// # Errors
/// [`BackupError`]; its text says what is there now.
pub fn restore(state: &Path, backup: &Backup, force: bool) -> Result<(), BackupError> {
    let (store, there) = store::open(state)?;
    let restored = restore_into(&store, &there, state, backup, force);
    store.close_blocking();
    restored
}

fn restore_into(
    store: &Store,
    there: &Records,
    state: &Path,
    backup: &Backup,
    force: bool,
) -> Result<(), BackupError> {
    let empty = there.farms.is_empty() && there.tokens.is_empty() && there.revoked.is_empty();
    if !empty && !force {
        return Err(BackupError::NotEmpty { path: state.to_owned(), farms: there.farms.len() });
    }
    let wanted = backup.records().ok_or(BackupError::Unverified)?;
    store::replace(store, there, &wanted)?;
    let there = store::records(store)?;
    let written = Backup::of(
        backup.taken,
        there.farms.iter().map(|(_, record)| record),
        there.tokens.iter().map(|(hash, token)| (*hash, token)),
        there.revoked.iter().copied(),
    );
    if sorted(written) == sorted(backup.clone()) { Ok(()) } else { Err(BackupError::Unverified) }
}

fn sorted(mut backup: Backup) -> Backup {
    backup.farms.sort();
    backup.tokens.sort();
    backup.revoked.sort();
    backup
}

#[cfg(test)]
mod tests {
    use farm_protocol::keys::DeviceKey;

    use super::*;

    fn backup(farms: u8) -> Backup {
        let key = |number: u8| DeviceKey::from_seed([number; 32]).unwrap().public();
        let farm = |number: u8| {
            let name = format!("Field {number}");
            FarmRecord { key: key(number), name, enrolled: 1000, token: TokenHash([number; 32]) }
        };
        let token = TokenRecord { name: None, expires: u64::from(u32::MAX) };
        let records: Vec<FarmRecord> = (1..=farms).map(farm).collect();
        let tokens = [(TokenHash([99; 32]), &token)].into_iter();
        let revoked = [(FarmId::of(&key(200)), 1500)].into_iter();
        Backup::of(2000, records.iter(), tokens, revoked)
    }

    #[test]
    fn a_backup_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (path, state) = (dir.path().join("backup"), dir.path().join("state"));
        let taken = backup(120);
        write(&path, &taken).unwrap();
        assert_eq!(read(&path).unwrap(), taken);
        restore(&state, &taken, false).unwrap();
        let (store, records) = store::open(&state).unwrap();
        assert_eq!((records.farms.len(), records.tokens.len(), records.revoked.len()), (120, 1, 1));

        // Not into a state that is in use, and not over another one by mistake.
        let error = restore(&state, &taken, true).unwrap_err().to_string();
        assert!(error.contains("nothing was restored") && error.contains("in use"), "{error}");
        store.close_blocking();
        let error = restore(&state, &taken, false).unwrap_err().to_string();
        assert!(error.contains("120 farms") && error.contains("--force"), "{error}");
        restore(&state, &backup(1), true).unwrap();
        let (store, records) = store::open(&state).unwrap();
        assert_eq!(records.farms.len(), 1, "the others are gone");
        store.close_blocking();
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        write(&path, &backup(3)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for (cut, why) in [(0, "first line"), (20, "first line"), (whole.len() - 1, "checksum")] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("nothing was restored"), "{cut}: {error}");
        }
        for at in [0, 10, FORMAT.len() + 3, 100, whole.len() / 2] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(read(&path).is_err(), "byte {at} was changed unnoticed");
        }
        let error = write(Path::new("/nonexistent/backup"), &backup(1)).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/backup"), "{error}");
    }
}
