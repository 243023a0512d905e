//! Moving the streams from one carrier to the next.

use std::collections::BTreeSet;
use std::time::Instant;

use farm_protocol::frame::{Frame, ResetReason, StreamId, StreamState};

use super::Mux;
use super::error::Violation;
use super::limits::{MAX_STREAMS, RESUME_ANSWER_DEADLINE};
use super::outgoing::Outbox;

impl Mux {
    /// The carrier is gone, or is about to be replaced: nothing is sent until
    /// [`Mux::resume`], and what was not acknowledged will be sent again.
    /// From here on only frames of the next carrier may come in.
    pub fn carrier_lost(&mut self) {
        self.resumed = false;
        self.schedule.clear();
        self.deadlines.clear();
        self.outbox = Outbox::default();
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            #[cfg(test)]
            let forgetful = self.forget_to_rewind;
            #[cfg(not(test))]
            let forgetful = false;
            self.with(id, |stream| {
                if !forgetful {
                    stream.send.rewind();
                }
                stream.agreed = false;
                stream.scheduled = false;
                stream.answer_by = None;
            });
        }
    }

    /// Where every stream stands, for the other end's [`Mux::resume`]: to be
    /// taken once for each carrier, after [`Mux::carrier_lost`] and before
    /// its frames are handled. At most [`MAX_STREAMS`] entries.
    ///
    /// A stream that the phone opened and never heard of is left out: the
    /// farm can't tell whether it forgot it or never knew it, the phone can.
    pub fn hello(&mut self) -> Vec<StreamState> {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        let mut states = Vec::with_capacity(ids.len());
        for id in ids {
            let free = self.free_window();
            let state = self.with(id, |stream| {
                stream.listed = stream.opening.is_none();
                stream.listed.then(|| stream.receive.announce(free))
            });
            if let Some(Some((received, credit))) = state {
                states.push(StreamState { stream: id, received, credit });
            }
        }
        states
    }

    /// Takes the other end's hello: sending begins.
    ///
    /// - Listed and live here: its `received` is an ack, sending goes on there.
    /// - Listed, not live here: this side answers what became of it.
    /// - Live here, not listed: opened again if the farm never confirmed it;
    ///   else the other end answers. If it does not within
    ///   [`RESUME_ANSWER_DEADLINE`] of one carrier, the stream is reset; a
    ///   next carrier asks again.
    ///
    /// # Errors
    /// [`Violation`]: close the carrier. A state that contradicts what was
    /// agreed before resets its stream and is no error.
    pub fn resume(&mut self, peer: &[StreamState], now: Instant) -> Result<(), Violation> {
        if self.resumed {
            return Err(Violation::HelloTwice);
        }
        if peer.len() > MAX_STREAMS {
            return Err(Violation::HelloTooLong { count: peer.len() });
        }
        let mut listed = BTreeSet::new();
        if let Some(twice) = peer.iter().find(|state| !listed.insert(state.stream)) {
            return Err(Violation::HelloRepeats { stream: twice.stream });
        }
        for state in peer {
            self.resume_listed(*state)?;
        }
        self.resumed = true;
        let unlisted: Vec<StreamId> =
            self.streams.keys().copied().filter(|id| !listed.contains(id)).collect();
        for id in unlisted {
            self.resume_unlisted(id, now);
        }
        Ok(())
    }

    fn resume_listed(&mut self, state: StreamState) -> Result<(), Violation> {
        let id = state.stream;
        let Some(taken) =
            self.with(id, |stream| (stream.send.agree(state.received, state.credit), stream.listed))
        else {
            let unknown = || Frame::Reset { stream: id, reason: ResetReason::Restarted };
            let frame = self.tombstones.get(id).map_or_else(unknown, |outcome| outcome.answer(id));
            return self.answer(frame);
        };
        match taken {
            (Ok(()), listed_here) => {
                if !listed_here {
                    // The other end waits to hear where this side stands.
                    self.outbox.ack(id);
                }
                self.agree(id);
            }
            (Err(_), _) => self.fail(id, ResetReason::ProtocolError),
        }
        Ok(())
    }

    fn resume_unlisted(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.opening.is_some() {
            stream.agreed = true;
            self.outbox.open(id);
            self.schedule(id);
        } else if !stream.agreed {
            self.expect_answer(id, now + RESUME_ANSWER_DEADLINE);
        }
    }
}
