//! The sending half of a stream: what was not sent, what was sent and not
//! acknowledged, and how far the other end can take more.

use std::collections::VecDeque;

use bytes::Bytes;

use super::limits::FRAME_CHARGE;
use super::queue::ByteQueue;

/// An ack for bytes that were never sent, or a hello that takes back what was
/// acknowledged: there is nothing left to continue from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// The sending half. Offsets are absolute; the end of the stream takes one.
#[derive(Debug)]
pub(super) struct SendHalf {
    /// Offset of the first byte held.
    start: u64,
    unacknowledged: ByteQueue,
    unsent: ByteQueue,
    /// Offsets after each frame in flight.
    frame_ends: VecDeque<u64>,
    /// Highest offset ever sent, on any carrier.
    highest: u64,
    /// What was acknowledged when the last carrier was lost.
    settled: u64,
    credit: u64,
    finishing: bool,
    fin_sent: bool,
    fin_acknowledged: bool,
}

impl SendHalf {
    pub(super) fn new(credit: u64) -> Self {
        Self {
            start: 0,
            unacknowledged: ByteQueue::default(),
            unsent: ByteQueue::default(),
            frame_ends: VecDeque::new(),
            highest: 0,
            settled: 0,
            credit,
            finishing: false,
            fin_sent: false,
            fin_acknowledged: false,
        }
    }

    /// Bytes held for sending and for replay.
    pub(super) fn held(&self) -> usize {
        self.unacknowledged.len() + self.unsent.len()
    }

