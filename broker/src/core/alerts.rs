//! Which absences of farms the operator is told of: one that lasts longer than
//! the operator said, and its end.
//!
//! What was told outlives the broker: a restart repeats nothing, and who was
//! said to be away is said to be back.

pub mod delivery;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use farm_protocol::id::FarmId;

use super::Core;
use super::event::{Action, Now};
use super::history::RETURN_WITHIN;
use super::timers::Timer;

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Of which farm.
    pub farm: FarmId,
    /// Its name.
    pub name: String,
    /// What about it.
    pub kind: Kind,
    /// When it went, seconds since 1970.
    pub since: u64,
    /// When this was noticed, seconds since 1970.
    pub at: u64,
}

impl Alert {
    /// What is to be remembered once it was delivered: since when the farm is
    /// away.
    pub fn told(&self) -> Option<u64> {
        (self.kind == Kind::Away).then_some(self.since)
    }
}

/// What about a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has been away for as long as the operator said.
    Away,
    /// It is back, after it was said to be away.
    Back,
}

/// A farm that is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Absence {
    /// When it would have been away for no time at all, on the clock of
    /// deadlines. `None`: longer than that clock reaches back.
    went: Option<Instant>,
    /// The same in seconds since 1970, to be shown.
    since: u64,
    told: bool,
}

/// Every enrolled farm that is not here, and when to tell of it.
#[derive(Debug)]
pub(super) struct Absences {
    after: Option<Duration>,
    farms: BTreeMap<FarmId, Absence>,
}

impl Absences {
    pub(super) fn new(after: Option<Duration>) -> Self {
        Self { after, farms: BTreeMap::new() }
    }
}

impl Core {
    /// Takes in, after [`Core::remember`], which farms the operator was told of
    /// in earlier runs, and since when they are away. All that are enrolled
    /// count as away now; none of them is told of before it had the time to
    /// return to a broker that was restarted.
    pub fn watch_absences(&mut self, told: impl IntoIterator<Item = (FarmId, u64)>, now: Now) {
        let told: BTreeMap<FarmId, u64> = told.into_iter().collect();
        for farm in self.farms.views().map(|farm| farm.id) {
            let told_since = told.get(&farm).copied();
            let since = told_since.or_else(|| self.history.away_since(farm)).unwrap_or(now.unix);
            // Where the wall clock went back it was just now.
            let ago = Duration::from_secs(now.unix.saturating_sub(since));
            let absence = Absence { went: now.instant.checked_sub(ago), since, told: told_since.is_some() };
            self.absences.farms.insert(farm, absence);
        }
        // Revoked, and the broker ended before that was forgotten.
        for farm in told.into_keys().filter(|farm| !self.absences.farms.contains_key(farm)) {
            self.actions.push_back(Action::ForgetAlert { farm });
        }
        self.arm_absences(now, now.instant + RETURN_WITHIN);
    }

    /// Tells of absences that last this long from now on; of none without it.
    pub(super) fn alert_after(&mut self, after: Option<Duration>, now: Now) {
        if self.absences.after != after {
            self.absences.after = after;
            self.arm_absences(now, now.instant);
        }
    }

    fn arm_absences(&mut self, now: Now, earliest: Instant) {
        for (farm, absence) in &self.absences.farms {
            match self.absences.after {
                Some(after) if !absence.told => {
                    let due = absence.went.map_or(now.instant, |went| went + after);
                    self.timers.arm(Timer::Absence(*farm), due.max(earliest));
                }
                _ => self.timers.disarm(Timer::Absence(*farm)),
            }
        }
    }

    /// A farm is here.
    pub(super) fn absence_ends(&mut self, farm: FarmId, now: Now) {
        let Some(absence) = self.absences.farms.remove(&farm) else { return };
        self.timers.disarm(Timer::Absence(farm));
        if absence.told {
            self.alert(farm, Kind::Back, absence.since, now);
        }
    }

    /// A farm is gone.
    pub(super) fn absence_begins(&mut self, farm: FarmId, now: Now) {
        let absence = Absence { went: Some(now.instant), since: now.unix, told: false };
        self.absences.farms.insert(farm, absence);
        if let Some(after) = self.absences.after {
            self.timers.arm(Timer::Absence(farm), now.instant + after);
        }
    }

    /// A farm is enrolled no more: nobody waits for it.
    pub(super) fn forget_absence(&mut self, farm: FarmId) {
        self.timers.disarm(Timer::Absence(farm));
        if self.absences.farms.remove(&farm).is_some_and(|absence| absence.told) {
            self.actions.push_back(Action::ForgetAlert { farm });
        }
    }

    /// A farm has been away for long.
    pub(super) fn absence_due(&mut self, farm: FarmId, now: Now) {
        let Some(absence) = self.absences.farms.get_mut(&farm) else { return };
        absence.told = true;
        let since = absence.since;
        self.alert(farm, Kind::Away, since, now);
    }

    fn alert(&mut self, farm: FarmId, kind: Kind, since: u64, now: Now) {
        let name = self.farms.record(farm).map_or_else(String::new, |record| record.name.clone());
        let alert = Alert { farm, name, kind, since, at: now.unix };
        self.actions.push_back(Action::Alert { alert: Box::new(alert) });
    }
}
