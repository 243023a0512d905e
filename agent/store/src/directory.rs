//! The state directory itself: private, ours, and ours alone.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Doing, OpenError},
    files,
    layout::Layout,
};

/// Between two looks at a lock that this process itself is about to release.
pub(crate) const LOCK_POLL: Duration = Duration::from_millis(10);

/// A state directory held by this process. Dropped, it is free for others.
#[derive(Debug)]
pub(crate) struct Claim {
    layout: Layout,
    /// flock is released when this is closed, also by kill -9.
    lock: File,
}

impl Claim {
    /// Takes the directory, creating it if it is not there. When a store of
    /// this very process holds it, waits up to `wait` for it to let go.
    pub(crate) fn take(path: &Path, wait: Duration) -> Result<Self, OpenError> {
        let layout = prepare(path)?;
        let lock = lock(&layout, wait)?;
        let claim = Claim { layout, lock };
        claim.probe()?;
        Ok(claim)
    }

    /// Whether the disk takes and keeps anything at the moment. Asked before the
    /// database is opened: an open that fails half-way on a dead disk costs
    /// memory and wear, and sled may panic in it.
    ///
    /// Says who holds the directory, always at the same length and in place:
    /// works on a full disk.
    pub(crate) fn probe(&self) -> Result<(), OpenError> {
        let path = self.layout.lock();
        let text = format!("{:>10}\n", std::process::id());
        self.lock.write_all_at(text.as_bytes(), 0).doing("writing", &path)?;
        self.lock.sync_all().doing("syncing", &path)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }
}

fn prepare(path: &Path) -> Result<Layout, OpenError> {
    files::create_dirs(path).doing("creating", path)?;
    let metadata = fs::metadata(path).doing("looking at", path)?;
    if !metadata.is_dir() {
        return Err(OpenError::NotADirectory { path: path.to_path_buf() });
    }
    let user = nix::unistd::geteuid().as_raw();
    check_owner(path, metadata.uid(), user)?;
    if metadata.mode() & 0o077 != 0 {
        // systemd's StateDirectory= is 0755 unless told otherwise. But somebody
        // may have said --state /tmp.
        let layout = Layout::new(path.to_path_buf());
        let mut is_ours = fs::read_dir(path).doing("reading", path)?.next().is_none();
        for own in [layout.lock(), layout.store(), layout.mirror()] {
            is_ours |= files::is_there(&own).doing("looking at", &own)?;
        }
        if !is_ours {
            return Err(OpenError::NotPrivate { path: path.to_path_buf() });
        }
        tracing::info!(path = %path.display(), "state directory was open to others, now private");
        fs::set_permissions(path, Permissions::from_mode(files::PRIVATE_DIR))
            .doing("making private", path)?;
    }
    // sled compares path strings, so it gets the one true path.
    let root = fs::canonicalize(path).doing("looking at", path)?;
    Ok(Layout::new(root))
}

/// Not even root may use somebody else's directory: the files it made there
/// could not be read by their owner afterwards.
fn check_owner(path: &Path, owner: u32, user: u32) -> Result<(), OpenError> {
    if owner == user {
        return Ok(());
    }
    Err(OpenError::WrongOwner { path: path.to_path_buf(), owner, user })
}

fn lock(layout: &Layout, wait: Duration) -> Result<File, OpenError> {
    let path = layout.lock();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .doing("opening", &path)?;
    let deadline = Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(e)) => return Err(OpenError::from_io("locking", &path, e)),
            Err(TryLockError::WouldBlock) => {}
        }
        let pid = read_pid(&mut file);
        // A store dropped without `close` lets go when its writer has ended;
        // another process is not going to.
        if pid != Some(std::process::id()) || Instant::now() >= deadline {
            return Err(OpenError::InUse { path: layout.root().to_path_buf(), pid });
        }
        thread::sleep(LOCK_POLL);
    }
    Ok(file)
}

/// Who holds the lock; only for the message, so unreadable is `None`.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_private_and_made_private_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/state");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        drop(Claim::take(&path, Duration::ZERO).unwrap());
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        drop(Claim::take(&path, Duration::ZERO).unwrap());
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_directory_for_other_things_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "").unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let error = Claim::take(dir.path(), Duration::ZERO).unwrap_err();
        assert!(matches!(error, OpenError::NotPrivate { .. }), "{error}");
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o755);
        // Made private by its owner, it may be used.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        Claim::take(dir.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn somebody_elses_directory_is_refused() {
        assert!(check_owner(Path::new("/s"), 1000, 1000).is_ok());
        for user in [0, 1001] {
            let error = check_owner(Path::new("/s"), 1000, user).unwrap_err();
            assert!(matches!(error, OpenError::WrongOwner { owner: 1000, .. }));
        }
    }

    #[test]
    fn a_second_claim_waits_for_its_own_process_and_then_says_who() {
        let dir = tempfile::tempdir().unwrap();
        let first = Claim::take(dir.path(), Duration::ZERO).unwrap();
        let error = Claim::take(dir.path(), Duration::from_millis(30)).unwrap_err();
        assert!(
            matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        drop(first);
        Claim::take(dir.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn another_process_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(dir.path(), Duration::ZERO).unwrap();
        // As if another process had written it.
        fs::write(claim.layout().lock(), "         1\n").unwrap();
        let started = Instant::now();
        let error = Claim::take(dir.path(), Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, OpenError::InUse { pid: Some(1), .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_file_is_not_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        let error = Claim::take(&path, Duration::ZERO).unwrap_err();
        assert!(matches!(error, OpenError::NotADirectory { .. }), "{error}");
    }
}
