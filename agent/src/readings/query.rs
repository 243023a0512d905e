//! Reads the log back: the next readings after a number, the gaps between
//! them, and times corrected where that is possible.

use std::ops::Bound;

use farm_protocol::frame::MAX_OFFSET;
use farm_protocol::readings::{Clock, Gap, GapReason, MAX_READINGS, Reading};
use farm_store::{Error, Store};

use super::block::{Block, Moment};
use super::log::{MAX_PRUNED, Old};
use super::tables::{BLOCKS, BOOTS, FIRST, HOLES};

/// Blocks read at once: at most 256 KB.
const BLOCKS_AT_ONCE: usize = 64;

/// Holes looked at for one gap; a farm has one for each power cut.
const HOLES_AT_ONCE: usize = 256;

/// What stands after a number.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// Readings, 1 to [`MAX_READINGS`].
    Readings(Vec<Reading>),
    /// Readings that are gone.
    Gap(Gap),
}

/// A part of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In order; may be empty, where numbers were left out.
    pub items: Vec<Item>,
    /// Everything up to this number has been looked at.
    pub upto: u64,
}

/// What follows the number `after`, up to `newest`, the newest durable one.
/// Blocks on the disk.
///
/// # Errors
/// When the store is not available.
pub fn page(store: &Store, after: u64, newest: u64) -> Result<Page, Error> {
    let mut page = Page { items: Vec::new(), upto: after };
    if after >= newest {
        return Ok(page);
    }
    // The block that holds the next number begins at or before it.
    let around = store.range_back(&BLOCKS, ..=after + 1, 1)?;
    let behind = (Bound::Excluded(after + 1), Bound::Included(newest));
    let blocks = store.range(&BLOCKS, behind, BLOCKS_AT_ONCE)?;
    let more = blocks.len() == BLOCKS_AT_ONCE;
    let mut readings = Vec::new();
    for (first, block) in around.into_iter().chain(blocks) {
        let times = Times::of(store, &block.start)?;
        for (number, entry) in (first..).zip(block.entries) {
            if number <= page.upto || number > newest {
                continue;
            }
            if readings.len() == MAX_READINGS {
                page.items.push(Item::Readings(readings));
                return Ok(page);
            }
            if number > page.upto + 1 {
                page.readings(&mut readings);
                page.gaps(store, number - 1)?;
            }
            readings.push(Reading {
                sequence: number,
                time: (times.start + entry.after).min(MAX_OFFSET),
                clock: times.clock,
                name: entry.name,
                value: entry.value,
                unit: entry.unit,
            });
            page.upto = number;
        }
    }
    page.readings(&mut readings);
    if !more && page.upto < newest {
        page.gaps(store, newest)?;
    }
    Ok(page)
}

impl Page {
    fn readings(&mut self, readings: &mut Vec<Reading>) {
        if !readings.is_empty() {
            self.items.push(Item::Readings(std::mem::take(readings)));
        }
    }

    /// Nothing is stored from here to `last`: says why, as far as it matters.
    fn gaps(&mut self, store: &Store, last: u64) -> Result<(), Error> {
        let mut from = self.upto + 1;
        self.upto = last;
        let mut gap = |first, last, reason| {
            if first <= last {
                self.items.push(Item::Gap(Gap { first, last, reason }));
            }
        };
        // Read after the blocks: what a pruning has just taken is not lost.
        let kept = store.get(&FIRST, &())?.unwrap_or(1);
        if from < kept {
            gap(from, last.min(kept - 1), GapReason::Pruned);
            from = kept;
        }
        let before = store.range_back(&HOLES, ..from, 1)?;
        let holes = store.range(&HOLES, from..=last.max(from), HOLES_AT_ONCE)?;
        for (first, hole) in before.into_iter().chain(holes) {
            if hole.lost || hole.last < from || first > last {
                continue;
            }
            if first > from {
                gap(from, first - 1, GapReason::Damaged);
            }
            from = hole.last + 1;
        }
        gap(from, last, GapReason::Damaged);
        Ok(())
    }
}

/// What the times of a block are.
struct Times {
    start: u64,
    clock: Clock,
}

impl Times {
    fn of(store: &Store, start: &Moment) -> Result<Self, Error> {
        if start.trusted {
            return Ok(Self { start: start.wall, clock: Clock::Set });
        }
        let began = store.get(&BOOTS, &start.boot)?.and_then(|boot| boot.began);
        Ok(match began {
            Some(began) => Self { start: began.saturating_add(start.monotonic), clock: Clock::Corrected },
            None => Self { start: start.wall, clock: Clock::Guessed },
        })
    }
}

/// The oldest blocks, for pruning. Blocks on the disk.
///
/// # Errors
/// When the store is not available.
pub fn oldest(store: &Store) -> Result<Vec<Old>, Error> {
    let mut found = Vec::new();
    let mut after = Bound::Unbounded;
    while found.len() < MAX_PRUNED {
        let blocks = store.range(&BLOCKS, (after, Bound::Unbounded), BLOCKS_AT_ONCE)?;
        let Some((last, _)) = blocks.last() else { break };
        after = Bound::Excluded(*last);
        for (first, block) in blocks {
            let times = Times::of(store, &block.start)?;
            let time = (times.clock != Clock::Guessed).then_some(times.start);
            let end = first + block.entries.len() as u64;
            found.push(Old { first, end, bytes: block.bytes(), time });
        }
    }
    Ok(found)
}

/// Bytes of all blocks before the number `end`. Blocks on the disk, some
/// milliseconds for each thousand of them.
///
/// # Errors
/// When the store is not available.
pub fn measure(store: &Store, end: u64) -> Result<u64, Error> {
    let (mut bytes, mut after) = (0, Bound::Unbounded);
    loop {
        let blocks = store.range(&BLOCKS, (after, Bound::Excluded(end)), BLOCKS_AT_ONCE)?;
        let Some((last, _)) = blocks.last() else { return Ok(bytes) };
        after = Bound::Excluded(*last);
        bytes += blocks.iter().map(|(_, block): &(u64, Block)| block.bytes()).sum::<u64>();
    }
}
