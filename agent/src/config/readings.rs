//! The config's `[readings]`: how readings are taken and kept.

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::readings::handle::Settings;
use crate::readings::log::Limits;

/// Seconds between the agent's own readings: 288 commits a day, 2 to 3 MB.
const INTERVAL: u64 = 300;

/// More often would wear the card for no farmer's sake.
const INTERVALS: RangeInclusive<u64> = 10..=86_400;

/// Megabytes kept: half a year of the agent's own readings and of ten sensors
/// read every five minutes.
const MEGABYTES: u64 = 16;

/// The engine keeps a table of its pages in memory: the more is stored, the
/// more of it.
const MEGABYTES_RANGE: RangeInclusive<u64> = 1..=256;

/// Days kept.
const DAYS: u64 = 400;
const DAYS_RANGE: RangeInclusive<u64> = 1..=3650;

/// Milliseconds from one commit to the next where many readings come: the
/// longest that one waits. A phone still has it within 200 ms.
const GROUP: u64 = 100;
const GROUPS: RangeInclusive<u64> = 0..=5000;

/// Longest path of a unix socket, in bytes (`sun_path` of unix(7)).
const MAX_PATH: usize = 107;

/// Checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadingsConfig {
    /// How often the agent takes its own; `None` for never.
    pub interval: Option<Duration>,
    /// How much is kept.
    pub limits: Limits,
    /// The shortest time between two commits in the long run.
    pub group: Duration,
    /// A second socket to record with, for programs of other users.
    pub socket: Option<PathBuf>,
}

impl ReadingsConfig {
    /// What the log needs to know.
    pub fn settings(&self) -> Settings {
        Settings { limits: self.limits, interval: self.group }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileReadings {
    interval_seconds: Option<Spanned<u64>>,
    max_megabytes: Option<Spanned<u64>>,
    max_days: Option<Spanned<u64>>,
    group_milliseconds: Option<Spanned<u64>>,
    socket: Option<Spanned<PathBuf>>,
}

type Mistake = (Range<usize>, String);

fn within(
    value: Option<Spanned<u64>>,
    default: u64,
    allowed: RangeInclusive<u64>,
    name: &str,
) -> Result<u64, Mistake> {
    match value {
        Some(value) if !allowed.contains(value.get_ref()) => {
            let (least, most) = (allowed.start(), allowed.end());
            Err((value.span(), format!("{name} must be {least} to {most}")))
        }
        Some(value) => Ok(value.into_inner()),
        None => Ok(default),
    }
}

impl FileReadings {
    pub(super) fn check(self) -> Result<ReadingsConfig, Mistake> {
        let interval = match self.interval_seconds {
            Some(never) if *never.get_ref() == 0 => None,
            asked => {
                let seconds = within(asked, INTERVAL, INTERVALS, "interval_seconds, if not 0 for never,")?;
                Some(Duration::from_secs(seconds))
            }
        };
        let bytes = within(self.max_megabytes, MEGABYTES, MEGABYTES_RANGE, "max_megabytes")? * 1_000_000;
        let age = Duration::from_secs(within(self.max_days, DAYS, DAYS_RANGE, "max_days")? * 86_400);
        let group = within(self.group_milliseconds, GROUP, GROUPS, "group_milliseconds")?;
        if let Some(path) = &self.socket
            && (!path.get_ref().is_absolute() || path.get_ref().as_os_str().len() > MAX_PATH)
        {
            return Err((
                path.span(),
                format!("socket must be an absolute path of at most {MAX_PATH} bytes"),
            ));
        }
        Ok(ReadingsConfig {
            interval,
            limits: Limits { bytes, age },
            group: Duration::from_millis(group),
            socket: self.socket.map(Spanned::into_inner),
        })
    }
}
