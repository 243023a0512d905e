//! Disks that fail, fill up, turn read-only, or forget.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use smol::future::block_on;

use crate::Failure;
use crate::check::{Disk, Expected, look, survive};
use crate::random::Random;
use crate::shim::{Orders, Shim};
use crate::workload::Session;

/// The store opens again at once after a first failure, then within a second
/// or two.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// Makes a state with readings 1 to `count`, closed in good order.
///
/// # Errors
/// When that fails.
pub fn filled(dir: &Path, count: u64) -> Result<Expected, Failure> {
    let mut expected = Expected::default();
    block_on(async {
        let session = Session::open(dir)?;
        expected.farm = Some(session.farm.clone());
        for value in 1..=count {
            let number = session.record([value]).await?;
            expected.submitted.insert(value);
            expected.recorded.insert(number, value);
        }
        session.seal(7).await?;
        (expected.sealed, expected.sealing) = (7, 7);
        session.close().await;
        Ok::<_, Failure>(())
    })?;
    Ok(expected)
}

/// Flips `flips` bits in each file, one at a time, over the whole file.
/// Gives how many were tried, and in how many readings were lost (and it was
/// said).
///
/// # Errors
/// What was lost without a word, altered or refused.
pub fn flipped_bits(place: &Path, flips: usize, seed: u64) -> Result<(usize, usize), Failure> {
    crate::campaign::hush();
    let good = place.join("good");
    let expected = filled(&good, 400)?;
    let mut random = Random::new(seed);
    let (mut tried, mut lost) = (0, 0);
    for file in files(&good)? {
        let relative = file.strip_prefix(&good)?.to_owned();
        let length = usize::try_from(fs::metadata(&file)?.len())?;
        for _ in 0..flips.min(length * 8) {
            let (byte, bit) = (random.below(length), random.below(8));
            let bad = place.join("bad");
            copy(&good, &bad)?;
            let mut bytes = fs::read(bad.join(&relative))?;
            bytes[byte] ^= 1 << bit;
            fs::write(bad.join(&relative), bytes)?;
            let failed = |e: Failure| format!("bit {bit} of byte {byte} of {}: {e}", relative.display());
            lost += usize::from(look_after_damage(&bad, &expected).map_err(failed)?);
            tried += 1;
            fs::remove_dir_all(bad)?;
        }
    }
    Ok((tried, lost))
}

