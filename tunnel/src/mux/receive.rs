//! The receiving half of a stream: what waits for its reader, and how far the
//! other end may send.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::limits::{
    ACK_STEP, GRANT_STEP, INITIAL_WINDOW, MAX_WINDOW, MIN_WINDOW, SHRINK_AT_LEAST, SHRINK_ROUND_TRIPS,
};
use super::queue::ByteQueue;

/// Why bytes or an end were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Something before them is missing; a resume repairs that.
    Gap {
        /// Where the next byte was due.
        expected: u64,
    },
    /// They contradict what was granted or declared; nothing repairs that.
    Broken,
}

/// How soon an ack is worth its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    No,
    Soon,
    Now,
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct ReceiveHalf {
    queue: ByteQueue,
    /// Offset up to which the reader took everything.
    consumed: u64,
    /// Offset of the end, once known.
    end: Option<u64>,
    /// Credit promised to the other end.
    granted: u64,
    /// What the last ack or hello said was received.
    announced: u64,
    /// How much may be granted beyond what was consumed.
    window: u64,
    /// When tuning began to watch the reader, and where it stood.
    mark: Option<(Instant, u64)>,
}

impl ReceiveHalf {
    /// `granted` is what the other end may count on before any ack.
    pub(super) fn new(granted: u64) -> Self {
        Self {
            queue: ByteQueue::default(),
            consumed: 0,
            end: None,
            granted,
            announced: 0,
            window: INITIAL_WINDOW,
            mark: None,
        }
    }

    /// Bytes waiting for the reader.
    pub(super) fn held(&self) -> usize {
        self.queue.len()
    }

    /// The reader took everything and the end was reached.
    pub(super) fn is_done(&self) -> bool {
        self.end == Some(self.consumed)
    }

    fn received(&self) -> u64 {
        self.consumed + self.queue.len() as u64
    }

    /// What an ack says: the end counts as received when the reader is there,
    /// so the other end keeps a stream for as long as this one does.
    pub(super) fn acknowledgeable(&self) -> u64 {
        self.received() + u64::from(self.is_done())
    }

    pub(super) fn granted(&self) -> u64 {
        self.granted
    }

    /// An ack is owed for something that came.
    pub(super) fn owes_ack(&self) -> bool {
        self.announced < self.acknowledgeable()
    }

    /// Bytes that may be held or still come on what was granted.
    pub(super) fn exposure(&self) -> u64 {
        self.end.unwrap_or(self.granted) - self.consumed
    }

    /// Takes bytes; says how many of them were new.
    pub(super) fn accept(&mut self, offset: u64, bytes: &Bytes) -> Result<usize, Refusal> {
        let received = self.received();
        let Some(known) = received.checked_sub(offset) else {
            return Err(Refusal::Gap { expected: received });
        };
        let stop = offset.checked_add(bytes.len() as u64).ok_or(Refusal::Broken)?;
        if stop > self.end.unwrap_or(self.granted) {
            return Err(Refusal::Broken);
        }
        let Some(new) = stop.checked_sub(received).filter(|new| *new > 0) else {
            return Ok(0);
        };
        let skip = usize::try_from(known).expect("within the frame, since something is new");
        let fresh = bytes.slice(skip..);
        // A small rest must not keep a large message's memory.
        let keeps_most = fresh.len() >= bytes.len() / 2;
        self.queue.push(if keeps_most { fresh } else { Bytes::copy_from_slice(&fresh) });
        Ok(usize::try_from(new).expect("within the frame"))
    }

    /// Takes the end; says whether it is news.
    pub(super) fn finish(&mut self, offset: u64) -> Result<bool, Refusal> {
        let received = self.received();
        match self.end {
            _ if offset > received => Err(Refusal::Gap { expected: received }),
            Some(end) if end == offset => Ok(false),
            None if offset == received => {
                self.end = Some(offset);
                Ok(true)
            }
            _ => Err(Refusal::Broken),
        }
    }

    /// Hands at most `max` bytes to the reader and watches how fast it is.
    pub(super) fn read(&mut self, max: usize, now: Instant, round_trip: Duration) -> Option<Bytes> {
        let from = self.consumed;
        let bytes = self.queue.take(max)?;
        self.consumed += bytes.len() as u64;
        self.tune(from, now, round_trip);
        Some(bytes)
    }

