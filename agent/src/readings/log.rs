//! What becomes of readings: their numbers, what is written, what is pruned.
//! Pure: the store is [`super::writer`]'s.
//!
//! A number is never given twice, whatever the card loses: numbers are reserved
//! ahead in a vital table, and a start that can't know how many of them were
//! used goes on behind all of them. What is left out then is written down as a
//! hole, so that nobody takes it for lost readings.

use std::time::Duration;

use super::block::{Block, Recorded, pack};
use super::tables::Hole;

/// Numbers that one vital commit reserves: at a reading a second one such
/// commit (about 20 KB) an hour.
const RESERVE: u64 = 4096;

/// Most blocks that one pruning removes: their keys fill a third of a batch.
pub const MAX_PRUNED: usize = 512;

/// A pruning for size removes this share of the limit at once (a sixteenth):
/// each costs a commit.
const PRUNE_SHARE: u64 = 16;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of blocks, see [`Block::bytes`].
    pub bytes: u64,
    /// Age, where the clock is trusted.
    pub age: Duration,
}

/// What a start found in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// The number after the newest reading; 0 or 1 if there is none.
    pub end: u64,
    /// Numbers below this may have been given.
    pub reserved: u64,
    /// Opening the store found that something was lost.
    pub lost: bool,
}

/// The log's state between two commits.
#[derive(Debug)]
pub struct Log {
    /// The number after the newest durable reading.
    durable: u64,
    next: u64,
    reserved: u64,
    holes: Vec<(u64, Hole)>,
    limits: Limits,
    /// Bytes of all blocks; `None` until they have been counted.
    bytes: Option<u64>,
    /// Bytes written since the start, for the count.
    added: u64,
}

/// What is to be committed together.
#[derive(Debug, PartialEq)]
pub struct Group {
    /// The blocks and their numbers.
    pub blocks: Vec<(u64, Block)>,
    /// Reserve numbers up to here.
    pub reserve: Option<u64>,
    /// Ranges of numbers that were left out.
    pub holes: Vec<(u64, Hole)>,
    /// The first number of the group.
    pub first: u64,
    /// The number after its last one.
    pub end: u64,
}

/// A block, as pruning sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Old {
    /// Its first number.
    pub first: u64,
    /// The number after its last one.
    pub end: u64,
    /// See [`Block::bytes`].
    pub bytes: u64,
    /// When it began, milliseconds since 1970, if that is known for certain.
    pub time: Option<u64>,
}

/// What is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prune {
    /// The blocks.
    pub blocks: Vec<u64>,
    /// The first number that is kept.
    pub first_kept: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their readings.
    pub readings: u64,
}

impl Log {
    /// Goes on behind what was found.
    pub fn start(found: Found, limits: Limits) -> Self {
        let end = found.end.max(1);
        let next = found.reserved.max(end);
        let hole = (next > end).then_some((end, Hole { last: next - 1, lost: found.lost }));
        Self {
            durable: end,
            next,
            reserved: found.reserved,
            holes: hole.into_iter().collect(),
            limits,
            bytes: None,
            added: 0,
        }
    }

    /// The number of the newest durable reading, or of what is written down as
    /// left out behind it; 0 for none.
    pub fn newest(&self) -> u64 {
        self.durable - 1
    }

    /// The newest number that may have been given; 0 for none.
    pub fn given(&self) -> u64 {
        self.next - 1
    }

    /// Whether numbers were left out that are not written down yet.
    pub fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// Other limits, from a new config.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Numbers readings and says what to commit. Then tell what became of it.
    pub fn plan(&self, readings: Vec<Recorded>) -> Group {
        let mut end = self.next;
        let mut blocks = Vec::new();
        for block in pack(readings) {
            let first = end;
            end += block.entries.len() as u64;
            blocks.push((first, block));
        }
        let reserve = (end > self.reserved).then_some(end + RESERVE);
        Group { blocks, reserve, holes: self.holes.clone(), first: self.next, end }
    }

