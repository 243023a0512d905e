//! When each farm came, went and moved: a bounded log that outlives the
//! broker, and the availability that follows from it.
//!
//! Only changes are recorded. A restart of the broker changes nothing about a
//! farm that is back soon after, so it leaves no trace in the farm's log.

mod availability;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use farm_protocol::id::FarmId;
use serde::{Deserialize, Serialize};

pub use availability::{Availability, Span, availability};

use super::Core;
use super::bucket::{Bucket, Rate};
use super::event::{Action, Now};
use super::timers::Timer;

/// Entries that are kept of one farm; the oldest gives way.
pub const ENTRIES_PER_FARM: usize = 1000;

/// Entries that are kept of all farms together, about 120 bytes each.
pub const ENTRIES: usize = 100_000;

/// Entries of one farm: 20 at once, and a restless one 288 a day.
const ENTRIES_RATE: Rate = Rate { burst: 20, interval: Duration::from_secs(300) };

/// Entries of all farms: twice 10,000 at once when their network fails, and
/// then what a disk bears for ever: 1.4 KB an entry in groups, 120 MB a day.
const ALL_ENTRIES_RATE: Rate = Rate::per_second(20_000, 1);

/// Changes are written together, this long after the first: what a crash of
/// the machine may cost.
pub const WRITE_AFTER: Duration = Duration::from_secs(2);

/// Entries in one write: below the store's 64 KiB a batch with room.
const WRITE_AT_ONCE: usize = 256;

/// Changes that wait for their turn are looked at so often.
const HELD_EVERY: Duration = Duration::from_secs(60);

/// Farms that do not come back this long after a start of the broker are away.
/// Devices are told to return within 3 s and then try every few seconds.
pub const RETURN_WITHIN: Duration = Duration::from_secs(60);

/// How often the broker notes that it still runs: what a crash may cost its
/// own record.
pub const MARK_RUN_EVERY: Duration = Duration::from_secs(300);

/// Runs that are kept.
const RUNS: usize = 1024;

/// What a month is, in seconds: 30 days. Runs before that are forgotten.
pub const MONTH: u64 = 30 * DAY;

/// What a day is, in seconds.
pub const DAY: u64 = 24 * 3600;

/// What changed about a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It came, from this address.
    Online(IpAddr),
    /// Its address changed to this one.
    Moved(IpAddr),
    /// It went.
    Offline,
}

/// One line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose.
    pub farm: FarmId,
    /// When, seconds since 1970.
    pub at: u64,
    /// What.
    pub change: Change,
}

/// What the store remembers.
#[derive(Debug, Default)]
pub struct Past {
    /// The log by its numbers, which only grow.
    pub entries: Vec<(u64, Entry)>,
    /// When the broker ran: start and last mark, seconds since 1970.
    pub runs: Vec<(u64, u64)>,
}

/// What is to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writing {
    /// New lines of the log.
    pub add: Vec<(u64, Entry)>,
    /// Numbers of lines that gave way.
    pub remove: Vec<u64>,
}

#[derive(Debug, Default)]
struct Farm {
    numbers: VecDeque<u64>,
    bucket: Bucket,
    online: bool,
    address: Option<IpAddr>,
    /// What its last entry says.
    recorded: Option<(bool, Option<IpAddr>)>,
}

/// The log.
#[derive(Debug, Default)]
pub struct History {
    entries: BTreeMap<u64, Entry>,
    farms: BTreeMap<FarmId, Farm>,
    next: u64,
    bucket: Bucket,
    writing: Writing,
    /// Farms whose last change waits for its turn.
    held: BTreeSet<FarmId>,
    runs: BTreeMap<u64, u64>,
    run: u64,
}

/// What the operator sees of one farm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FarmPast {
    /// Where it is, or was last seen.
    pub address: Option<IpAddr>,
    /// When it came or went last, seconds since 1970.
    pub since: Option<u64>,
    /// Of the last 24 hours.
    pub day: Availability,
    /// Of the last 30 days.
    pub month: Availability,
}

impl History {
    /// Takes in what the store remembers, at the start of a run.
    fn remember(&mut self, past: Past, now: Now) {
        for (number, entry) in past.entries {
            self.next = self.next.max(number.saturating_add(1));
            self.keep(number, entry);
            let farm = self.farms.entry(entry.farm).or_default();
            match entry.change {
                Change::Online(address) | Change::Moved(address) => {
                    (farm.online, farm.address) = (true, Some(address));
                }
                Change::Offline => farm.online = false,
            }
            farm.recorded = Some((farm.online, farm.address));
        }
        self.runs = past.runs.into_iter().collect();
        self.run = now.unix;
        self.runs.insert(now.unix, now.unix);
    }

    /// Farms that were here when the broker last ran.
    fn expected(&self) -> Vec<FarmId> {
        self.farms.iter().filter(|(_, farm)| farm.online).map(|(id, _)| *id).collect()
    }