    /// The window doubles where its reader takes half of it within two round
    /// trips (then the window is what limits the rate) and halves, down to
    /// where it began, where the reader is far slower than it allows.
    fn tune(&mut self, from: u64, now: Instant, round_trip: Duration) {
        let (since, mark) = *self.mark.get_or_insert((now, from));
        let elapsed = now.saturating_duration_since(since);
        let took_half = self.consumed - mark > self.window / 2;
        if elapsed > SHRINK_AT_LEAST.max(round_trip * SHRINK_ROUND_TRIPS) {
            self.window = (self.window / 2).max(INITIAL_WINDOW);
        } else if took_half && elapsed <= 2 * round_trip {
            self.window = (self.window * 2).min(MAX_WINDOW);
        } else if !took_half {
            return;
        }
        self.mark = Some((now, self.consumed));
    }

    /// The credit to promise next, with `free` bytes left of the session's
    /// window. Half of the rest at most goes to one stream, so that stopped
    /// readers can't take all of it from the others.
    fn next_credit(&self, free: u64) -> u64 {
        if self.end.is_some() {
            return self.granted;
        }
        let held = self.exposure();
        let wanted = self.window.saturating_sub(held);
        self.granted + wanted.min(free / 2).max(MIN_WINDOW.saturating_sub(held))
    }

    /// How soon the other end should hear: at once where a quarter of the
    /// window came, or where what can be granted is worth as much as what is
    /// left; soon where it came short of that or is about to stop.
    pub(super) fn urgency(&self, free: u64) -> Urgency {
        let unannounced = self.acknowledgeable() - self.announced;
        if unannounced >= ACK_STEP.max(self.window / 4) || (self.is_done() && unannounced > 0) {
            return Urgency::Now;
        }
        let more = self.next_credit(free) - self.granted;
        let left = self.granted - self.received();
        if more >= GRANT_STEP && more >= left.min(self.window / 2) {
            Urgency::Now
        } else if unannounced > 0 || (more > 0 && left < GRANT_STEP) {
            Urgency::Soon
        } else {
            Urgency::No
        }
    }

    /// What to say now: received, and credit. From here on it is promised.
    pub(super) fn announce(&mut self, free: u64) -> (u64, u64) {
        self.granted = self.next_credit(free);
        self.announced = self.acknowledgeable();
        (self.announced, self.granted)
    }

    #[cfg(test)]
    pub(super) fn pieces(&self) -> usize {
        self.queue.pieces()
    }

    #[cfg(test)]
    pub(super) fn window(&self) -> u64 {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::MIN_ROUND_TRIP;
    use super::*;

    #[test]
    fn a_small_rest_of_an_overlap_does_not_keep_the_whole_message() {
        let mut half = ReceiveHalf::new(100_000);
        let message = Bytes::from(vec![1; 60_001]);
        half.accept(0, &message.slice(..60_000)).unwrap();
        half.read(60_000, Instant::now(), MIN_ROUND_TRIP).unwrap();
        assert_eq!(half.accept(0, &message), Ok(1));
        let rest = half.read(9, Instant::now(), MIN_ROUND_TRIP).unwrap();
        assert!(!message.as_ptr_range().contains(&rest.as_ptr()));
    }

    #[test]
    fn a_stream_whose_end_is_known_takes_no_more_of_the_sessions_window() {
        let mut half = ReceiveHalf::new(MIN_WINDOW);
        half.accept(0, &Bytes::from_static(b"abc")).unwrap();
        assert_eq!(half.exposure(), MIN_WINDOW);
        assert_eq!(half.finish(3), Ok(true));
        assert_eq!(half.exposure(), 3);
        assert_eq!(half.announce(u64::MAX), (3, MIN_WINDOW));
        half.read(9, Instant::now(), MIN_ROUND_TRIP).unwrap();
        assert_eq!(half.announce(u64::MAX), (4, MIN_WINDOW));
        assert_eq!(half.exposure(), 0);
    }
}
