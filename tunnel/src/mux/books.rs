//! Bookkeeping that every part uses: the streams, their sums, who waits.

use std::time::Instant;

use farm_protocol::frame::{ResetReason, StreamId};

use super::Mux;
use super::limits::{
    MIN_SEND_BUFFER, SEND_BUFFER, SESSION_SEND_BUFFER, SESSION_WINDOW, SHARED_SEND_BUFFER, WRITABLE_ROOM,
};
use super::stream::{Event, Stream};
use super::tombstones::Outcome;

impl Mux {
    /// Works on a stream and keeps the sums right.
    pub(super) fn with<T>(&mut self, id: StreamId, work: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        let stream = self.streams.get_mut(&id)?;
        self.usage.remove(stream.usage());
        let result = work(stream);
        self.usage.add(stream.usage());
        Some(result)
    }

    pub(super) fn insert(&mut self, id: StreamId, stream: Stream) {
        self.usage.add(stream.usage());
        self.streams.insert(id, stream);
    }

    /// Forgets a stream, except for its outcome and answer.
    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        self.stop_expecting(id);
        let stream = self.streams.remove(&id)?;
        self.usage.remove(stream.usage());
        self.outbox.forget(id);
        if stream.scheduled {
            self.schedule.remove(id);
        }
        Some(stream)
    }

    /// Resets a stream; whether there was one. An open that was never sent
    /// needs no word to the other end.
    pub(super) fn drop_stream(&mut self, id: StreamId, reason: ResetReason) -> bool {
        let Some(stream) = self.remove(id) else { return false };
        if stream.opening.is_none_or(|opening| opening.sent) {
            self.refuse(id, reason);
        }
        true
    }

    pub(super) fn after_reading(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| stream.receive.is_done()) {
            self.events.push_back(Event::Finished { id });
            self.close_if_done(id);
        }
    }

    pub(super) fn close_if_done(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        if !(stream.send.is_done() && stream.receive.is_done()) {
            return;
        }
        let owes_ack = stream.receive.owes_ack();
        let outcome = Outcome::Complete {
            received: stream.receive.acknowledgeable(),
            credit: stream.receive.granted(),
        };
        self.remove(id);
        self.tombstones.add(id, outcome);
        if owes_ack {
            self.outbox.answer(outcome.answer(id));
        }
        self.events.push_back(Event::Closed { id });
    }

    pub(super) fn expect_answer(&mut self, id: StreamId, by: Instant) {
        self.stop_expecting(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.answer_by = Some(by);
            self.deadlines.insert((by, id));
        }
    }

    pub(super) fn stop_expecting(&mut self, id: StreamId) {
        if let Some(by) = self.streams.get_mut(&id).and_then(|stream| stream.answer_by.take()) {
            self.deadlines.remove(&(by, id));
        }
    }

    /// What is left of the session's window.
    pub(super) fn free_window(&self) -> u64 {
        SESSION_WINDOW.saturating_sub(self.usage.exposure)
    }

    /// What is left of the session's send buffer.
    fn shared_room(&self) -> usize {
        SESSION_SEND_BUFFER.saturating_sub(self.usage.send)
    }

    /// Bytes that a stream's writer may add.
    pub(super) fn room(&self, stream: &Stream) -> usize {
        let share = SHARED_SEND_BUFFER / self.usage.busy.max(1);
        let own = share.clamp(MIN_SEND_BUFFER, SEND_BUFFER).saturating_sub(stream.send.unsent());
        own.min(self.shared_room().max(MIN_SEND_BUFFER.saturating_sub(stream.send.held())))
    }

    /// Tells a writer that was refused once it is worth going on. It waits
    /// for its own bytes to leave or to be acknowledged, whatever it was
    /// refused for: one that holds none always has room.
    pub(super) fn wake_writer(&mut self, id: StreamId) {
        let waits = |stream: &&Stream| stream.writer_waits && self.room(stream) >= WRITABLE_ROOM;
        if self.streams.get(&id).filter(waits).is_none() {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.writer_waits = false;
            self.events.push_back(Event::Writable { id });
        }
    }
}
