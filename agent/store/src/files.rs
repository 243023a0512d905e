//! File operations that are durable when they return.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Directories and files hold keys: for their owner alone.
pub(crate) const PRIVATE_DIR: u32 = 0o700;
pub(crate) const PRIVATE_FILE: u32 = 0o600;

/// fsync of a file or a directory.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Creates a directory for the owner alone, with what is missing above it.
pub(crate) fn create_dirs(path: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    let mut next = Some(path);
    while let Some(dir) = next.filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
        missing.push(dir);
        next = dir.parent();
    }
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(PRIVATE_DIR).create(dir) {
            // Somebody else was faster.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            other => other?,
        }
        sync(&parent(dir))?;
    }
    Ok(())
}

/// Writes a file with these contents and fsyncs it; not yet its directory.
pub(crate) fn write_synced(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE_FILE).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Renames inside one directory and fsyncs the directory.
pub(crate) fn rename_synced(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync(&parent(to))
}

/// Whether there is something of that name, a dangling link included.
pub(crate) fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        // `a/b` where `a` is a file: there is no `a/b`.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(e),
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
