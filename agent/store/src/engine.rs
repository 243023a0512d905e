//! sled, and nothing but sled: how it is opened, written durably and read.
//! Every call is contained: some damage makes it panic.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    ops::{Bound, ControlFlow},
    os::unix::fs::OpenOptionsExt,
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::{
    backwards,
    batch::Writes,
    directory::LOCK_POLL,
    error::{Doing, OpenError},
    failure::{Failure, contain},
    files,
    grip::Grip,
    layout::Layout,
    slack::LazyTimers,
    table::RawRange,
};

/// Memory for pages, in bytes. The live records of an agent are below it.
const CACHE_BYTES: u64 = 4 << 20;

/// Size of a log segment, in bytes. Written into the database when it is made:
/// never change it. The limit on values is derived from it.
const SEGMENT_BYTES: usize = 512 << 10;

/// The disk writes whole pages of this size, in bytes.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Each frees up to 512 replaced pages: 130,000, more than fit into memory.
const EPOCHS: usize = 256;

/// How careful an open has to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Caution {
    /// After a failed fsync the kernel marks pages clean that never reached
    /// the disk: read the file from the disk, not from the page cache.
    pub(crate) distrust_cache: bool,
    /// After damage met while reading: look at every record, since an open
    /// alone would find nothing and nothing would change.
    pub(crate) read_everything: bool,
}

/// An open database.
#[derive(Debug)]
pub(crate) struct Engine {
    /// `None` only while dropping.
    db: Option<sled::Db>,
    /// The same file sled writes: fsync works on the file, not the descriptor.
    file: File,
    /// `None` where it could not be found, and while dropping.
    grip: Option<Grip>,
}

impl Engine {
    /// Opens sled in `layout.store()`. Whoever held it a moment ago in this
    /// process lets go asynchronously: waits up to `wait` for that.
    pub(crate) fn open(layout: &Layout, wait: Duration, caution: Caution) -> Result<Self, Failure> {
        remove_torn_snapshots(layout)?;
        if caution.distrust_cache {
            forget_cached(layout)?;
        }
        // Before sled: what can fail must not be between it and its grip.
        files::create_dirs(&layout.store())?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(files::PRIVATE_FILE)
            .open(layout.db())?;
        let deadline = Instant::now() + wait;
        let db = loop {
            let opened = open_sled(layout);
            match opened {
                Err(Failure::Busy) if Instant::now() < deadline => thread::sleep(LOCK_POLL),
                other => break other?,
            }
        };
        let grip = Grip::on(&file).inspect_err(|error| {
            tracing::warn!(%error, "the database will close by itself: that fails where the card does");
        });
        let engine = Engine { db: Some(db), file, grip: grip.ok() };
        // By then at the latest sled has started its threads.
        let _lazy = LazyTimers::new();
        engine.flush()?;
        Ok(engine)
    }

    /// Makes everything an open may have written durable, the names included,
    /// and then, if it is not there, the marker that says so.
    pub(crate) fn settle(&self, layout: &Layout) -> Result<(), OpenError> {
        let store = layout.store();
        self.flush()
            .map_err(|failure| match failure {
                Failure::Io(e) => e,
                other => io::Error::new(ErrorKind::InvalidData, other.text()),
            })
            .doing("flushing", &store)?;
        for path in [layout.db(), layout.conf(), store.join("blobs")] {
            files::sync(&path).doing("syncing", &path)?;
        }
        for path in [store.as_path(), layout.root()] {
            files::sync(path).doing("syncing", path)?;
        }
        let marker = layout.marker();
        if !files::is_there(&marker).doing("looking at", &marker)? {
            files::write_synced(&marker, b"complete\n").doing("writing", &marker)?;
            files::sync(&store).doing("syncing", &store)?;
        }
        Ok(())
    }

    /// Makes these writes durable, and gives an estimate of the bytes written.
    /// After an error: drop this and open anew.
    ///
    /// `atomic`: after a power cut all of them are there or none. Otherwise
    /// any number of them, in key order: that costs half, since sled writes
    /// the head of an atomic batch by itself and waits for it.
    pub(crate) fn commit(&self, writes: &Writes, atomic: bool) -> Result<u64, Failure> {
        contain(|| {
            let db = self.db()?;
            let before = log_end(db);
            if atomic {
                db.apply_batch(batch_of(writes))?;
            } else {
                for (raw, stored) in writes {
                    match stored {
                        Some(stored) => db.insert(raw, stored.as_slice())?,
                        None => db.remove(raw)?,
                    };
                }
            }
            db.flush()?;
            // `flush` is pwrite and sync_file_range: no barrier, no metadata.
            self.file.sync_all()?;
            Ok((pages(before, log_end(db)) + u64::from(atomic)) * PAGE_BYTES)
        })
    }

