//! Keeps the event log of a farm in this device's state directory. Of several
//! programs that use the farm one writes; another takes over when it ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farm_protocol::control::{Absence, AbsenceReason, MAX_ABSENCES};
use farm_protocol::id::FarmId;
use farm_tunnel::history::{self, History, Kind, Report, Stored};
use nix::fcntl::{Flock, FlockArg};

use crate::client::replace;

/// Changes within this time are one write.
const SETTLE: Duration = Duration::from_secs(2);

/// How much of a span is lost at most when this program is killed.
const MARK_EVERY: Duration = Duration::from_secs(300);

/// Between looks whether the program that writes has ended.
const TAKE_OVER: Duration = Duration::from_secs(30);

/// Largest log that is read, in bytes: eight times the most that is written.
const MAX_FILE: u64 = 1 << 20;

/// A wall clock that is this near to the broker's is trusted.
const TRUSTED_WITHIN: Duration = Duration::from_secs(300);

/// How things stand, for the log; `None` for what is not counted.
pub(crate) type Observed = Option<(Kind, Option<&'static str>)>;

struct Writing {
    history: History,
    _lock: Flock<File>,
}

/// The log of one farm.
pub(crate) struct Recorder {
    directory: PathBuf,
    farm: FarmId,
    writing: Option<Writing>,
    observed: Observed,
    trusted: bool,
    next_try: Instant,
}

/// The time since 1970 by this computer's clock.
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn name(farm: FarmId) -> String {
    format!("history-{farm}.json")
}

/// A log that can't be read begins anew: it is no reason not to connect.
fn read(directory: &Path, farm: FarmId) -> Stored {
    let path = directory.join(name(farm));
    match std::fs::metadata(&path) {
        Ok(file) if file.len() <= MAX_FILE => {}
        _ => return Stored::default(),
    }
    let read = std::fs::read(&path).map_err(|e| e.to_string());
    read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string())).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), error, "the event log can't be read: it begins anew");
        Stored::default()
    })
}

/// The report from what is stored, as of now.
pub(crate) fn report(directory: &Path, farm: FarmId, days: u32) -> Report {
    report_at(directory, farm, days, wall())
}

fn report_at(directory: &Path, farm: FarmId, days: u32, wall: Duration) -> Report {
    let now = Instant::now();
    let stored = read(directory, farm);
    let trusted = stored.spans.last().is_some_and(|(_, span)| span.trusted)
        || stored.open.as_ref().is_some_and(|span| span.trusted);
    // A program that runs has not closed its present span yet.
    let ongoing = stored.open.clone().filter(|_| is_recording(directory, farm));
    let mut history = History::new(stored, wall, SETTLE, MARK_EVERY, now);
    history.clock(wall, trusted, now);
    let mut report = history.report(days, now);
    if let (Some(open), Some(last)) = (ongoing, report.outages.last_mut())
        && open.kind == Kind::Outage
        && open.at == last.at
    {
        last.ongoing = true;
        last.seconds = last.seconds.max(wall.as_secs_f64() - open.at as f64);
    }
    report
}

