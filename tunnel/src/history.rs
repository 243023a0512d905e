//! The event log: how long the tunnel was up, how long not, and why, for
//! outage reports.
//!
//! A state machine without I/O. Durations are monotonic; the wall clock only
//! stamps them, may be wrong or jump, and once it is trusted the stamps of the
//! whole run are set right. What this program did not see (it did not run, the
//! device slept or had no power) is in no span, so it is reported apart and
//! counts neither as up nor as an outage.

mod report;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use report::{DAY, MONTH, Outage, Report, Window};

/// Most spans that are kept: a month of 17 outages a day.
pub const MAX_SPANS: usize = 1024;

/// Longest cause, in bytes: with [`MAX_SPANS`] this bounds the log to 128 KiB.
pub const MAX_CAUSE: usize = 64;

/// The wall clock may drift or be slewed this much against the monotonic one
/// before the stamps are set anew.
const SAME_CLOCK: Duration = Duration::from_secs(2);

/// How things stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It worked.
    Up,
    /// It did not, though this end had power and a network.
    Outage,
    /// This end had no network at all: not counted.
    NoUplink,
    /// This end's machine was off: not counted.
    NoPower,
    /// By the other end's own word it had no power or no network. An outage is
    /// not counted as far as it lies in this.
    OtherAway,
}

/// A span of time in which nothing changed, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// When it began, seconds since 1970 by this end's clock.
    pub at: u64,
    /// Whether that clock agreed with somebody else's.
    pub trusted: bool,
    /// How things stood.
    pub kind: Kind,
    /// Why, by a stable name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Its length, by the monotonic clock.
    pub lasted_ms: u64,
}

/// What is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A span under its number, which may be there already.
    Put(u64, Span),
    /// It has made room.
    Remove(u64),
    /// The span that is still going on, as far as it has come; `None` for
    /// nothing that is observed. It replaces the former one.
    Open(Option<Span>),
}

/// What was stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Past spans by number, oldest first.
    pub spans: Vec<(u64, Span)>,
    /// The span that was going on.
    pub open: Option<Span>,
}

impl Stored {
    /// Takes a change, as a store does.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put(number, span) => match self.spans.iter_mut().find(|(n, _)| *n == number) {
                Some(known) => known.1 = span,
                None => self.spans.push((number, span)),
            },
            Change::Remove(number) => self.spans.retain(|(n, _)| *n != number),
            Change::Open(span) => self.open = span,
        }
    }
}

/// A time in which an end could not be there, as that end tells the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// When it began, seconds since 1970 by a clock that was checked.
    pub at: u64,
    /// How long it lasted.
    pub lasted: Duration,
    /// It was the power; else the network.
    pub power: bool,
}

#[derive(Debug, Clone, Copy)]
enum Begin {
    This(Instant),
    Earlier { at: u64, trusted: bool },
}

#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    begin: Begin,
    kind: Kind,
    cause: Option<String>,
    lasted: Duration,
}

#[derive(Debug, Clone)]
struct Open {
    kind: Kind,
    cause: Option<String>,
    since: Instant,
}

/// What the wall clock said at one moment.
#[derive(Debug, Clone, Copy)]
struct Clock {
    wall: Duration,
    at: Instant,
    trusted: bool,
}

impl Clock {
    fn of(&self, moment: Instant) -> Duration {
        match moment.checked_duration_since(self.at) {
            Some(later) => self.wall + later,
            None => self.wall.saturating_sub(self.at.saturating_duration_since(moment)),
        }
    }
}

/// The log. See the module.
#[derive(Debug)]
pub struct History {
    entries: VecDeque<Entry>,
    next: u64,
    open: Option<Open>,
    clock: Clock,
    settle: Duration,
    mark_every: Duration,
    dirty: BTreeSet<u64>,
    removed: Vec<u64>,
    /// When the first change since the last [`Self::take_changes`] came.
    changed_at: Option<Instant>,
    marked_at: Instant,
}

