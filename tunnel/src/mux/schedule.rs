//! Which stream sends next: short queues first, then the bulk in turns that
//! are fair by bytes (deficit round robin, RFC 8290 section 4.2 for the idea
//! of two lanes).

use std::collections::VecDeque;

use farm_protocol::frame::StreamId;

/// Where a stream waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// It had nothing to send and now has at most one frame: a keystroke, a
    /// request, a pause in a video.
    Quick,
    /// It has more than that, or did in its last turn.
    Bulk,
}

/// The two lanes. A stream waits at most once.
#[derive(Debug)]
pub(super) struct Schedule {
    quick: VecDeque<StreamId>,
    /// With the bytes each may send before it is the next one's turn.
    bulk: VecDeque<(StreamId, usize)>,
    /// Bytes of one turn: a full frame.
    quantum: usize,
    /// Bytes that the quick lane is ahead of the bulk lane that waits.
    quick_lead: usize,
}

impl Schedule {
    pub(super) fn new(quantum: usize) -> Self {
        Self { quick: VecDeque::new(), bulk: VecDeque::new(), quantum, quick_lead: 0 }
    }

    pub(super) fn add(&mut self, id: StreamId, lane: Lane) {
        match lane {
            Lane::Quick => self.quick.push_back(id),
            Lane::Bulk => self.bulk.push_back((id, 0)),
        }
    }

    /// The stream whose turn it is, among the lanes that are open. The quick
    /// lane goes first, but never gets more than a full frame ahead of a bulk
    /// lane that waits: each has half of the carrier if it needs it.
    pub(super) fn front(&self, quick_open: bool, bulk_open: bool) -> Option<(StreamId, Lane)> {
        let quick = self.quick.front().filter(|_| quick_open).map(|id| (*id, Lane::Quick));
        let bulk = self.bulk.front().filter(|_| bulk_open).map(|(id, _)| (*id, Lane::Bulk));
        match (quick, bulk) {
            (Some(_), Some(_)) if self.quick_lead >= self.quantum => bulk,
            (Some(_), _) => quick,
            (None, _) => bulk,
        }
    }

    /// Whether the stream at the front of `lane` may send `bytes` in this
    /// turn. If not, its next turn will be longer and the next stream is up.
    pub(super) fn may_send(&mut self, lane: Lane, bytes: usize) -> bool {
        if lane == Lane::Quick {
            return true;
        }
        match self.bulk.pop_front() {
            Some((id, deficit)) if deficit < bytes => {
                self.bulk.push_back((id, deficit + self.quantum));
                false
            }
            Some(entry) => {
                self.bulk.push_front(entry);
                true
            }
            None => false,
        }
    }

    /// The stream at the front of `lane` sent `bytes`.
    pub(super) fn sent(&mut self, lane: Lane, bytes: usize) {
        match lane {
            Lane::Quick if self.bulk.is_empty() => self.quick_lead = 0,
            Lane::Quick => self.quick_lead += bytes,
            Lane::Bulk => {
                self.quick_lead = self.quick_lead.saturating_sub(bytes);
                if let Some((_, deficit)) = self.bulk.front_mut() {
                    *deficit = deficit.saturating_sub(bytes);
                }
            }
        }
    }

    /// Takes the stream at the front of `lane` out.
    pub(super) fn pop(&mut self, lane: Lane) {
        match lane {
            Lane::Quick => drop(self.quick.pop_front()),
            Lane::Bulk => drop(self.bulk.pop_front()),
        }
    }

    /// Takes a stream out, wherever it waits.
    pub(super) fn remove(&mut self, id: StreamId) {
        self.quick.retain(|other| *other != id);
        self.bulk.retain(|(other, _)| *other != id);
    }

    pub(super) fn clear(&mut self) {
        self.quick.clear();
        self.bulk.clear();
        self.quick_lead = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn bulk_turns_are_fair_by_bytes_whatever_the_frames() {
        let mut schedule = Schedule::new(1000);
        let sizes = BTreeMap::from([(1, 1000), (2, 300), (3, 999)]);
        sizes.keys().for_each(|id| schedule.add(*id, Lane::Bulk));
        let mut sent = BTreeMap::from([(1, 0), (2, 0), (3, 0)]);
        for _ in 0..100_000 {
            let (id, lane) = schedule.front(true, true).unwrap();
            if schedule.may_send(lane, sizes[&id]) {
                schedule.sent(lane, sizes[&id]);
                *sent.get_mut(&id).unwrap() += sizes[&id];
            }
        }
        let (least, most) = (sent.values().min().unwrap(), sent.values().max().unwrap());
        assert!(most - least <= 2 * 1000, "{sent:?}");
    }

    #[test]
    fn the_quick_lane_goes_first_but_leaves_half_to_the_bulk() {
        let mut schedule = Schedule::new(1000);
        schedule.add(1, Lane::Bulk);
        let (mut quick, mut bulk) = (0, 0);
        for round in 0..1000 {
            schedule.add(2, Lane::Quick);
            loop {
                let (_, lane) = schedule.front(true, true).unwrap();
                if !schedule.may_send(lane, 500) {
                    continue;
                }
                schedule.sent(lane, 500);
                if lane == Lane::Quick {
                    schedule.pop(lane);
                    quick += 500;
                    break;
                }
                assert!(round > 0, "the quick lane goes first");
                bulk += 500;
            }
        }
        assert!(bulk >= quick - 1000 && bulk <= quick, "quick {quick}, bulk {bulk}");
    }
}
