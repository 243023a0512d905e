//! Files of the card and of `/run`, written so that a power cut harms nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::unistd::User;

/// The agent's user, where it has one.
const AGENT: &str = "farm-agent";

/// Reads at most `most` bytes and one.
///
/// # Errors
/// What the system says.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// Replaces a file: readers see the old one or the new one, whole.
///
/// # Errors
/// What the system says.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Lets the agent read a file that nobody else may.
pub(super) fn for_agent(path: &Path) {
    if let Ok(Some(user)) = User::from_name(AGENT)
        && let Err(error) = chown(path, None, Some(user.gid.as_raw()))
    {
        tracing::warn!(%error, path = %path.display(), "the agent may not be able to read this");
    }
}

/// Writes files of the boot partition in place, and mounts it for writing only
/// for so long.
///
/// # Errors
/// What the system says.
pub(super) fn write_boot(boot: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let _writable = Writable::make(boot)?;
    for (name, content) in files {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(boot.join(name))?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(content)?;
        file.sync_all()?;
    }
    Ok(())
}

/// A mount point that can be written until this is dropped.
struct Writable<'a>(Option<&'a Path>);

impl<'a> Writable<'a> {
    fn make(path: &'a Path) -> io::Result<Self> {
        // In a test it is a plain directory.
        let parent = path.parent().unwrap_or(path);
        if fs::metadata(path)?.dev() == fs::metadata(parent)?.dev() {
            return Ok(Self(None));
        }
        remount(path, MsFlags::empty())?;
        Ok(Self(Some(path)))
    }
}

impl Drop for Writable<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0
            && let Err(error) = remount(path, MsFlags::MS_RDONLY)
        {
            tracing::warn!(%error, "the boot partition stays writable");
        }
    }
}

fn remount(path: &Path, flags: MsFlags) -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOATIME | flags;
    Ok(mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?)
}