    /// The group is durable.
    pub fn committed(&mut self, group: &Group) {
        self.next = group.end;
        self.durable = group.end;
        self.reserved = group.reserve.unwrap_or(self.reserved);
        self.holes.clear();
        let bytes: u64 = group.blocks.iter().map(|(_, block)| block.bytes()).sum();
        self.added += bytes;
        self.bytes = self.bytes.map(|all| all + bytes);
    }

    /// The group may be there or not, and nobody was promised anything: its
    /// numbers are not used again.
    pub fn failed(&mut self, group: &Group) {
        if group.end == group.first {
            return;
        }
        self.next = group.end;
        match self.holes.last_mut() {
            // One after the other fails, for as long as a disk is full.
            Some((_, hole)) if hole.last + 1 == group.first && !hole.lost => hole.last = group.end - 1,
            _ => self.holes.push((group.first, Hole { last: group.end - 1, lost: false })),
        }
    }

    /// What to reserve at an end in good order, so that the next start goes on
    /// without a hole.
    pub fn close(&self) -> Option<u64> {
        (self.reserved != self.next).then_some(self.next)
    }

    /// The blocks that were there at the start have been counted.
    pub fn counted(&mut self, bytes: u64) {
        self.bytes = Some(bytes + self.added);
    }

    /// Bytes of all blocks, once they have been counted.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Whether the log is over its size.
    pub fn is_over(&self) -> bool {
        self.bytes.is_some_and(|bytes| bytes > self.limits.bytes)
    }

    /// What to remove, given the oldest blocks in order (at most
    /// [`MAX_PRUNED`] count) and the time where it is trusted. Ask again while
    /// it gives something.
    pub fn prune(&self, oldest: &[Old], now: Option<u64>) -> Option<Prune> {
        let oldest = &oldest[..oldest.len().min(MAX_PRUNED)];
        let too_many = if self.is_over() {
            let goal = self.limits.bytes - self.limits.bytes / PRUNE_SHARE;
            let mut over = self.bytes?.saturating_sub(goal);
            let enough = oldest.iter().position(|old| {
                let done = over == 0;
                over = over.saturating_sub(old.bytes);
                done
            });
            enough.unwrap_or(oldest.len())
        } else {
            0
        };
        // Everything before a block that is certainly too old is older still.
        let age = u64::try_from(self.limits.age.as_millis()).unwrap_or(u64::MAX);
        let horizon = now.map(|now| now.saturating_sub(age));
        let too_old = horizon.and_then(|horizon| {
            oldest.iter().rposition(|old| old.time.is_some_and(|time| time < horizon)).map(|at| at + 1)
        });
        let gone = &oldest[..too_many.max(too_old.unwrap_or(0))];
        Some(Prune {
            first_kept: gone.last()?.end,
            blocks: gone.iter().map(|old| old.first).collect(),
            bytes: gone.iter().map(|old| old.bytes).sum(),
            readings: gone.iter().map(|old| old.end - old.first).sum(),
        })
    }

