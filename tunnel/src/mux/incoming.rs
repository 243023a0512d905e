//! What the other end's frames do.

use std::time::Instant;

use bytes::Bytes;
use farm_protocol::frame::{Frame, MAX_TARGET, ResetReason, StreamId};

use super::error::Violation;
use super::limits::{MAX_EVENTS, MAX_STREAMS, MIN_WINDOW};
use super::receive::{ReceiveHalf, Refusal};
use super::send::SendHalf;
use super::stream::{Event, Stream};
use super::tombstones::Outcome;
use super::{Mux, Role};

impl Mux {
    /// Takes a frame of the present carrier; frames of a lost one must not
    /// come here. Works before [`Mux::resume`], since the other end's hello
    /// and its frames travel on different channels.
    ///
    /// # Errors
    /// [`Violation`]: close the carrier. What breaks one stream for good
    /// (bytes beyond the credit or the end, an ack beyond what was sent, two
    /// different ends) resets that stream and is no error.
    pub fn handle_frame(&mut self, frame: Frame, now: Instant) -> Result<(), Violation> {
        match frame {
            Frame::Open { stream, target, credit } => self.on_open(stream, target, credit),
            Frame::Data { stream, offset, bytes } => self.on_data(stream, offset, &bytes, now),
            Frame::Ack { stream, received, credit } => self.on_ack(stream, received, credit),
            Frame::Fin { stream, offset } => self.on_fin(stream, offset, now),
            Frame::Reset { stream, reason } => {
                if self.remove(stream).is_some() {
                    self.events.push_back(Event::Reset { id: stream, reason });
                }
                Ok(())
            }
        }
    }

    fn on_open(&mut self, id: StreamId, target: String, credit: u64) -> Result<(), Violation> {
        if self.role == Role::Phone {
            return Err(Violation::OpenedByFarm { stream: id });
        }
        if id == 0 || !(1..=MAX_TARGET).contains(&target.len()) {
            return Err(Violation::BadOpen { stream: id });
        }
        if self.streams.contains_key(&id) {
            // Sent again: the phone never heard of this stream from here, so
            // it has received nothing.
            self.outbox.ack(id);
            return self.on_ack(id, 0, credit);
        }
        if self.outbox.is_full() {
            return Err(Violation::Flood);
        }
        if let Some(outcome) = self.tombstones.get(id) {
            self.outbox.answer(outcome.answer(id));
            return Ok(());
        }
        if id <= self.last_id {
            self.outbox.answer(Frame::Reset { stream: id, reason: ResetReason::Restarted });
            return Ok(());
        }
        self.last_id = id;
        if self.streams.len() >= MAX_STREAMS || self.events.len() >= MAX_EVENTS {
            self.refuse(id, ResetReason::Limit);
            return Ok(());
        }
        self.insert(id, Stream::new(SendHalf::new(credit), ReceiveHalf::new(MIN_WINDOW), None));
        self.events.push_back(Event::Opened { id, target });
        self.outbox.ack(id);
        Ok(())
    }

    fn on_data(&mut self, id: StreamId, offset: u64, bytes: &Bytes, now: Instant) -> Result<(), Violation> {
        let Some(taken) = self.with(id, |stream| stream.receive.accept(offset, bytes)) else {
            return self.on_stranger(id);
        };
        match taken {
            Ok(new) => {
                self.establish(id);
                if new > 0 {
                    self.tell_readable(id);
                }
                self.weigh_ack(id, now);
                self.outbox.count_received(new);
                Ok(())
            }
            Err(refusal) => self.refused(id, offset, refusal),
        }
    }

    fn on_fin(&mut self, id: StreamId, offset: u64, now: Instant) -> Result<(), Violation> {
        let Some(taken) = self.with(id, |stream| stream.receive.finish(offset)) else {
            return self.on_stranger(id);
        };
        match taken {
            Ok(news) => {
                self.establish(id);
                if news {
                    self.after_reading(id);
                }
                self.weigh_ack(id, now);
                Ok(())
            }
            Err(refusal) => self.refused(id, offset, refusal),
        }
    }

    fn on_ack(&mut self, id: StreamId, received: u64, credit: u64) -> Result<(), Violation> {
        let Some(taken) = self.with(id, |stream| stream.send.acknowledge(received, credit)) else {
            return if self.is_past(id) { Ok(()) } else { Err(Violation::NeverOpened { stream: id }) };
        };
        if taken.is_err() {
            self.fail(id, ResetReason::ProtocolError);
        } else {
            self.agree(id);
        }
        Ok(())
    }

    /// Bytes or an end for a stream that is not live.
    fn on_stranger(&mut self, id: StreamId) -> Result<(), Violation> {
        if !self.is_past(id) {
            return Err(Violation::NeverOpened { stream: id });
        }
        if self.tombstones.get(id).is_some() {
            // On their way when it was closed here; the peer was told.
            return Ok(());
        }
        self.answer(Frame::Reset { stream: id, reason: ResetReason::Restarted })
    }

    /// Whether a stream that is not live may have lived. The farm can't
    /// know: it may have restarted since.
    fn is_past(&self, id: StreamId) -> bool {
        self.role == Role::Farm || (1..=self.last_id).contains(&id)
    }

    /// An answer that the peer provoked.
    pub(super) fn answer(&mut self, frame: Frame) -> Result<(), Violation> {
        if self.outbox.is_full() {
            return Err(Violation::Flood);
        }
        self.outbox.answer(frame);
        Ok(())
    }

    fn refused(&mut self, id: StreamId, offset: u64, refusal: Refusal) -> Result<(), Violation> {
        match refusal {
            Refusal::Gap { expected } => Err(Violation::Gap { stream: id, expected, offset }),
            Refusal::Broken => {
                self.fail(id, ResetReason::ProtocolError);
                Ok(())
            }
        }
    }

    /// The farm is known to have the stream.
    pub(super) fn establish(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.opening.take().is_some() {
            self.events.push_back(Event::Established { id });
        }
    }

    /// The other end said on this carrier what it has received of a stream:
    /// sending may go on from there.
    pub(super) fn agree(&mut self, id: StreamId) {
        self.establish(id);
        self.stop_expecting(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.agreed = true;
        }
        self.schedule(id);
        self.wake_writer(id);
        self.close_if_done(id);
    }

    fn tell_readable(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !std::mem::replace(&mut stream.readable_told, true) {
            self.events.push_back(Event::Readable { id });
        }
    }

    /// Resets a stream from here, and says so here too.
    pub(super) fn fail(&mut self, id: StreamId, reason: ResetReason) {
        if self.drop_stream(id, reason) {
            self.events.push_back(Event::Reset { id, reason });
        }
    }

    /// Tells the other end that a stream is over, now and whenever it asks.
    pub(super) fn refuse(&mut self, id: StreamId, reason: ResetReason) {
        let outcome = Outcome::Reset(reason);
        self.tombstones.add(id, outcome);
        self.outbox.answer(outcome.answer(id));
    }
}