    pub(crate) fn get(&self, raw: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        contain(|| Ok(self.db()?.get(raw)?.map(|stored| stored.to_vec())))
    }

    /// Shows records of a range to `visitor`, in order or backwards, until it
    /// breaks. Backwards each record takes some eighty seeks: for few.
    pub(crate) fn visit(
        &self,
        range: &RawRange,
        backwards: bool,
        mut visitor: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        if range.is_empty() {
            return Ok(());
        }
        contain(|| {
            let db = self.db()?;
            let records = |range: &RawRange| db.range::<Vec<u8>, _>((range.low.clone(), range.high.clone()));
            if !backwards {
                for entry in records(range) {
                    let (raw, stored) = entry?;
                    if visitor(&raw, &stored).is_break() {
                        break;
                    }
                }
                return Ok(());
            }
            let mut left = range.clone();
            while let Some((raw, stored)) = backwards::last(&left, |range| {
                if range.is_empty() { Ok(None) } else { records(range).next().transpose() }
            })? {
                if visitor(&raw, &stored).is_break() {
                    break;
                }
                left.high = Bound::Excluded(raw.to_vec());
            }
            Ok(())
        })
    }

    fn flush(&self) -> Result<(), Failure> {
        contain(|| {
            self.db()?.flush()?;
            Ok(())
        })
    }

    /// Closes the database, with what it has written besides commits. After an
    /// error: do not trust what the kernel has in its cache.
    pub(crate) fn close(self) -> Result<(), Failure> {
        self.flush()?;
        self.file.sync_all()?;
        Ok(())
    }

    fn db(&self) -> Result<&sled::Db, Failure> {
        self.db.as_ref().ok_or(Failure::Busy)
    }
}

impl Drop for Engine {
    /// Lets go of the database as a power cut would, and never touches the disk:
    /// what was acknowledged is on it, and it may just have failed.
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if let Some(Err(error)) = self.grip.take().map(|grip| grip.loosen(&db)) {
            tracing::warn!(%error, "the database's file could not be taken from it");
        }
        let dropped = contain(|| {
            drop(db);
            Ok(())
        });
        if let Err(failure) = dropped {
            tracing::warn!(why = failure.text(), "the database failed while closing");
        }
        free_replaced_pages();
    }
}

/// sled leaves pages that it has replaced to the epochs of crossbeam, which
/// free them while others are replaced: when no more are, megabytes stay.
fn free_replaced_pages() {
    for _ in 0..EPOCHS {
        crossbeam_epoch::pin().flush();
    }
}

fn open_sled(layout: &Layout) -> Result<sled::Db, Failure> {
    let _lazy = LazyTimers::new();
    contain(|| {
        sled::Config::new()
            .path(layout.store())
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(None)
            .segment_size(SEGMENT_BYTES)
            .open()
            .map_err(|e| match e {
                // Settings are whole here (see `repair_settings`).
                sled::Error::Unsupported(why) => Failure::OtherEngine(why),
                other => Failure::from(other),
            })
    })
}