fn lock(directory: &Path, farm: FarmId) -> io::Result<Option<Flock<File>>> {
    let path = directory.join(format!("history-{farm}.lock"));
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

fn is_recording(directory: &Path, farm: FarmId) -> bool {
    matches!(lock(directory, farm), Ok(None))
}

impl Recorder {
    pub(crate) fn new(directory: &Path, farm: FarmId, now: Instant) -> Self {
        let directory = directory.to_owned();
        Self { directory, farm, writing: None, observed: None, trusted: false, next_try: now }
    }

    /// How things stand from now on.
    pub(crate) fn set(&mut self, observed: Observed, now: Instant) {
        self.observed = observed;
        self.take_over(now);
        if let Some(writing) = &mut self.writing {
            writing.history.set(observed, now);
        }
    }

    /// The broker's clock, seconds since 1970.
    pub(crate) fn broker_time(&mut self, time: u64, now: Instant) {
        self.trusted = wall().abs_diff(Duration::from_secs(time)) <= TRUSTED_WITHIN;
        if let Some(writing) = &mut self.writing {
            writing.history.clock(wall(), self.trusted, now);
        }
    }

    /// When the farm says that it could not be there. It sets its clock by the
    /// broker's as we do.
    pub(crate) fn farm_was_away(&mut self, absences: &[Absence], now: Instant) {
        let Some(writing) = &mut self.writing else { return };
        for absence in absences.iter().take(MAX_ABSENCES) {
            let power = match absence.why {
                AbsenceReason::NoPower => true,
                AbsenceReason::NoNetwork => false,
                // Whether it counts is not for this version to say.
                AbsenceReason::Other => continue,
            };
            let lasted = Duration::from_secs(absence.lasted.into());
            writing.history.other_was_away(history::Absence { at: absence.at, lasted, power }, now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.writing {
            Some(writing) => writing.history.poll_timeout(),
            None => self.observed.map(|_| self.next_try),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.take_over(now);
        if let Some(writing) = &mut self.writing
            && writing.history.poll_timeout().is_some_and(|due| due <= now)
        {
            writing.history.clock(wall(), self.trusted, now);
            self.store(now);
        }
    }

    pub(crate) fn stop(&mut self, now: Instant) {
        if let Some(writing) = &mut self.writing {
            writing.history.set(None, now);
            self.store(now);
        }
        self.writing = None;
    }

    fn take_over(&mut self, now: Instant) {
        if self.writing.is_some() || now < self.next_try || self.observed.is_none() {
            return;
        }
        self.next_try = now + TAKE_OVER;
        match lock(&self.directory, self.farm) {
            Ok(Some(lock)) => {
                let stored = read(&self.directory, self.farm);
                let mut history = History::new(stored, wall(), SETTLE, MARK_EVERY, now);
                history.clock(wall(), self.trusted, now);
                history.set(self.observed, now);
                self.writing = Some(Writing { history, _lock: lock });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "no event log can be kept"),
        }
    }

    fn store(&mut self, now: Instant) {
        let Some(writing) = &mut self.writing else { return };
        writing.history.take_changes(now);
        let content = serde_json::to_vec(&writing.history.stored(now));
        let result = content
            .map_err(io::Error::from)
            .and_then(|content| replace(&self.directory, &name(self.farm), &content));
        if let Err(error) = result {
            tracing::warn!(%error, "the event log could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_program_writes_and_the_next_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let farm = FarmId::from_bytes([7; 20]);
        let start = Instant::now();
        let mut first = Recorder::new(dir.path(), farm, start);
        first.set(Some((Kind::Up, None)), start);
        first.set(Some((Kind::Outage, Some("farm_offline"))), start + Duration::from_secs(1));
        let due = first.poll_timeout().unwrap();
        first.handle_timeout(due);
        let report = |later| report_at(dir.path(), farm, 1, wall() + Duration::from_secs(later));
        assert!(report(10).outages[0].ongoing);

        let mut second = Recorder::new(dir.path(), farm, start);
        second.set(Some((Kind::Up, None)), start);
        assert!(second.writing.is_none(), "two programs write");
        first.stop(start + Duration::from_secs(11));
        second.handle_timeout(start + TAKE_OVER);
        assert!(second.writing.is_some(), "nobody writes");
        second.stop(start + TAKE_OVER * 2);
        let report = report(100);
        assert_eq!(report.outages.len(), 1, "{report:?}");
        assert_eq!((report.outages[0].seconds, report.outages[0].ongoing), (10.0, false));
    }

    #[test]
    fn a_damaged_log_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let farm = FarmId::from_bytes([7; 20]);
        std::fs::write(dir.path().join(name(farm)), "nonsense").unwrap();
        assert_eq!(report(dir.path(), farm, 1).outages, []);
    }
}
