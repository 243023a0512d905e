//! Which of the latest records came, and how often.

/// Records remembered. At two packets a second, an open stream that idles, it is a minute.
pub(super) const WINDOW: u32 = 128;

/// Records missed in a row, from which on it is an outage or a full queue rather than loss, and
/// doesn't count: of 30 % loss, that is one in 10^8.
const OUTAGE: u64 = 16;

/// Fewer records than this tell nothing.
const LEAST: u32 = 12;

/// Not missed, nor counted: part of an outage.
const UNKNOWN: u8 = u8::MAX;

/// The latest records, by number.
#[derive(Debug)]
pub(super) struct Seen {
    newest: Option<u64>,
    /// How often each of them came, by number modulo [`WINDOW`].
    arrivals: [u8; WINDOW as usize],
    missed: u32,
    count: u32,
    /// Copies of records up to this one were made while the connection opened.
    opening: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Self { newest: None, arrivals: [UNKNOWN; WINDOW as usize], missed: 0, count: 0, opening: 0 }
    }
}

impl Seen {
    /// A record came: how often it has by now, as far as that tells anything.
    pub(super) fn arrived(&mut self, number: u64) -> u8 {
        match self.newest {
            Some(newest) if number <= newest => {
                if newest - number >= u64::from(WINDOW) {
                    return 0;
                }
                let slot = &mut self.arrivals[index(number)];
                match *slot {
                    UNKNOWN => return 0,
                    0 => self.missed -= 1,
                    _ => {}
                }
                *slot = slot.saturating_add(1).min(UNKNOWN - 1);
                return if number > self.opening { *slot } else { 0 };
            }
            Some(newest) => {
                let gap = number - newest - 1;
                let filler = if gap < OUTAGE { 0 } else { UNKNOWN };
                for lost in (newest + 1..number).rev().take(WINDOW as usize) {
                    self.put(lost, filler);
                }
            }
            None => {}
        }
        self.newest = Some(number);
        self.put(number, 1);
        1
    }

    /// How many were missed.
    pub(super) fn missed(&self) -> u32 {
        if self.count < LEAST { 0 } else { self.missed }
    }

    /// Of how many.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Copies of what has come so far will tell nothing.
    pub(super) fn forget_copies(&mut self) {
        // What was sent before the peer was open too is still on its way.
        self.opening = self.newest.unwrap_or(0) + u64::from(WINDOW) / 8;
    }

    /// Replaces the slot's former record.
    fn put(&mut self, number: u64, arrivals: u8) {
        let former = std::mem::replace(&mut self.arrivals[index(number)], arrivals);
        self.missed += u32::from(arrivals == 0);
        self.missed -= u32::from(former == 0);
        self.count += u32::from(arrivals != UNKNOWN);
        self.count -= u32::from(former != UNKNOWN);
    }
}

fn index(number: u64) -> usize {
    (number % u64::from(WINDOW)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(numbers: impl IntoIterator<Item = u64>) -> (u32, u32) {
        let mut seen = Seen::default();
        for number in numbers {
            seen.arrived(number);
        }
        let missed = seen.arrivals.iter().filter(|arrivals| **arrivals == 0).count();
        assert_eq!(missed, seen.missed as usize);
        (seen.missed(), seen.count())
    }

    #[test]
    fn gaps_are_missed_until_filled_and_forgotten_when_old() {
        assert_eq!(after(0..50), (0, 50));
        assert_eq!(after((0..50).filter(|n| n % 10 != 5)), (5, 50));
        assert_eq!(after((0..50).filter(|n| n % 10 != 5).chain([5, 15])), (3, 50));
        assert_eq!(after((0..50).filter(|n| n % 10 != 5).chain(50..300)), (0, WINDOW));
        assert_eq!(after([0, 2, 4, 6]), (0, 7), "too few to tell");
    }

    #[test]
    fn an_outage_and_ages_count_for_nothing() {
        assert_eq!(after((0..20).chain(60..80)), (0, 40));
        assert_eq!(after((0..20).chain([1 << 40]).chain([3])), (0, 1));
        assert_eq!(after([u64::MAX >> 16, 0]), (0, 1));
    }

    #[test]
    fn copies_are_counted_once_the_opening_is_over() {
        let mut seen = Seen::default();
        assert_eq!([seen.arrived(3), seen.arrived(3), seen.arrived(3)], [1, 2, 3]);
        seen.forget_copies();
        assert_eq!((seen.arrived(3), seen.arrived(5), seen.arrived(5)), (0, 1, 0));
        let later = 6 + u64::from(WINDOW) / 8;
        assert_eq!([seen.arrived(later), seen.arrived(later)], [1, 2]);
        for _ in 0..1_000 {
            seen.arrived(later);
        }
        assert_eq!(seen.arrived(later), UNKNOWN - 1);
    }
}
