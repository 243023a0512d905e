//! Slots: programs that share one device's key each take one, with a lock
//! file, and count their starts in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use farm_protocol::epoch::Epoch;
use farm_protocol::id::Slot;
use nix::fcntl::{Flock, FlockArg};

use crate::client::{ClientError, replace};

/// A slot, held until dropped (or until the program dies).
#[derive(Debug)]
pub(crate) struct HeldSlot {
    directory: PathBuf,
    slot: Slot,
    start: Epoch,
    /// This start has counted past somebody else's word once.
    jumped: bool,
    _lock: Flock<File>,
}

impl HeldSlot {
    /// Takes the lowest free slot and counts this start durably.
    pub(crate) fn take(directory: &Path) -> Result<Self, ClientError> {
        Self::take_after(directory, Epoch::default())
    }

    /// The same, counting on `after` what this program used in a slot that it
    /// lost to another machine with a copy of the key: its epochs only grow.
    pub(crate) fn take_after(directory: &Path, after: Epoch) -> Result<Self, ClientError> {
        for slot in Slot::all() {
            let path = directory.join(format!("slot-{}.lock", slot.number()));
            let io = |source| ClientError::Io { path: path.clone(), source };
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(io)?;
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            let starts = read_starts(directory, slot).map_err(io)?.max(after.starts()) + 1;
            let mut held = Self {
                directory: directory.to_owned(),
                slot,
                start: Epoch::default(),
                jumped: false,
                _lock: lock,
            };
            held.count(starts).map_err(io)?;
            return Ok(held);
        }
        Err(ClientError::NoSlot(Slot::COUNT, directory.to_owned()))
    }

    /// Where the slots are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// The first epoch of this start.
    pub(crate) fn start(&self) -> Epoch {
        self.start
    }

    /// Counts past an epoch that the broker knows of us: our state was lost
    /// or restored from a backup. Once per start and not absurdly far, since
    /// nothing proves the broker's word, and the count is finite.
    pub(crate) fn jump_past(&mut self, newest: Epoch) -> io::Result<Epoch> {
        if std::mem::replace(&mut self.jumped, true) || newest.is_absurd_after(self.start) {
            return Err(io::Error::other(
                "the broker claims a newer start of this device that is not to be believed: does another one use its key?",
            ));
        }
        self.count(newest.starts() + 1)?;
        Ok(self.start)
    }

    fn count(&mut self, starts: u64) -> io::Result<()> {
        replace(&self.directory, &file_name(self.slot), starts.to_string().as_bytes())?;
        self.start = Epoch::of_start(starts);
        Ok(())
    }
}

fn file_name(slot: Slot) -> String {
    format!("slot-{}.starts", slot.number())
}

/// An unreadable count is 0: whoever knows better says so, and we jump.
fn read_starts(directory: &Path, slot: Slot) -> io::Result<u64> {
    match File::open(directory.join(file_name(slot))) {
        Ok(file) => {
            let mut text = String::new();
            file.take(32).read_to_string(&mut text)?;
            Ok(text.trim().parse().unwrap_or(0))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_programs_take_two_slots_and_a_restart_takes_its_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let first = HeldSlot::take(dir.path()).unwrap();
        let second = HeldSlot::take(dir.path()).unwrap();
        assert_eq!((first.slot().number(), second.slot().number()), (0, 1));
        let before = first.start();
        drop(first);
        let again = HeldSlot::take(dir.path()).unwrap();
        assert_eq!(again.slot().number(), 0);
        assert!(again.start() > before);
    }

    #[test]
    fn the_brokers_word_moves_the_count_once_and_not_far() {
        let dir = tempfile::tempdir().unwrap();
        let mut held = HeldSlot::take(dir.path()).unwrap();
        assert!(held.jump_past(Epoch::MAX).is_err());
        drop(held);
        let mut held = HeldSlot::take(dir.path()).unwrap();
        assert_eq!(held.jump_past(Epoch::of_start(7)).unwrap(), Epoch::of_start(8));
        assert!(held.jump_past(Epoch::of_start(9)).is_err());
    }

    #[test]
    fn a_program_that_moves_counts_on() {
        let dir = tempfile::tempdir().unwrap();
        let lost = HeldSlot::take(dir.path()).unwrap();
        let next = HeldSlot::take_after(dir.path(), Epoch::of_start(7).next()).unwrap();
        assert_eq!((next.slot().number(), next.start()), (1, Epoch::of_start(8)));
        drop(lost);
    }

    #[test]
    fn the_ninth_program_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let held: Vec<_> = (0..Slot::COUNT).map(|_| HeldSlot::take(dir.path()).unwrap()).collect();
        assert!(matches!(HeldSlot::take(dir.path()), Err(ClientError::NoSlot(..))));
        drop(held);
    }
}