impl History {
    /// Goes on from what was stored. Changes are to be stored `settle` after the
    /// first of them, and how far the present span has come every `mark_every`.
    /// `wall` is the time since 1970, trusted or not.
    pub fn new(stored: Stored, wall: Duration, settle: Duration, mark_every: Duration, now: Instant) -> Self {
        let mut history = Self {
            entries: VecDeque::new(),
            next: stored.spans.iter().map(|(number, _)| number + 1).max().unwrap_or(0),
            open: None,
            clock: Clock { wall, at: now, trusted: false },
            settle,
            mark_every,
            dirty: BTreeSet::new(),
            removed: Vec::new(),
            changed_at: None,
            marked_at: now,
        };
        history.entries.extend(stored.spans.into_iter().map(|(number, span)| earlier(number, span)));
        history.entries.make_contiguous().sort_by_key(|entry| entry.number);
        if let Some(span) = stored.open.filter(|span| span.lasted_ms > 0) {
            // The last run ended without a word: this is how far it came.
            let number = history.next;
            history.push(earlier(number, span), now);
        }
        history.trim(now);
        history
    }

    /// How things stand from now on; `None` for what is not to be counted at
    /// all (not started, stopped on purpose).
    pub fn set(&mut self, state: Option<(Kind, Option<&str>)>, now: Instant) {
        let same = match (&mut self.open, state) {
            (None, None) => true,
            (Some(open), Some((kind, cause))) if open.kind == kind => {
                // An outage often shows as silence first, and says later why.
                if open.cause.as_deref().is_none_or(is_vague) && cause.is_some_and(|cause| !is_vague(cause)) {
                    open.cause = cause.map(bounded);
                }
                true
            }
            _ => false,
        };
        if same {
            return;
        }
        self.close(now);
        self.open = state.map(|(kind, cause)| Open { kind, cause: cause.map(bounded), since: now });
        self.changed_at.get_or_insert(now);
    }

    /// The machine started at this time, seconds since 1970 by a clock that is
    /// trusted, and this log has not heard of that start before: from the last
    /// that it saw until then there was no power (or the machine started anew).
    /// Spans whose own stamps were never checked say nothing about when.
    pub fn machine_started(&mut self, at: u64, now: Instant) {
        let ends = self.entries.iter().map(|entry| self.span(entry)).filter(|span| span.trusted);
        let ends = ends.map(|span| span.at + span.lasted_ms.div_ceil(1000));
        let Some(seen) = ends.filter(|end| *end <= at).max().filter(|seen| *seen < at) else { return };
        let span = Span {
            at: seen,
            trusted: true,
            kind: Kind::NoPower,
            cause: None,
            lasted_ms: (at - seen).saturating_mul(1000),
        };
        self.push(earlier(self.next, span), now);
    }

    /// The newest times, `most` at the most, of the last month in which this end
    /// could not be there and whose stamps are trusted; for the other end.
    pub fn absences(&self, most: usize, now: Instant) -> Vec<Absence> {
        let absences = self.entries.iter().rev().filter(|entry| {
            matches!(entry.kind, Kind::NoPower | Kind::NoUplink)
                && self.ago(entry, now).is_some_and(|ago| ago.saturating_sub(entry.lasted) < MONTH)
        });
        let spans = absences.map(|entry| (self.span(entry), entry)).filter(|(span, _)| span.trusted);
        spans
            .map(|(span, entry)| Absence {
                at: span.at,
                lasted: entry.lasted,
                power: entry.kind == Kind::NoPower,
            })
            .take(most)
            .collect()
    }

    /// The other end says that it could not be there then. What is known already
    /// is not noted twice.
    pub fn other_was_away(&mut self, absence: Absence, now: Instant) {
        let cause = if absence.power { "no_power" } else { "no_network" };
        let known = |entry: &Entry| {
            entry.kind == Kind::OtherAway
                && entry.lasted.as_secs() == absence.lasted.as_secs()
                && self.span(entry).at == absence.at
        };
        if absence.lasted.is_zero() || self.entries.iter().any(known) {
            return;
        }
        let span = Span {
            at: absence.at,
            trusted: true,
            kind: Kind::OtherAway,
            cause: Some(cause.to_owned()),
            lasted_ms: u64::try_from(absence.lasted.as_millis()).unwrap_or(u64::MAX),
        };
        self.push(earlier(self.next, span), now);
    }

