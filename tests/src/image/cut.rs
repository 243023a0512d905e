//! What a power cut leaves on a card: everything up to its last flush, and of
//! the writes after that any part, torn at a sector's end.
//!
//! qemu's `blklogwrites` records every write and flush in the format of the
//! kernel's dm-log-writes.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::card::Card;
use super::{ImageError, doing};

/// What a log begins with (Linux, `dm-log-writes.c`).
const MAGIC: u64 = 0x006a_7366_7773_6872;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// Bytes of a sector in the log.
const SECTOR: usize = 512;

/// A pseudo-random sequence (xorshift64*), so that a seed repeats a cut.
pub(super) struct Chance(u64);

impl Chance {
    /// From a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// From 0 up to below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % end.max(1)
    }
}

/// One entry of the log.
struct Entry {
    offset: u64,
    length: u64,
    flags: u64,
    /// Where its bytes are in the log.
    data: usize,
}

/// What a replay did.
pub(super) struct Replayed {
    /// Writes that the log has.
    pub(super) writes: usize,
    /// Flushes among them.
    pub(super) flushes: usize,
    /// Writes after the last flush.
    pub(super) unflushed: usize,
    /// Of those, the ones that were lost.
    pub(super) lost: usize,
}

impl std::fmt::Display for Replayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { writes, flushes, unflushed, lost } = self;
        write!(f, "{writes} writes, {flushes} flushes; of {unflushed} after the last flush {lost} lost")
    }
}

/// Applies the log to `card`, a copy of the card from before the start.
pub(super) fn replay(log: &Path, card: &Card, chance: &mut Chance) -> Result<Replayed, ImageError> {
    let bytes = doing("reading the log of writes", std::fs::read(log))?;
    let entries = entries(&bytes)?;
    let last_flush = entries.iter().rposition(|entry| entry.flags & FLUSH != 0);
    let file = doing("opening the card", OpenOptions::new().write(true).open(card.path()))?;
    let mut done = Replayed { writes: 0, flushes: 0, unflushed: 0, lost: 0 };
    for (index, entry) in entries.iter().enumerate() {
        done.flushes += usize::from(entry.flags & FLUSH != 0);
        done.writes += usize::from(entry.length > 0);
        let durable = last_flush.is_some_and(|last| index <= last) || entry.flags & FUA != 0;
        let mut length = usize::try_from(entry.length).unwrap_or(0);
        if !durable && length > 0 {
            done.unflushed += 1;
            match chance.below(4) {
                0 | 1 => {
                    done.lost += 1;
                    continue;
                }
                // Torn: only its first sectors.
                2 => {
                    length =
                        SECTOR * usize::try_from(chance.below(entry.length / SECTOR as u64 + 1)).unwrap_or(0)
                }
                _ => {}
            }
        }
        let write = if entry.flags & DISCARD != 0 {
            file.write_all_at(&vec![0; length], entry.offset)
        } else {
            file.write_all_at(&bytes[entry.data..entry.data + length], entry.offset)
        };
        doing("replaying a write", write)?;
    }
    Ok(done)
}

fn entries(bytes: &[u8]) -> Result<Vec<Entry>, ImageError> {
    let wrong = |what: &str| ImageError::Wrong(format!("the log of writes {what}"));
    let number =
        |at: usize| -> Option<u64> { Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
    // The power was cut before the first write, which begins the log.
    if bytes.iter().take(SECTOR).all(|byte| *byte == 0) {
        return Ok(Vec::new());
    }
    if number(0) != Some(MAGIC) {
        return Err(wrong("is none"));
    }
    let count = number(16).ok_or_else(|| wrong("has no head"))?;
    let mut entries = Vec::new();
    let mut at = SECTOR;
    for _ in 0..count {
        let field = |index: usize| number(at + 8 * index);
        let (Some(sector), Some(sectors), Some(flags)) = (field(0), field(1), field(2)) else {
            // The last entries did not get into the log before the cut.
            break;
        };
        let length = sectors * SECTOR as u64;
        let data = at + SECTOR;
        let stored = if flags & DISCARD != 0 {
            0
        } else {
            usize::try_from(length).map_err(|_| wrong("is damaged"))?
        };
        if data + stored > bytes.len() {
            break;
        }
        entries.push(Entry { offset: sector * SECTOR as u64, length, flags, data });
        at = data + stored;
    }
    Ok(entries)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A log as dm-log-writes lays it out: a head, then each entry's own head
    /// and its bytes.
    fn log(entries: &[(u64, u64, u64)]) -> Vec<u8> {
        let sector = |numbers: &[u64]| {
            let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            bytes.resize(SECTOR, 0);
            bytes
        };
        let mut bytes = sector(&[MAGIC, 1, entries.len() as u64, SECTOR as u64]);
        for (at, sectors, flags) in entries {
            bytes.extend(sector(&[*at, *sectors, *flags, 0]));
            bytes.extend(vec![7; usize::try_from(*sectors).unwrap() * SECTOR]);
        }
        bytes
    }

    #[test]
    fn a_log_is_read_as_far_as_it_was_written() {
        let whole = log(&[(2, 1, 0), (0, 0, FLUSH), (9, 3, FUA)]);
        let read = entries(&whole).unwrap();
        let read: Vec<_> = read.iter().map(|entry| (entry.offset, entry.length, entry.flags)).collect();
        assert_eq!(read, [(1024, 512, 0), (0, 0, FLUSH), (9 * 512, 3 * 512, FUA)]);
        assert_eq!(entries(&whole[..whole.len() - 1]).unwrap().len(), 2, "the last entry is cut short");
    }

    #[test]
    fn a_log_that_was_never_begun_has_no_writes_and_anything_else_is_no_log() {
        assert!(entries(&[]).unwrap().is_empty());
        assert!(entries(&[0; 4096]).unwrap().is_empty());
        assert!(entries(b"no log").is_err());
    }
}