    pub(super) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// What this half adds to the carrier's bytes in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.unacknowledged.len() + self.frame_ends.len() * FRAME_CHARGE
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.start + u64::from(self.fin_acknowledged)
    }

    /// Everything was received by the other end, the end included.
    pub(super) fn is_done(&self) -> bool {
        self.fin_acknowledged
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finishing
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        self.unsent.push(bytes);
    }

    pub(super) fn finish(&mut self) {
        self.finishing = true;
    }

    fn sent_to(&self) -> u64 {
        self.start + self.unacknowledged.len() as u64
    }

    fn end(&self) -> u64 {
        self.start + self.held() as u64
    }

    /// Bytes that the next frame may have.
    pub(super) fn sendable(&self, max: usize) -> usize {
        let room = self.credit.saturating_sub(self.sent_to());
        max.min(self.unsent.len()).min(usize::try_from(room).unwrap_or(usize::MAX))
    }

    pub(super) fn fin_due(&self) -> bool {
        self.finishing && !self.fin_sent && !self.fin_acknowledged && self.unsent.is_empty()
    }

    pub(super) fn has_work(&self) -> bool {
        self.fin_due() || self.sendable(1) > 0
    }

    /// The next frame's offset and payload, at most `max` bytes.
    pub(super) fn take(&mut self, max: usize) -> Option<(u64, Bytes)> {
        let offset = self.sent_to();
        let bytes = self.unsent.fill(self.sendable(max))?;
        self.unacknowledged.push(bytes.clone());
        self.frame_ends.push_back(self.sent_to());
        self.highest = self.highest.max(self.sent_to());
        Some((offset, bytes))
    }

    /// The offset of the end, from now on sent.
    pub(super) fn take_fin(&mut self) -> u64 {
        self.fin_sent = true;
        self.highest = self.end() + 1;
        self.end()
    }

    /// The other end has everything up to `received` and takes up to `credit`.
    /// An older ack, or credit that shrinks, changes nothing.
    pub(super) fn acknowledge(&mut self, received: u64, credit: u64) -> Result<(), Broken> {
        if received > self.highest {
            return Err(Broken);
        }
        self.credit = self.credit.max(credit);
        let end = self.end();
        self.fin_acknowledged |= received > end;
        let received = received.min(end);
        if received > self.start {
            let count = usize::try_from(received - self.start).expect("no more than is held");
            let replayed = count.min(self.unacknowledged.len());
            self.unacknowledged.discard(replayed);
            // After a rewind the ack may cover what was not sent again yet.
            self.unsent.discard(count - replayed);
            self.start = received;
            while self.frame_ends.front().is_some_and(|frame_end| *frame_end <= received) {
                self.frame_ends.pop_front();
            }
        }
        Ok(())
    }

    /// As [`Self::acknowledge`], from a hello: one that takes back what was
    /// acknowledged on an earlier carrier asks for bytes that are gone.
    pub(super) fn agree(&mut self, received: u64, credit: u64) -> Result<(), Broken> {
        if received < self.settled { Err(Broken) } else { self.acknowledge(received, credit) }
    }

    /// The carrier is gone, and with it whatever was not acknowledged.
    pub(super) fn rewind(&mut self) {
        let lost = std::mem::take(&mut self.unacknowledged);
        self.unsent.prepend(lost);
        self.frame_ends = VecDeque::new();
        self.fin_sent = false;
        self.settled = self.acknowledged();
    }

    #[cfg(test)]
    pub(super) fn pieces(&self) -> usize {
        self.unacknowledged.pieces() + self.unsent.pieces()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(text: &'static [u8]) -> SendHalf {
        let mut half = SendHalf::new(100);
        half.push(Bytes::from_static(text));
        half
    }

    #[test]
    fn an_ack_trims_and_a_rewind_sends_the_rest_again() {
        let mut half = half(b"abcdefgh");
        assert_eq!(half.take(6).unwrap(), (0, Bytes::from_static(b"abcdef")));
        half.acknowledge(2, 0).unwrap();
        assert_eq!((half.held(), half.in_flight()), (6, 4 + FRAME_CHARGE));
        half.rewind();
        assert_eq!(half.in_flight(), 0);
        let mut again = Vec::new();
        while let Some((offset, bytes)) = half.take(100) {
            assert_eq!(offset, 2 + again.len() as u64);
            again.extend_from_slice(&bytes);
        }
        assert_eq!(again, b"cdefgh");
    }

    #[test]
    fn an_ack_after_a_rewind_may_cover_what_was_not_sent_again() {
        let mut half = half(b"abcdef");
        half.take(4);
        half.rewind();
        half.acknowledge(4, 0).unwrap();
        assert_eq!(half.take(9).unwrap(), (4, Bytes::from_static(b"ef")));
    }

    #[test]
    fn an_ack_beyond_what_was_sent_is_refused() {
        let mut half = half(b"abcdef");
        half.take(4);
        assert_eq!(half.acknowledge(5, 0), Err(Broken));
        half.take(4);
        half.finish();
        assert_eq!(half.acknowledge(7, 0), Err(Broken), "the end was not sent");
        assert_eq!(half.take_fin(), 6);
        half.acknowledge(7, 0).unwrap();
        assert!(half.is_done());
        assert_eq!(half.acknowledge(8, 0), Err(Broken));
    }

    #[test]
    fn shrinking_credit_is_stale() {
        let mut half = half(b"abcdef");
        half.acknowledge(0, 1).unwrap();
        assert_eq!(half.sendable(9), 6);
    }

    #[test]
    fn a_hello_that_takes_back_an_ack_is_refused() {
        let mut half = half(b"abcdef");
        half.take(4);
        half.acknowledge(3, 0).unwrap();
        half.rewind();
        half.acknowledge(4, 0).unwrap();
        assert_eq!(half.agree(2, 0), Err(Broken));
        half.agree(3, 0).unwrap();
        assert_eq!(half.acknowledged(), 4, "an ack that overtook the hello stands");
    }

    #[test]
    fn the_end_is_sent_again_until_it_is_acknowledged() {
        let mut half = half(b"a");
        half.finish();
        assert!(!half.fin_due(), "bytes go first");
        half.take(1);
        assert!(half.fin_due());
        half.take_fin();
        assert!(!half.has_work());
        half.rewind();
        half.agree(1, 0).unwrap();
        assert!(half.fin_due());
    }
}
