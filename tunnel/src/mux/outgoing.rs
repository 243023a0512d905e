//! What is sent next, and the acks that are owed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use farm_protocol::frame::{Frame, StreamId};

use super::Mux;
use super::limits::{ACK_DELAY, ACK_SESSION_STEP, FRAME_CHARGE, MAX_ANSWERS, OPEN_ANSWER_DEADLINE};
use super::receive::Urgency;
use super::schedule::Lane;

/// Frames without bytes of a stream, each kind at most once per stream.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Last words about streams that are gone.
    answers: BTreeMap<StreamId, Frame>,
    acks: BTreeSet<StreamId>,
    later_acks: BTreeSet<StreamId>,
    /// When `later_acks` are due.
    acks_due: Option<Instant>,
    /// Bytes received since they last were.
    received: usize,
    opens: BTreeSet<StreamId>,
}

impl Outbox {
    /// Whether a peer that provokes answers has to read some first.
    pub(super) fn is_full(&self) -> bool {
        self.answers.len() >= MAX_ANSWERS
    }

    pub(super) fn answer(&mut self, frame: Frame) {
        self.answers.insert(frame.stream(), frame);
    }

    pub(super) fn ack(&mut self, id: StreamId) {
        self.drop_later_ack(id);
        self.acks.insert(id);
    }

    fn ack_later(&mut self, id: StreamId, now: Instant) {
        if !self.acks.contains(&id) && self.later_acks.insert(id) {
            self.acks_due.get_or_insert(now + ACK_DELAY);
        }
    }

    pub(super) fn open(&mut self, id: StreamId) {
        self.opens.insert(id);
    }

    pub(super) fn acks_due(&self) -> Option<Instant> {
        self.acks_due
    }

    /// Counts what was received, since the other end waits for its acks.
    pub(super) fn count_received(&mut self, bytes: usize) {
        self.received += bytes;
        if self.received >= ACK_SESSION_STEP {
            self.release_acks();
        }
    }

    /// Makes every ack due.
    pub(super) fn release_acks(&mut self) {
        self.received = 0;
        self.acks.append(&mut self.later_acks);
        self.acks_due = None;
    }

    #[cfg(test)]
    pub(super) fn owed(&self) -> impl Iterator<Item = &StreamId> {
        self.acks.iter().chain(&self.later_acks).chain(&self.opens)
    }

    fn drop_later_ack(&mut self, id: StreamId) {
        if self.later_acks.remove(&id) && self.later_acks.is_empty() {
            self.acks_due = None;
        }
    }

    /// Forgets what was owed to a stream but its answer.
    pub(super) fn forget(&mut self, id: StreamId) {
        self.drop_later_ack(id);
        self.acks.remove(&id);
        self.opens.remove(&id);
    }
}

impl Mux {
    /// The next frame to send, if any may be sent now. It counts as sent: if
    /// it can't be, say [`Mux::carrier_lost`]. Acks, resets and opens come
    /// first, then streams in turns.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Frame> {
        if !self.resumed {
            return None;
        }
        if let Some((_, frame)) = self.outbox.answers.pop_first() {
            return Some(frame);
        }
        while let Some(id) = self.outbox.acks.pop_first() {
            let free = self.free_window();
            if let Some((received, credit)) = self.with(id, |stream| stream.receive.announce(free)) {
                return Some(Frame::Ack { stream: id, received, credit });
            }
        }
        while let Some(id) = self.outbox.opens.pop_first() {
            if let Some(frame) = self.open_frame(id, now) {
                return Some(frame);
            }
        }
        self.next_of_streams()
    }

    fn open_frame(&mut self, id: StreamId, now: Instant) -> Option<Frame> {
        let stream = self.streams.get_mut(&id)?;
        let opening = stream.opening.as_mut()?;
        opening.sent = true;
        let (target, credit) = (opening.target.clone(), stream.receive.granted());
        self.expect_answer(id, now + OPEN_ANSWER_DEADLINE);
        Some(Frame::Open { stream: id, target, credit })
    }

    fn next_of_streams(&mut self) -> Option<Frame> {
        let max = self.config.max_payload;
        let full_frame = max + FRAME_CHARGE;
        let room = self.config.in_flight_limit.saturating_sub(self.usage.in_flight);
        // The bulk leaves a full frame's room to the quick.
        let (quick_open, bulk_open) = (room >= full_frame, room >= 2 * full_frame);
        loop {
            let (id, lane) = self.schedule.front(quick_open, bulk_open)?;
            let stream = self.streams.get_mut(&id).expect("a closed stream leaves the schedule");
            let send = &mut stream.send;
            if send.fin_due() {
                stream.scheduled = false;
                self.schedule.pop(lane);
                return Some(Frame::Fin { stream: id, offset: send.take_fin() });
            }
            let size = send.sendable(max);
            if size == 0 {
                stream.scheduled = false;
                self.schedule.pop(lane);
                continue;
            }
            if lane == Lane::Quick && send.unsent() > max {
                self.schedule.pop(lane);
                self.schedule.add(id, Lane::Bulk);
                continue;
            }
            if self.schedule.may_send(lane, size) {
                return self.send_bytes(id, lane, size);
            }
        }
    }

    fn send_bytes(&mut self, id: StreamId, lane: Lane, size: usize) -> Option<Frame> {
        let (taken, more) = self.with(id, |stream| {
            let taken = stream.send.take(size);
            stream.scheduled = stream.send.has_work();
            (taken, stream.scheduled)
        })?;
        let (offset, bytes) = taken?;
        self.schedule.sent(lane, bytes.len());
        if !more {
            self.schedule.pop(lane);
        }
        self.wake_writer(id);
        Some(Frame::Data { stream: id, offset, bytes })
    }

    /// Lets a stream wait for its turn if it has something it may send.
    pub(super) fn schedule(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.agreed && !stream.scheduled && stream.send.has_work() {
            stream.scheduled = true;
            let short = stream.send.unsent() <= self.config.max_payload;
            self.schedule.add(id, if short { Lane::Quick } else { Lane::Bulk });
        }
    }

    /// Sees to it that an ack goes out when it is worth it.
    pub(super) fn weigh_ack(&mut self, id: StreamId, now: Instant) {
        let free = self.free_window();
        match self.streams.get(&id).map(|stream| stream.receive.urgency(free)) {
            Some(Urgency::Now) => self.outbox.ack(id),
            Some(Urgency::Soon) => self.outbox.ack_later(id, now),
            Some(Urgency::No) | None => {}
        }
    }
}
