//! sled's grip on its file, and how it is taken away.
//!
//! sled's last handle writes what it has, fsyncs, and panics where that fails:
//! on a card that has just failed it is most likely to. And it keeps its file,
//! with the lock on it, until all its threads have let go. So nobody waits for
//! that: before the handle is dropped, its descriptor is made to mean a file in
//! memory, in which writing and syncing succeed and are lost. Nothing is lost
//! by it that was acknowledged: that had reached the disk before.
#![allow(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{IntoRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
};

use nix::{
    fcntl::OFlag,
    sys::memfd::{MFdFlags, memfd_create},
    unistd::dup3_raw,
};

/// What sled holds, and what it gets instead.
#[derive(Debug)]
pub(crate) struct Grip {
    descriptor: RawFd,
    /// Made before it is needed: a process that has run out of descriptors must
    /// be able to let go.
    nowhere: OwnedFd,
}

impl Grip {
    /// Finds the descriptor of this process by which `file` is locked: sled's.
    /// `file` is another one of the same file.
    pub(crate) fn on(file: &File) -> io::Result<Self> {
        let nowhere = memfd_create(c"farm-store", MFdFlags::MFD_CLOEXEC)?;
        let wanted = file.metadata()?;
        for entry in fs::read_dir("/proc/self/fd")? {
            let name = entry?.file_name();
            let Some(descriptor) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
                continue;
            };
            // Others come and go meanwhile.
            let Ok(found) = fs::metadata(format!("/proc/self/fd/{descriptor}")) else { continue };
            if (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()) && holds_lock(descriptor) {
                return Ok(Grip { descriptor, nowhere });
            }
        }
        Err(io::Error::other("the database is open and none of the descriptors is its lock"))
    }

    /// Takes the file away, and with it the lock. What is being written or
    /// synced at this moment ends first, as far as the lock is concerned: the
    /// kernel gives it up with the last use of the file.
    ///
    /// Only while sled's handle lives: afterwards the number is somebody else's.
    pub(crate) fn loosen(self, _held: &sled::Db) -> io::Result<()> {
        // SAFETY: the number is that of a descriptor which sled owns and keeps
        // open as long as `_held` lives. It stays open and sled's: what it means
        // changes in one step, and sled does nothing with it that is unsound on
        // another file (it maps nothing). The value that is given back owns the
        // same number once more, and is given up at once.
        let swapped = unsafe { dup3_raw(&self.nowhere, self.descriptor, OFlag::O_CLOEXEC) }?;
        let _ours_no_more = swapped.into_raw_fd();
        Ok(())
    }
}

fn holds_lock(descriptor: RawFd) -> bool {
    fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"))
        .is_ok_and(|text| text.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK")))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn open(path: &std::path::Path) -> sled::Result<sled::Db> {
        sled::Config::new().path(path).flush_every_ms(None).open()
    }

    #[test]
    fn the_lock_is_gone_at_once_and_nothing_more_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path()).unwrap();
        db.insert("kept", "1").unwrap();
        db.flush().unwrap();
        let file = File::open(dir.path().join("db")).unwrap();
        let before = fs::read(dir.path().join("db")).unwrap();
        db.insert("lost", "1").unwrap();
        Grip::on(&file).unwrap().loosen(&db).unwrap();

        // Both at once, which the lock would forbid.
        let next = open(dir.path()).unwrap();
        db.flush().unwrap();
        drop(db);
        assert_eq!(fs::read(dir.path().join("db")).unwrap()[..before.len()], before);
        assert!(next.contains_key("kept").unwrap() && !next.contains_key("lost").unwrap());
    }

    #[test]
    fn of_several_databases_and_descriptors_the_right_one_is_found() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let dbs = dirs.each_ref().map(|dir| open(dir.path()).unwrap());
        let files = dirs.each_ref().map(|dir| File::open(dir.path().join("db")).unwrap());
        let _another = files[0].try_clone().unwrap();
        let grips = files.each_ref().map(|file| Grip::on(file).unwrap());
        assert!(files.iter().all(|file| grips.iter().all(|grip| grip.descriptor != file.as_raw_fd())));
        let [first, _second] = grips;
        first.loosen(&dbs[0]).unwrap();
        assert!(Grip::on(&files[0]).is_err(), "nobody holds it any more");
        assert!(Grip::on(&files[1]).is_ok());
    }
}
