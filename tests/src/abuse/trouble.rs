//! Trouble that no traffic makes: descriptors used up, a full disk, a store
//! that was damaged. Each with a broker of its own.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farm_protocol::broker::{FromBroker, RefusedReason};

use super::row::Row;
use crate::bench::trouble::Trouble;
use crate::device::{Broker, Device, DeviceError, Link, Target, loopback};
use crate::harness::farm::Limits;
use crate::harness::{HarnessError, temp_dir, until};

type Scenario = fn(&'static str) -> Result<Row, Trouble>;

/// All of them, with their names.
pub(super) const SCENARIOS: [(&str, Scenario); 3] =
    [("descriptors-gone", descriptors_gone), ("disk-full", disk_full), ("store-damaged", store_damaged)];

/// A broker that is well says so within this.
const WELL_WITHIN: Duration = Duration::from_secs(10);

/// Files that the broker of [`descriptors_gone`] may have open: what it needs
/// itself and 200 sockets.
const FILES: u64 = 328;

/// Blocks of 512 bytes that files of the broker of [`disk_full`] may have: its
/// store opens, and is full some enrollments later.
const BLOCKS: u64 = 1100;

fn row(name: &'static str, sent: String, counted: String, problems: Vec<String>) -> Row {
    Row { name, sent, counted, latency: None, relayed: None, use_of: None, problems }
}

fn wrong(error: DeviceError) -> Trouble {
    Trouble::Wrong(error.to_string())
}

/// Whether a device that is in gets an answer.
async fn answers(link: &mut Link, device: &Device, number: u32) -> bool {
    link.send(&device.heartbeat(number)).await.is_ok()
        && matches!(link.next().await, Ok(FromBroker::HeartbeatAnswer(answer)) if answer.sequence == number)
}

/// More sockets than the broker may have files, held open: who is in stays in,
/// the store still works, and afterwards everybody gets in again.
fn descriptors_gone(name: &'static str) -> Result<Row, Trouble> {
    let dir = temp_dir()?;
    let mut broker = Broker::new(dir.path(), "")?;
    broker.daemon.limit(Limits { files: Some(FILES), file_blocks: None });
    broker.daemon.start()?;
    let target = broker.target()?;
    let (farm, token, spare) = (Device::farm(1), broker.token()?, broker.token()?);
    let mut problems = Vec::new();
    let held = smol::block_on(async {
        let mut link = Link::connect(&target, loopback(1, 1)).await.map_err(wrong)?;
        link.enter(&farm, Some(&token)).await.map_err(wrong)?;
        let mut held = Vec::new();
        for n in 0..FILES as u32 * 2 {
            held.push(target.tcp(loopback(66, n % 8)).await.map_err(Trouble::io("connecting"))?);
        }
        if !answers(&mut link, &farm, 1).await {
            problems.push("who was in got no answer".to_owned());
        }
        if broker.token().is_err() {
            problems.push("the store or the admin socket did not work".to_owned());
        }
        Ok::<_, Trouble>(held.len())
    })?;
    // All of them are gone.
    let newcomer = Device::farm(2);
    let entered = until("a newcomer to get in", WELL_WITHIN, || {
        smol::block_on(async {
            let mut link = Link::connect(&target, loopback(1, 2)).await.ok()?;
            link.enter(&newcomer, Some(&spare)).await.ok()
        })
    });
    if entered.is_err() {
        problems.push("nobody got in afterwards".to_owned());
    }
    let figures = broker.figures()?;
    let refused = figures.get("limit_sockets_total").copied().unwrap_or_default();
    if refused <= 0.0 {
        problems.push("limit_sockets did not grow".to_owned());
    }
    end(&mut broker, &mut problems)?;
    Ok(row(
        name,
        format!("{held} sockets, {FILES} files allowed"),
        format!("limit_sockets +{refused}"),
        problems,
    ))
}

/// The store can't grow any more: enrollments are put off, farms that are
/// enrolled come and go, and a new start with room knows all that were told
/// that they are in.
fn disk_full(name: &'static str) -> Result<Row, Trouble> {
    let dir = temp_dir()?;
    let mut broker = Broker::new(dir.path(), "")?;
    broker.daemon.limit(Limits { files: None, file_blocks: Some(BLOCKS) });
    broker.daemon.start()?;
    let target = broker.target()?;
    let mut problems = Vec::new();
    let mut enrolled: Vec<u64> = Vec::new();
    let mut put_off = 0;
    // Each token and each enrollment writes something.
    for number in 0..20_000 {
        let Ok(token) = broker.token() else {
            put_off += 1;
            break;
        };
        match enter(&target, number, Some(&token)) {
            Ok(()) => enrolled.push(number),
            Err(DeviceError::RetryAfter(_)) => put_off += 1,
            Err(error) => problems.push(format!("farm {number}: {error}")),
        }
        if put_off > 0 || !problems.is_empty() {
            break;
        }
    }
    if put_off == 0 && problems.is_empty() {
        problems.push("the disk never got full".to_owned());
    }
    let Some(first) = enrolled.first().copied() else {
        return Err(Trouble::Wrong("no farm was enrolled before the disk was full".to_owned()));
    };
    if let Err(error) = enter(&target, first, None) {
        problems.push(format!("an enrolled farm did not get in while the disk was full: {error}"));
    }
    end(&mut broker, &mut problems)?;
    broker.daemon.limit(Limits::default());
    broker.daemon.start()?;
    let lost = enrolled.iter().filter(|number| enter(&target, **number, None).is_err()).count();
    if lost > 0 {
        problems.push(format!("{lost} farms that were told they are in are not enrolled any more"));
    }
    if let Err(error) = broker.token().map(|token| enter(&target, 1 << 30, Some(&token))) {
        problems.push(format!("with room again: {error}"));
    }
    end(&mut broker, &mut problems)?;
    let sent = format!("{} enrollments until the disk was full", enrolled.len());
    Ok(row(name, sent, format!("put off {put_off}, lost {lost}"), problems))
}

fn enter(target: &Target, number: u64, token: Option<&str>) -> Result<(), DeviceError> {
    smol::block_on(async {
        // Limits per address have their own attacks.
        let mut link = Link::connect(target, loopback(1, number as u32 % 50_000)).await?;
        link.enter(&Device::farm(number), token).await.map(drop)
    })
}

/// Bits of the store's files are flipped while the broker is away: it comes up,
/// says so, and knows every farm.
fn store_damaged(name: &'static str) -> Result<Row, Trouble> {
    const FARMS: u64 = 20;
    let dir = temp_dir()?;
    let mut broker = Broker::new(dir.path(), "")?;
    broker.daemon.start()?;
    let target = broker.target()?;
    for number in 0..FARMS {
        enter(&target, number, Some(&broker.token()?)).map_err(wrong)?;
    }
    let mut problems = Vec::new();
    let mut flipped = 0;
    let mut alarms = 0;
    for round in 0..3u64 {
        end(&mut broker, &mut problems)?;
        flipped += damage(broker.state(), round).map_err(Trouble::io("damaging the store"))?;
        broker.daemon.start()?;
        alarms += broker.daemon.process()?.lines().iter().filter(|line| line.text.contains("alarm")).count();
        for number in 0..FARMS {
            if let Err(error) = enter(&target, number, None) {
                problems.push(format!("farm {number} after damage {round}: {error}"));
            }
        }
    }
    // A stranger is still none of them.
    match enter(&target, FARMS, None) {
        Err(DeviceError::Refused(RefusedReason::NotEnrolled)) => {}
        other => problems.push(format!("a farm that was never enrolled: {other:?}")),
    }
    end(&mut broker, &mut problems)?;
    Ok(row(
        name,
        format!("{flipped} bytes changed in the store's files, three times"),
        format!("alarms {alarms}"),
        problems,
    ))
}

/// Changes a byte in every 4 kB of the store's largest file.
fn damage(state: &Path, round: u64) -> std::io::Result<u64> {
    let mut files = Vec::new();
    walk(state, &mut files)?;
    let Some((length, path)) = files.into_iter().max() else {
        return Err(std::io::Error::other("the store has no files"));
    };
    let mut file = std::fs::File::options().read(true).write(true).open(path)?;
    let mut changed = 0;
    let mut at = 1000 + round * 77;
    while at < length {
        file.seek(SeekFrom::Start(at))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&[byte[0] ^ 0x55])?;
        changed += 1;
        at += 4096;
    }
    Ok(changed)
}

fn walk(dir: &Path, files: &mut Vec<(u64, PathBuf)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push((entry.metadata()?.len(), entry.path()));
        }
    }
    Ok(())
}

/// Ends the broker in order, which it must be able to.
fn end(broker: &mut Broker, problems: &mut Vec<String>) -> Result<(), HarnessError> {
    let start = Instant::now();
    let status = broker.daemon.terminate()?;
    if !status.success() {
        problems.push(format!("the broker ended with {status} after {:?}", start.elapsed()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_done() {
        let dir = temp_dir().unwrap();
        std::fs::create_dir(dir.path().join("db")).unwrap();
        std::fs::write(dir.path().join("db/large"), vec![0; 10_000]).unwrap();
        std::fs::write(dir.path().join("small"), vec![0; 10]).unwrap();
        assert_eq!(damage(dir.path(), 0).unwrap(), 3);
        let bytes = std::fs::read(dir.path().join("db/large")).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 3);
    }
}