/// Whether readings were lost.
fn look_after_damage(dir: &Path, expected: &Expected) -> Result<bool, Failure> {
    let lost = block_on(async {
        let session = Session::open(dir).map_err(|e| format!("the start was refused: {e}"))?;
        let found = look(&session, expected, Disk::Damaged).await?;
        let lost = found.readings.len() < expected.recorded.len();
        let said = !session.alarms.is_empty() || !session.store.take_alarms().is_empty();
        if lost && !said {
            return Err::<_, Failure>("readings were lost and no alarm was raised".into());
        }
        session.close().await;
        Ok(lost)
    })?;
    survive(dir, expected.clone(), Disk::Damaged)?;
    Ok(lost)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else if entry.metadata()?.len() > 0 {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A tmpfs of a size, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: PathBuf, size: &str) -> Result<Self, Failure> {
        fs::create_dir(&path)?;
        let options = format!("size={size},mode=700");
        mount(Some("powercut"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))?;
        Ok(Self(path))
    }

    fn read_only(&self, yes: bool) -> Result<(), Failure> {
        let flags = if yes { MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY } else { MsFlags::MS_REMOUNT };
        Ok(mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>)?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the engine lets go of its files a little later.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Whether this process may mount.
#[must_use]
pub fn may_mount() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Fills a small file system in the middle of many readings; then makes room.
/// Gives how many were recorded before it was full.
///
/// # Errors
/// What was lost, or did not come back.
pub fn full_disk(place: &Path) -> Result<u64, Failure> {
    let disk = Mounted::new(place.join("full"), "8m")?;
    let (state, ballast) = (disk.0.join("state"), disk.0.join("ballast"));
    fs::write(&ballast, vec![0; 3 << 20])?;
    let mut expected = Expected::default();
    block_on(async {
        let session = Session::open(&state)?;
        let mut value = 1;
        let refused = loop {
            // Many at once, so that it is full in the middle of a batch.
            let values = value..value + 40;
            expected.submitted.extend(values.clone());
            value = values.end;
            match session.record(values.clone()).await {
                Ok(first) => expected.recorded.extend((first..).zip(values)),
                Err(error) => break error.to_string(),
            }
            if value > 1_000_000 {
                return Err::<_, Failure>("the disk never got full".into());
            }
        };
        if !refused.contains("space") {
            return Err(format!("a full disk was called {refused:?}").into());
        }
        let before = expected.recorded.len() as u64;
        fs::remove_file(&ballast)?;
        comes_back(&session, &mut expected, value).await?;
        look_again(session, &state, &expected).await?;
        Ok(before)
    })
}

/// Makes a file system read-only under a working log, and writable again.
///
/// # Errors
/// What was lost, or did not come back.
pub fn read_only(place: &Path) -> Result<(), Failure> {
    let disk = Mounted::new(place.join("ro"), "64m")?;
    let state = disk.0.join("state");
    let mut expected = filled(&state, 50)?;
    // While the agent is down: it must say so and leave everything alone.
    disk.read_only(true)?;
    match Session::open(&state) {
        Err(error) if error.to_string().contains("read-only") => {}
        Err(error) => return Err(format!("a read-only file system was called {error}").into()),
        Ok(_) => return Err("the state opened on a read-only file system".into()),
    }
    disk.read_only(false)?;
    block_on(async {
        let session = Session::open(&state)?;
        look(&session, &expected, Disk::Honest).await?;
        comes_back(&session, &mut expected, 1000).await?;
        look_again(session, &state, &expected).await
    })
}

async fn comes_back(session: &Session, expected: &mut Expected, mut value: u64) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        expected.submitted.insert(value);
        match session.record([value]).await {
            Ok(number) => {
                expected.recorded.insert(number, value);
                return Ok(());
            }
            Err(error) if begun.elapsed() > BACK_WITHIN => {
                return Err(
                    format!("nothing is recorded {BACK_WITHIN:?} after the cause is gone: {error}").into()
                );
            }
            Err(_) => {
                value += 1;
                smol::Timer::after(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn look_again(session: Session, state: &Path, expected: &Expected) -> Result<(), Failure> {
    look(&session, expected, Disk::Honest).await?;
    session.close().await;
    let session = Session::open(state)?;
    look(&session, expected, Disk::Honest).await?;
    session.close().await;
    Ok(())
}

/// Runs the workload with calls that fail (`CALL:AFTER:TIMES:ERRNO`), which
/// ends it with an error at the first refusal; then looks for what it had been
/// acknowledged. A failure in a rest (with `rests`) need not refuse anything.
///
/// # Errors
/// What was lost, altered or refused.
pub fn failing_calls(
    shim: &Shim,
    program: &Path,
    place: &Path,
    fail: &str,
    rests: bool,
) -> Result<usize, Failure> {
    fs::create_dir_all(place)?;
    let (state, acks) = (place.join("state"), place.join("acks"));
    let dir = state.to_str().ok_or("the path is not UTF-8")?;
    let mut command = Command::new(program);
    command.arg("workload").arg(&state).arg(&acks).args([
        "1",
        "400",
        "1",
        if rests { "true" } else { "false" },
    ]);
    shim.preload(&mut command, &Orders { dir, fail: Some(fail), ..Orders::default() });
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let told = !output.status.success() || rests;
    if !told || output.status.code().is_none() {
        return Err(format!("{fail}: the failure was not told ({:?}): {said}", output.status).into());
    }
    // Where a panic ends the program a failing card must not cause one.
    if said.contains("panicked at") {
        return Err(format!("{fail}: the engine panicked: {said}").into());
    }
    let mut expected = Expected::default();
    let text = fs::read_to_string(&acks).unwrap_or_default();
    expected.hear(text.lines())?;
    let recorded = expected.recorded.len();
    survive(&state, expected, Disk::Honest).map_err(|e| format!("{fail}: {e}; it said {said}"))?;
    Ok(recorded)
}
