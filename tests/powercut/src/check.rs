//! Opens a state with the real code and holds it to what was announced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use farm_agent::readings::query::Item;
use farm_protocol::readings::{GapReason, Reading};
use smol::future::block_on;

use crate::Failure;
use crate::workload::{NAME, SEAL, Session};

/// For the first commit of a start; without it looking goes on all the same.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// What a program had announced when it was cut off.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The identity, once it was announced.
    pub farm: Option<String>,
    /// Acknowledged readings: values by number.
    pub recorded: BTreeMap<u64, u64>,
    /// Values that were about to be recorded, the acknowledged ones included.
    pub submitted: BTreeSet<u64>,
    /// The vital record as it was acknowledged last.
    pub sealed: u64,
    /// The newest that it may be.
    pub sealing: u64,
}

impl Expected {
    /// Takes announcements, see [`crate::workload`].
    ///
    /// # Errors
    /// When a line is not one, or two contradict each other.
    pub fn hear<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) -> Result<(), Failure> {
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["farm", id] => match &self.farm {
                    Some(known) if known != id => {
                        return Err(format!("the farm was {known} and is {id}").into());
                    }
                    _ => self.farm = Some(id.to_owned()),
                },
                ["submit", value] => drop(self.submitted.insert(value.parse()?)),
                ["record", number, value] => {
                    let (number, value) = (number.parse()?, value.parse()?);
                    if let Some(other) = self.recorded.insert(number, value) {
                        return Err(format!("number {number} was given to {other} and to {value}").into());
                    }
                }
                ["seal", value] => self.sealing = value.parse()?,
                ["sealed", value] => self.sealed = value.parse()?,
                _ => return Err(format!("the announcement {line:?}").into()),
            }
        }
        Ok(())
    }

    /// What was in doubt is not any more: it is there or it is not.
    pub fn settle(&mut self, found: &Found) {
        self.recorded = found.readings.clone();
        self.submitted = found.readings.values().copied().collect();
        self.sealed = found.sealed;
        self.sealing = found.sealed;
        self.farm = Some(found.farm.clone());
    }
}

/// What a state holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The identity.
    pub farm: String,
    /// Readings: values by number.
    pub readings: BTreeMap<u64, u64>,
    /// The vital record.
    pub sealed: u64,
}

/// What may be wrong with the disk besides a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// It keeps what was synced: nothing may be lost, and no alarm raised.
    Honest,
    /// Bits flip: readings may be lost where that is said.
    Damaged,
}

/// Reads everything through the code that delivers it, and holds it to what
/// was announced.
///
/// # Errors
/// What is missing, too much, altered, or said wrongly.
pub async fn look(session: &Session, expected: &Expected, disk: Disk) -> Result<Found, Failure> {
    if let Some(farm) = &expected.farm
        && *farm != session.farm
    {
        return Err(format!("the farm was {farm} and is {}", session.farm).into());
    }
    if disk == Disk::Honest && !session.alarms.is_empty() {
        return Err(format!("false alarms: {:?}", session.alarms).into());
    }
    // A start writes down first which numbers it leaves out.
    let begun = Instant::now();
    while session.readings.newest() < session.readings.given() && begun.elapsed() < SETTLED_WITHIN {
        smol::Timer::after(Duration::from_millis(1)).await;
    }
    let mut readings = BTreeMap::new();
    let mut values = BTreeSet::new();
    let mut missing = Vec::new();
    let mut at = 0;
    loop {
        let page = session.readings.page(at).await?;
        for item in page.items {
            match item {
                Item::Readings(list) => {
                    for reading in list {
                        let value = meant(&reading, expected)?;
                        if !values.insert(value) {
                            return Err(format!("value {value} is there twice").into());
                        }
                        readings.insert(reading.sequence, value);
                    }
                }
                Item::Gap(gap) if disk == Disk::Honest || gap.reason == GapReason::Pruned => {
                    return Err(format!("a gap where nothing is missing: {gap:?}").into());
                }
                Item::Gap(gap) => missing.push(gap),
            }
        }
        if page.upto == at {
            break;
        }
        at = page.upto;
    }
    for (number, value) in &expected.recorded {
        let told = || missing.iter().any(|gap| (gap.first..=gap.last).contains(number));
        match readings.get(number) {
            Some(found) if found == value => {}
            Some(found) => return Err(format!("reading {number} was {value} and is {found}").into()),
            None if disk == Disk::Damaged && told() => {}
            None => return Err(format!("reading {number} ({value}) was acknowledged and is gone").into()),
        }
    }
    let newest = expected.recorded.keys().last().copied().unwrap_or(0);
    if session.readings.given() < newest {
        return Err(format!("number {newest} was given and is to be given again").into());
    }
    let sealed = session.store.get(&SEAL, &())?.unwrap_or(0);
    if !(expected.sealed..=expected.sealing.max(expected.sealed)).contains(&sealed) {
        let Expected { sealed: acknowledged, sealing, .. } = expected;
        return Err(format!("the vital record is {sealed}, of {acknowledged} to {sealing}").into());
    }
    Ok(Found { farm: session.farm.clone(), readings, sealed })
}

fn meant(reading: &Reading, expected: &Expected) -> Result<u64, Failure> {
    let value = reading.value as u64;
    if reading.name != NAME || reading.value != value as f64 || !expected.submitted.contains(&value) {
        return Err(format!("a reading that nobody made: {reading:?}").into());
    }
    Ok(value)
}

/// Opens what a cut left, looks, goes on working, and looks again after
/// another start.
///
/// # Errors
/// What [`look`] says, or a refusal to start.
pub fn survive(dir: &Path, mut expected: Expected, disk: Disk) -> Result<(), Failure> {
    block_on(async {
        let session = Session::open(dir).named("the first start")?;
        let found = look(&session, &expected, disk).await.map_err(|e| format!("the first start: {e}"))?;
        expected.settle(&found);
        let value = 1 << 40;
        let first = session.record(value..value + 3).await?;
        session.seal(value).await?;
        let values = (first..).zip(value..value + 3);
        for (number, value) in values {
            expected.submitted.insert(value);
            if expected.recorded.insert(number, value).is_some() {
                return Err(format!("number {number} was given twice").into());
            }
        }
        (expected.sealed, expected.sealing) = (value, value);
        session.abandon().await;

        let session = Session::open(dir).named("the second start")?;
        let alarms = session.alarms.clone();
        if !alarms.is_empty() {
            return Err(format!("the second start: alarms {alarms:?}").into());
        }
        look(&session, &expected, disk).await.map_err(|e| format!("the second start: {e}"))?;
        session.close().await;
        Ok(())
    })
}

trait Named<T> {
    fn named(self, which: &str) -> Result<T, Failure>;
}

impl<T> Named<T> for Result<T, Failure> {
    fn named(self, which: &str) -> Result<T, Failure> {
        self.map_err(|e| format!("{which} was refused: {e}").into())
    }
}