    /// Since when a farm is away, as far as the log tells; seconds since 1970.
    pub(super) fn away_since(&self, id: FarmId) -> Option<u64> {
        let farm = self.farms.get(&id).filter(|farm| !farm.online)?;
        let last = self.entries.get(farm.numbers.back()?)?;
        (last.change == Change::Offline).then_some(last.at)
    }

    /// A farm is here, at this address, or not. `false` if that can't be
    /// recorded yet because it changes too often.
    fn set(&mut self, id: FarmId, at: Option<IpAddr>, now: Now) -> bool {
        let farm = self.farms.entry(id).or_default();
        farm.online = at.is_some();
        farm.address = at.or(farm.address);
        self.record(id, now)
    }

    fn record(&mut self, id: FarmId, now: Now) -> bool {
        self.held.remove(&id);
        let Some(farm) = self.farms.get_mut(&id) else { return true };
        let change = match (farm.recorded, farm.online, farm.address) {
            (Some((true, before)), true, address) if before == address => return true,
            (Some((true, _)), true, Some(address)) => Change::Moved(address),
            (_, true, Some(address)) => Change::Online(address),
            (Some((true, _)), false, _) => Change::Offline,
            _ => return true,
        };
        // The one farm first: it must not use up what is for all.
        if !farm.bucket.take(ENTRIES_RATE, 1, now.instant)
            || !self.bucket.take(ALL_ENTRIES_RATE, 1, now.instant)
        {
            self.held.insert(id);
            return false;
        }
        farm.recorded = Some((farm.online, farm.address));
        self.add(Entry { farm: id, at: now.unix, change });
        true
    }

    /// Records what was held and has its turn now.
    fn settle(&mut self, now: Now) {
        for id in self.held.clone() {
            self.record(id, now);
        }
    }

    fn add(&mut self, entry: Entry) {
        let number = self.next;
        self.next += 1;
        self.writing.add.push((number, entry));
        self.keep(number, entry);
    }

    fn keep(&mut self, number: u64, entry: Entry) {
        self.entries.insert(number, entry);
        let farm = self.farms.entry(entry.farm).or_default();
        farm.numbers.push_back(number);
        let gone = (farm.numbers.len() > ENTRIES_PER_FARM).then(|| farm.numbers.pop_front()).flatten();
        if let Some(gone) = gone {
            self.drop_entry(gone);
        }
        if self.entries.len() > ENTRIES
            && let Some((oldest, entry)) = self.entries.first_key_value()
        {
            let (oldest, owner) = (*oldest, entry.farm);
            if let Some(farm) = self.farms.get_mut(&owner) {
                farm.numbers.pop_front();
            }
            self.drop_entry(oldest);
        }
    }

    fn drop_entry(&mut self, number: u64) {
        self.entries.remove(&number);
        match self.writing.add.binary_search_by_key(&number, |(added, _)| *added) {
            Ok(index) => drop(self.writing.add.remove(index)),
            Err(_) => self.writing.remove.push(number),
        }
    }

    fn forget(&mut self, id: FarmId) {
        self.held.remove(&id);
        let Some(farm) = self.farms.remove(&id) else { return };
        for number in farm.numbers {
            self.drop_entry(number);
        }
    }

    /// The entries after a number, of one farm or of all, oldest first.
    pub fn after(&self, number: u64, farm: Option<FarmId>) -> impl Iterator<Item = (u64, &Entry)> {
        let after = self.entries.range(number..);
        after
            .map(|(number, entry)| (*number, entry))
            .filter(move |(_, entry)| farm.is_none_or(|farm| farm == entry.farm))
    }

    /// The newest entries, oldest first.
    pub fn newest(&self, count: usize, farm: Option<FarmId>) -> Vec<(u64, Entry)> {
        let newest =
            self.entries.iter().rev().filter(|(_, entry)| farm.is_none_or(|farm| farm == entry.farm));
        let mut newest: Vec<_> = newest.take(count).map(|(number, entry)| (*number, *entry)).collect();
        newest.reverse();
        newest
    }