    /// A pruning is durable.
    pub fn pruned(&mut self, prune: &Prune) {
        self.bytes = self.bytes.map(|all| all.saturating_sub(prune.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::{Moment, Sample};
    use super::*;

    const LIMITS: Limits = Limits { bytes: 10_000, age: Duration::from_secs(1000) };

    fn some(count: u64) -> Vec<Recorded> {
        let at = Moment { boot: 1, monotonic: 0, wall: 0, trusted: false };
        let sample = Sample::new("x".to_owned(), 1.0, None).unwrap();
        (0..count).map(|_| Recorded { sample: sample.clone(), at }).collect()
    }

    /// What the store would hold, and what the next start would find in it.
    #[derive(Default)]
    struct Disk {
        end: u64,
        reserved: u64,
        holes: Vec<(u64, Hole)>,
    }

    impl Disk {
        fn write(&mut self, group: &Group) {
            self.end = group.end;
            self.reserved = group.reserve.unwrap_or(self.reserved);
            self.holes.extend(&group.holes);
        }

        fn start(&self, lost: bool) -> Log {
            Log::start(Found { end: self.end, reserved: self.reserved, lost }, LIMITS)
        }
    }

    #[test]
    fn numbers_begin_at_one_and_an_end_in_good_order_leaves_no_hole() {
        let mut disk = Disk::default();
        let mut log = disk.start(false);
        assert_eq!(log.newest(), 0);
        for _ in 0..3 {
            let group = log.plan(some(2));
            disk.write(&group);
            log.committed(&group);
        }
        assert_eq!(log.newest(), 6);
        disk.reserved = log.close().unwrap();
        let log = disk.start(false);
        assert_eq!(log.newest(), 6);
        assert_eq!(log.plan(some(1)).holes, []);
    }

    #[test]
    fn no_number_is_given_twice_whatever_the_card_loses() {
        let mut disk = Disk::default();
        let mut log = disk.start(false);
        let mut newest = 0;
        for round in 0..5 {
            for _ in 0..3000 {
                let group = log.plan(some(1));
                assert!(group.first > newest, "round {round}");
                newest = group.first;
                disk.write(&group);
                log.committed(&group);
            }
            // A power cut; ordinary tables come back older, vital ones don't.
            disk.end = if round % 2 == 0 { 1 } else { newest - 10 };
            let end = disk.end;
            log = disk.start(true);
            let hole = log.plan(some(1)).holes[0];
            assert_eq!(hole, (end, Hole { last: log.given(), lost: true }));
            assert_eq!(log.newest(), end - 1, "nobody is shown the hole before it is written down");
        }
    }

    #[test]
    fn the_numbers_of_a_failed_commit_are_left_out() {
        let mut log = Log::start(Found::default(), LIMITS);
        for _ in 0..3 {
            let group = log.plan(some(4));
            log.failed(&group);
        }
        let group = log.plan(some(1));
        assert_eq!((group.first, group.holes.as_slice()), (13, &[(1, Hole { last: 12, lost: false })][..]));
        assert!(group.reserve.is_some(), "what failed reserved nothing");
        log.committed(&group);
        assert_eq!(log.plan(some(1)).holes, []);
    }

    fn old(first: u64, time: Option<u64>) -> Old {
        Old { first, end: first + 10, bytes: 1000, time }
    }

    #[test]
    fn pruning_for_size_takes_the_oldest_and_waits_for_the_count() {
        let mut log = Log::start(Found { end: 121, reserved: 121, lost: false }, LIMITS);
        let blocks: Vec<Old> = (0..12).map(|n| old(1 + 10 * n, None)).collect();
        assert_eq!(log.prune(&blocks, None), None, "not counted yet");
        log.counted(12_000);
        let prune = log.prune(&blocks, None).unwrap();
        assert_eq!((prune.blocks.len(), prune.first_kept, prune.readings), (3, 31, 30));
        log.pruned(&prune);
        assert_eq!((log.bytes(), log.prune(&blocks[3..], None)), (Some(9000), None));
    }

    #[test]
    fn pruning_for_age_needs_a_clock() {
        let log = Log::start(Found { end: 41, reserved: 41, lost: false }, LIMITS);
        let blocks = [old(1, None), old(11, Some(5_000)), old(21, None), old(31, Some(2_000_000))];
        assert_eq!(log.prune(&blocks, None), None);
        assert_eq!(log.prune(&blocks, Some(900_000)), None, "nothing is too old yet");
        let prune = log.prune(&blocks, Some(1_500_000)).unwrap();
        assert_eq!((prune.blocks, prune.first_kept), (vec![1, 11], 21));
        assert_eq!(log.prune(&[old(1, None)], Some(u64::MAX)), None, "nobody knows how old it is");
    }
}