    /// What the wall clock says, and whether it agrees with somebody else's. A
    /// trusted one, or a jump, sets the stamps of this run anew.
    pub fn clock(&mut self, wall: Duration, trusted: bool, now: Instant) {
        let jumped = self.clock.of(now).abs_diff(wall) > SAME_CLOCK;
        let better = trusted && !self.clock.trusted;
        // An untrusted jump (somebody set the clock back) is not believed over
        // a trusted reading.
        if better || (jumped && (trusted || !self.clock.trusted)) {
            self.clock = Clock { wall, at: now, trusted };
            let this_run = self.entries.iter().filter(|entry| matches!(entry.begin, Begin::This(_)));
            self.dirty.extend(this_run.map(|entry| entry.number));
            self.changed_at.get_or_insert(now);
        }
    }

    /// When [`Self::take_changes`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let changed = self.changed_at.map(|at| at + self.settle);
        let mark = self.open.as_ref().map(|_| self.marked_at + self.mark_every);
        changed.into_iter().chain(mark).min()
    }

    /// What is to be stored now; all of it, whether due or not.
    pub fn take_changes(&mut self, now: Instant) -> Vec<Change> {
        self.marked_at = now;
        self.changed_at = None;
        let dirty = std::mem::take(&mut self.dirty);
        let removed = std::mem::take(&mut self.removed).into_iter().map(Change::Remove);
        let put = self
            .entries
            .iter()
            .filter(|entry| dirty.contains(&entry.number))
            .map(|entry| Change::Put(entry.number, self.span(entry)));
        let open = self.open.as_ref().map(|open| self.span(&self.entry(open, now)));
        removed.chain(put).chain([Change::Open(open)]).collect()
    }

    /// All that is to be stored, for a store that takes it whole.
    pub fn stored(&self, now: Instant) -> Stored {
        Stored {
            spans: self.entries.iter().map(|entry| (entry.number, self.span(entry))).collect(),
            open: self.open.as_ref().map(|open| self.span(&self.entry(open, now))),
        }
    }

    /// The program ends: what goes on now is closed, and to be stored.
    pub fn stop(&mut self, now: Instant) -> Vec<Change> {
        self.close(now);
        self.take_changes(now)
    }

    fn close(&mut self, now: Instant) {
        if let Some(open) = self.open.take() {
            let entry = self.entry(&open, now);
            self.push(entry, now);
        }
    }

    fn entry(&self, open: &Open, now: Instant) -> Entry {
        Entry {
            number: self.next,
            begin: Begin::This(open.since),
            kind: open.kind,
            cause: open.cause.clone(),
            lasted: now.saturating_duration_since(open.since),
        }
    }

    fn push(&mut self, entry: Entry, now: Instant) {
        self.next = entry.number + 1;
        self.dirty.insert(entry.number);
        self.entries.push_back(entry);
        self.changed_at.get_or_insert(now);
        self.trim(now);
    }

    fn trim(&mut self, now: Instant) {
        while self.entries.len() > MAX_SPANS {
            if let Some(oldest) = self.entries.pop_front() {
                self.dirty.remove(&oldest.number);
                self.removed.push(oldest.number);
                self.changed_at.get_or_insert(now);
            }
        }
    }

    fn span(&self, entry: &Entry) -> Span {
        let (at, trusted) = match entry.begin {
            Begin::This(began) => (self.clock.of(began).as_secs(), self.clock.trusted),
            Begin::Earlier { at, trusted } => (at, trusted),
        };
        let lasted_ms = u64::try_from(entry.lasted.as_millis()).unwrap_or(u64::MAX);
        Span { at, trusted, kind: entry.kind, cause: entry.cause.clone(), lasted_ms }
    }
}

fn earlier(number: u64, span: Span) -> Entry {
    Entry {
        number,
        begin: Begin::Earlier { at: span.at, trusted: span.trusted },
        kind: span.kind,
        cause: span.cause.as_deref().map(bounded),
        lasted: Duration::from_millis(span.lasted_ms),
    }
}

/// Says what was noticed, not why.
fn is_vague(cause: &str) -> bool {
    matches!(cause, "network_timeout" | "carrier_failed" | "starting")
}

fn bounded(cause: &str) -> String {
    let fits = cause.char_indices().take_while(|(at, c)| at + c.len_utf8() <= MAX_CAUSE);
    fits.map(|(_, c)| c).collect()
}

#[cfg(test)]
mod tests;