    /// The number that the next entry gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What is known of a farm that was enrolled at this time.
    pub fn of(&self, id: FarmId, enrolled: u64, now: u64) -> FarmPast {
        let Some(farm) = self.farms.get(&id) else { return FarmPast::default() };
        let entries = farm.numbers.iter().filter_map(|number| self.entries.get(number));
        let (mut up, mut since, mut came) = (Vec::new(), None, None);
        let mut known_from = None;
        for entry in entries {
            match entry.change {
                Change::Online(_) => {
                    came = came.or(Some(entry.at));
                    since = Some(entry.at);
                }
                // Its coming gave way to newer entries.
                Change::Moved(_) => came = came.or(Some(entry.at)),
                Change::Offline => {
                    up.extend(came.take().map(|from| Span { from, until: entry.at }));
                    since = Some(entry.at);
                }
            }
            known_from = known_from.or(Some(entry.at));
        }
        up.extend(came.map(|from| Span { from, until: now }));
        // Older entries may have given way: what was then is not known.
        let all = farm.numbers.len() < ENTRIES_PER_FARM && self.entries.len() < ENTRIES;
        let known_from = known_from.filter(|_| !all).unwrap_or(0).max(enrolled);
        let runs: Vec<Span> = self
            .runs
            .iter()
            .map(|(from, until)| Span { from: *from, until: if *from == self.run { now } else { *until } })
            .collect();
        let of = |length: u64| {
            let from = now.saturating_sub(length).max(known_from);
            availability(&up, &runs, Span { from, until: now })
        };
        FarmPast { address: farm.address, since, day: of(DAY), month: of(MONTH) }
    }

    /// The broker runs until now; gives the run and those that are forgotten.
    fn mark(&mut self, now: u64) -> (u64, u64, Vec<u64>) {
        let run = self.run;
        let until = self.runs.entry(run).or_insert(run);
        *until = (*until).max(now);
        let marked = *until;
        let old = self.runs.iter().filter(|(start, until)| **start != run && **until + MONTH < now);
        let mut gone: Vec<u64> = old.map(|(start, _)| *start).collect();
        let too_many = (self.runs.len() - gone.len()).saturating_sub(RUNS);
        let oldest: Vec<u64> =
            self.runs.keys().filter(|start| !gone.contains(start)).take(too_many).copied().collect();
        gone.extend(oldest);
        for start in &gone {
            self.runs.remove(start);
        }
        (run, marked, gone)
    }

    /// Takes what is to be written, in pieces that fit the store.
    fn take_writing(&mut self) -> Vec<Writing> {
        let Writing { mut add, mut remove } = std::mem::take(&mut self.writing);
        let mut pieces = Vec::new();
        while !add.is_empty() || !remove.is_empty() {
            let rest = add.split_off(add.len().min(WRITE_AT_ONCE));
            let left = remove.split_off(remove.len().min(WRITE_AT_ONCE));
            pieces.push(Writing { add, remove });
            (add, remove) = (rest, left);
        }
        pieces
    }
}

impl Core {
    /// Takes in what the store remembers of earlier runs. Once, after
    /// [`Core::new`].
    pub fn remember(&mut self, past: Past, now: Now) {
        self.history.remember(past, now);
        let known: Vec<FarmId> = self.history.farms.keys().copied().collect();
        for farm in known.into_iter().filter(|farm| !self.farms.is_enrolled(*farm)) {
            // Revoked, and the broker ended before its log was forgotten.
            self.history.forget(farm);
        }
        self.timers.arm(Timer::Returned, now.instant + RETURN_WITHIN);
        self.mark_run(now);
        self.write_later(now);
    }

    /// The log.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// A farm is here, perhaps from a new address.
    pub(super) fn note_here(&mut self, farm: FarmId, address: IpAddr, now: Now) {
        self.note(farm, Some(address), now);
    }

    /// A farm is gone.
    pub(super) fn note_gone(&mut self, farm: FarmId, now: Now) {
        self.note(farm, None, now);
    }

    fn note(&mut self, farm: FarmId, at: Option<IpAddr>, now: Now) {
        if !self.history.set(farm, at, now) {
            self.counters.history_held_back += 1;
        }
        self.write_later(now);
    }

    /// Who was here at the end of the last run and is not now is away.
    pub(super) fn note_who_did_not_return(&mut self, now: Now) {
        for farm in self.history.expected() {
            if !self.farms.seen(farm).is_some_and(|seen| seen.online) {
                self.note_gone(farm, now);
            }
        }
    }

    pub(super) fn forget_history(&mut self, farm: FarmId, now: Now) {
        self.history.forget(farm);
        self.write_later(now);
    }

    fn write_later(&mut self, now: Now) {
        let waits = !self.history.writing.add.is_empty() || !self.history.writing.remove.is_empty();
        if (waits || !self.history.held.is_empty()) && !self.timers.is_armed(Timer::History) {
            let after = if waits { WRITE_AFTER } else { HELD_EVERY };
            self.timers.arm(Timer::History, now.instant + after);
        }
    }

    /// Has the log written.
    pub(super) fn write_history(&mut self, now: Now) {
        self.history.settle(now);
        for writing in self.history.take_writing() {
            self.actions.push_back(Action::WriteHistory { writing: Box::new(writing) });
        }
        self.write_later(now);
    }

    /// Has it noted that the broker still runs.
    pub(super) fn mark_run(&mut self, now: Now) {
        let (start, until, forget) = self.history.mark(now.unix);
        self.actions.push_back(Action::MarkRun { start, until, forget });
        self.timers.arm(Timer::Run, now.instant + MARK_RUN_EVERY);
    }
}