/// Waits up to `wait` until sled has let go of its file; whether it has.
pub(crate) fn wait_released(layout: &Layout, wait: Duration) -> bool {
    let deadline = Instant::now() + wait;
    loop {
        match File::open(layout.db()).map(|file| file.try_lock()) {
            Ok(Err(fs::TryLockError::WouldBlock)) => {}
            _ => return true,
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(LOCK_POLL);
    }
}

/// sled's settings are three constants of ours behind a checksum that it does
/// not insist on. Damaged they would cost the database, or worse, be believed:
/// remove them, sled writes them anew. Whether that was needed.
pub(crate) fn repair_settings(layout: &Layout) -> io::Result<bool> {
    let contents = match fs::read(layout.conf()) {
        Ok(contents) => contents,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let whole = contents
        .split_last_chunk::<4>()
        .is_some_and(|(settings, sum)| crc32fast::hash(settings) == u32::from_le_bytes(*sum));
    if whole {
        return Ok(false);
    }
    fs::remove_file(layout.conf())?;
    Ok(true)
}

/// A power cut while sled writes its snapshot leaves a torn file, which it
/// then takes for the newest one and refuses to open for ever.
fn remove_torn_snapshots(layout: &Layout) -> io::Result<()> {
    let entries = match fs::read_dir(layout.store()) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn forget_cached(layout: &Layout) -> io::Result<()> {
    let file = match File::open(layout.db()) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

fn batch_of(writes: &Writes) -> sled::Batch {
    let mut batch = sled::Batch::default();
    for (raw, stored) in writes {
        match stored {
            Some(stored) => batch.insert(raw.as_slice(), stored.as_slice()),
            None => batch.remove(raw.as_slice()),
        }
    }
    batch
}

/// Where sled's log ends: the bytes ever written to it.
fn log_end(db: &sled::Db) -> u64 {
    u64::try_from(db.context.pagecache.log.stable_offset()).unwrap_or(0)
}

/// Pages that a write from `before` to `after` touches.
fn pages(before: u64, after: u64) -> u64 {
    if after <= before {
        return 0;
    }
    (after - 1) / PAGE_BYTES - before / PAGE_BYTES + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_database_is_busy_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_path_buf());
        let open = |wait| Engine::open(&layout, wait, Caution::default());
        let first = open(Duration::ZERO).unwrap();
        assert!(matches!(open(Duration::ZERO), Err(Failure::Busy)));
        assert!(!wait_released(&layout, Duration::ZERO));
        drop(first);
        assert!(wait_released(&layout, Duration::from_secs(5)));
        open(Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn the_pool_sleeps_and_this_thread_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_path_buf());
        let own = nix::sys::prctl::get_timerslack().unwrap();
        let engine = Engine::open(&layout, Duration::ZERO, Caution::default()).unwrap();
        assert_eq!(nix::sys::prctl::get_timerslack().unwrap(), own);
        let slacks: Vec<u64> = fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| {
                // The ones that stay; others may just be ending.
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                (0..7).any(|n| name.trim() == format!("sled-io-{n}"))
            })
            .map(|entry| {
                let id = entry.file_name().into_string().unwrap();
                let slack = fs::read_to_string(format!("/proc/{id}/timerslack_ns")).unwrap();
                slack.trim().parse().unwrap()
            })
            .collect();
        assert_eq!(slacks.len(), 7);
        assert!(slacks.iter().all(|slack| *slack >= 4_000_000_000), "{slacks:?}");
        drop(engine);
    }

    #[test]
    fn damaged_settings_are_written_anew_and_whole_ones_left() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_path_buf());
        let wait = Duration::from_secs(5);
        drop(Engine::open(&layout, wait, Caution::default()).unwrap());
        assert!(!repair_settings(&layout).unwrap());
        let whole = fs::read(layout.conf()).unwrap();
        for len in 0..whole.len() {
            fs::write(layout.conf(), &whole[..len]).unwrap();
            assert!(repair_settings(&layout).unwrap(), "cut to {len}");
        }
        drop(Engine::open(&layout, wait, Caution::default()).unwrap());
        assert_eq!(fs::read(layout.conf()).unwrap(), whole);
    }

    #[test]
    fn another_engines_database_is_told_from_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_path_buf());
        fs::create_dir(layout.store()).unwrap();
        let mut settings = b"segment_size: 524288\nuse_compression: false\nversion: 0.35\n".to_vec();
        let sum = crc32fast::hash(&settings);
        settings.extend_from_slice(&sum.to_le_bytes());
        fs::write(layout.conf(), &settings).unwrap();
        assert!(!repair_settings(&layout).unwrap());
        let failure = Engine::open(&layout, Duration::ZERO, Caution::default()).unwrap_err();
        assert!(matches!(failure, Failure::OtherEngine(_)), "{failure:?}");
    }

    #[test]
    fn pages_are_counted_whole() {
        assert_eq!(pages(10, 10), 0);
        assert_eq!(pages(0, 1), 1);
        assert_eq!(pages(0, 4096), 1);
        assert_eq!(pages(4095, 4097), 2);
        assert_eq!(pages(4096, 4097), 1);
    }
}
