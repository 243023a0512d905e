//! Moving a directory aside instead of wiping it, and forgetting old ones.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{files, layout::Layout};

/// How many of each kind are kept. A card that damages a database damages the
/// next: without a bound the quarantines would fill it. Three are enough to
/// see a pattern.
pub(crate) const KEEP_ASIDE: usize = 3;

/// Why something is moved aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aside {
    /// Damaged.
    Corrupt,
    /// Its creation never finished.
    Unfinished,
}

impl Aside {
    const ALL: [Aside; 2] = [Aside::Corrupt, Aside::Unfinished];

    fn prefix(self) -> &'static str {
        match self {
            Aside::Corrupt => "corrupt-",
            Aside::Unfinished => "unfinished-",
        }
    }
}

/// Renames sled's directory to `<kind>-<time>`, durably. `now` is in seconds
/// since 1970; where it is not after the newest one kept (no clock at boot is
/// normal), the next free second is taken so that names stay in order.
pub(crate) fn move_store(layout: &Layout, kind: Aside, now: u64) -> io::Result<PathBuf> {
    let newest = kept(layout, kind)?.last().map(|(time, _)| *time);
    let time = newest.map_or(now, |newest| now.max(newest.saturating_add(1)));
    let to = layout.root().join(format!("{}{time:010}", kind.prefix()));
    files::rename_synced(&layout.store(), &to)?;
    Ok(to)
}

/// Removes all but the newest [`KEEP_ASIDE`] of each kind.
pub(crate) fn prune(layout: &Layout) -> io::Result<()> {
    for kind in Aside::ALL {
        let kept = kept(layout, kind)?;
        let old = kept.len().saturating_sub(KEEP_ASIDE);
        for (_, path) in &kept[..old] {
            tracing::info!(path = %path.display(), "removing an old quarantine");
            remove(path)?;
        }
    }
    Ok(())
}

/// What is aside, oldest first.
fn kept(layout: &Layout, kind: Aside) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(layout.root())? {
        let entry = entry?;
        let name = entry.file_name();
        let time = name
            .to_str()
            .and_then(|name| name.strip_prefix(kind.prefix()))
            .and_then(|time| time.parse().ok());
        if let Some(time) = time {
            found.push((time, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_order_when_the_clock_does_not_and_the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_path_buf());
        for (i, now) in [500, 0, 7, 9_000_000_000, 3].into_iter().enumerate() {
            fs::create_dir(layout.store()).unwrap();
            fs::write(layout.store().join("db"), i.to_string()).unwrap();
            move_store(&layout, Aside::Corrupt, now).unwrap();
        }
        fs::create_dir(layout.store()).unwrap();
        move_store(&layout, Aside::Unfinished, 1).unwrap();
        fs::write(dir.path().join("corrupt-notes"), "the operator's own").unwrap();
        prune(&layout).unwrap();
        let left: Vec<String> = kept(&layout, Aside::Corrupt)
            .unwrap()
            .iter()
            .map(|(_, path)| fs::read_to_string(path.join("db")).unwrap())
            .collect();
        assert_eq!(left, ["2", "3", "4"]);
        assert_eq!(kept(&layout, Aside::Unfinished).unwrap().len(), 1);
        assert!(dir.path().join("corrupt-notes").exists());
    }
}
