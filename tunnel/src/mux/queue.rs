//! A queue of bytes made of the pieces they came in.

use std::collections::VecDeque;

use bytes::Bytes;

/// Pieces below this size are merged once there are too many.
const SMALL: usize = 1024;

/// Pieces held whatever their size before merging is considered.
const SLACK: usize = 64;

/// Small pieces are copied together up to this size.
const GATHER: usize = 16 * 1024;

/// Bytes in order. Large pieces are passed through without a copy; many small
/// ones are merged, so that the memory held stays proportional to the bytes
/// however they were cut: at most `SLACK` + 4 pieces per KiB.
#[derive(Debug, Default)]
pub(super) struct ByteQueue {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl ByteQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes at the end.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        self.pieces.push_back(bytes);
        self.merge_if_many();
    }

    /// Puts `earlier` in front of these.
    pub(super) fn prepend(&mut self, mut earlier: Self) {
        earlier.len += self.len;
        earlier.pieces.append(&mut self.pieces);
        *self = earlier;
        self.merge_if_many();
    }

    /// Takes up to `max` bytes from the front in one piece; fewer where that
    /// saves a copy. `None` if there are none.
    pub(super) fn take(&mut self, max: usize) -> Option<Bytes> {
        let first = self.pieces.front()?.len();
        let bytes = if max == 0 {
            return None;
        } else if first >= max.min(GATHER) / 2 || self.pieces.len() == 1 {
            self.take_from_first(max)
        } else {
            self.gather(max.min(GATHER).min(self.len))
        };
        self.len -= bytes.len();
        self.release_if_empty();
        Some(bytes)
    }

    /// Takes `max` bytes from the front in one piece, or all where there are
    /// fewer: for a frame, whose message costs more than a copy of its bytes.
    pub(super) fn fill(&mut self, max: usize) -> Option<Bytes> {
        let full = max.min(self.len);
        let first = self.pieces.front().filter(|_| full > 0)?.len();
        let bytes = if first >= full { self.take_from_first(full) } else { self.gather(full) };
        self.len -= bytes.len();
        self.release_if_empty();
        Some(bytes)
    }

    /// Drops `count` bytes from the front.
    pub(super) fn discard(&mut self, mut count: usize) {
        debug_assert!(count <= self.len, "discarding what is not there");
        count = count.min(self.len);
        self.len -= count;
        while count > 0 {
            count -= self.take_from_first(count).len();
        }
        self.release_if_empty();
    }

    fn take_from_first(&mut self, max: usize) -> Bytes {
        match self.pieces.front_mut() {
            Some(first) if first.len() > max => first.split_to(max),
            Some(_) => self.pieces.pop_front().unwrap_or_default(),
            None => Bytes::new(),
        }
    }

    fn gather(&mut self, size: usize) -> Bytes {
        let mut gathered = Vec::with_capacity(size);
        while gathered.len() < size {
            gathered.extend_from_slice(&self.take_from_first(size - gathered.len()));
        }
        gathered.into()
    }

    fn merge_if_many(&mut self) {
        if self.pieces.len() <= SLACK + 4 * (self.len / SMALL) {
            return;
        }
        let mut merged = Vec::with_capacity(GATHER);
        for piece in std::mem::take(&mut self.pieces) {
            let small = piece.len() < SMALL;
            if !merged.is_empty() && (!small || merged.len() + piece.len() > GATHER) {
                self.pieces.push_back(Bytes::copy_from_slice(&merged));
                merged.clear();
            }
            if small {
                merged.extend_from_slice(&piece);
            } else {
                self.pieces.push_back(piece);
            }
        }
        if !merged.is_empty() {
            self.pieces.push_back(Bytes::copy_from_slice(&merged));
        }
    }

    /// Gives back what a burst of pieces had claimed.
    fn release_if_empty(&mut self) {
        if self.pieces.is_empty() && self.pieces.capacity() > 2 * SLACK {
            self.pieces = VecDeque::new();
        }
    }

    #[cfg(test)]
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut ByteQueue, max: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = queue.take(max) {
            assert!(!bytes.is_empty() && bytes.len() <= max);
            all.extend_from_slice(&bytes);
        }
        assert_eq!(queue.len(), 0);
        all
    }

    #[test]
    fn large_pieces_pass_without_a_copy() {
        let piece = Bytes::from(vec![7; 40_000]);
        let mut queue = ByteQueue::default();
        queue.push(piece.clone());
        assert_eq!(queue.take(16_384).unwrap().as_ptr(), piece.as_ptr());
        assert_eq!(queue.take(65_536).unwrap().as_ptr(), piece[16_384..].as_ptr());
    }

    #[test]
    fn a_frame_is_full_however_its_bytes_came() {
        let mut queue = ByteQueue::default();
        let large = Bytes::from(vec![7; 40_000]);
        queue.push(large.clone());
        (0..10_u8).for_each(|n| queue.push(vec![n; 1000].into()));
        assert_eq!(queue.fill(24_000).unwrap().as_ptr(), large.as_ptr(), "one piece is not copied");
        let mixed = queue.fill(24_000).unwrap();
        assert_eq!((mixed.len(), mixed[15_999], mixed[16_000], mixed[23_999]), (24_000, 7, 0, 7));
        assert_eq!(queue.fill(24_000).unwrap().len(), 2000, "all, where there are fewer");
        assert_eq!((queue.fill(24_000), queue.len()), (None, 0));
        queue.push(vec![1].into());
        assert_eq!(queue.fill(0), None);
    }

    #[test]
    fn pieces_stay_few_however_small_they_come() {
        let mut queue = ByteQueue::default();
        let mut all = Vec::new();
        for n in 0..100_000_u32 {
            let piece = vec![n as u8; if n % 7 == 0 { 3 } else { 1 }];
            all.extend_from_slice(&piece);
            queue.push(piece.into());
            assert!(queue.pieces() <= SLACK + 4 * (queue.len() / SMALL) + 1);
        }
        assert_eq!(drain(&mut queue, 10_000), all);
        assert!(queue.pieces.capacity() <= 2 * SLACK);
    }

    #[test]
    fn bytes_keep_their_order_through_every_operation() {
        let text: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for (cut, max) in [(1, 1), (3, 500), (900, 16_384), (1500, 61_440), (70_000, 4096)] {
            let (mut queue, mut tail) = (ByteQueue::default(), ByteQueue::default());
            let (early, late) = text.split_at(120_000);
            early.chunks(cut).for_each(|piece| queue.push(Bytes::copy_from_slice(piece)));
            late.chunks(cut).for_each(|piece| tail.push(Bytes::copy_from_slice(piece)));
            tail.prepend(queue);
            tail.discard(777);
            assert_eq!(tail.len(), text.len() - 777);
            let mut all = Vec::new();
            for turn in 0.. {
                let taken = if turn % 2 == 0 { tail.take(max) } else { tail.fill(max) };
                let Some(bytes) = taken else { break };
                assert!(bytes.len() <= max);
                all.extend_from_slice(&bytes);
            }
            assert_eq!(all, &text[777..], "cut {cut}, max {max}");
        }
    }
}
