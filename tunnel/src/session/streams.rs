//! A session's streams across its carriers: of several carriers only the one
//! counts that greeted with the newest epoch.

use std::time::Instant;

use farm_protocol::epoch::Epoch;
use farm_protocol::frame::{Frame, ResetReason, StreamId, StreamState};

use crate::mux::{self, Mux, OpenError, Role, Violation};

/// Payload of a full frame, in bytes. The engine hands the packets of a message
/// to the kernel in one call (UDP GSO) from 16 packets on, about 19 KiB; one
/// call for 50 packets halves the cost of a byte. Larger frames hold up pings
/// and keystrokes for longer: at 20 Mbit/s this one takes 25 ms.
const FRAME_PAYLOAD: usize = farm_protocol::frame::MAX_PAYLOAD;

/// What a carrier is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// Send this.
    Frame(Frame),
    /// Wait for work, at most until then.
    Idle(Option<Instant>),
    /// Stop: another carrier took over.
    Superseded,
}

/// Full frames that fit what a receiver said that its socket holds: one is on its way while the
/// other is read. More and smaller ones would be handed to the kernel packet by packet.
const FRAMES_HELD: usize = 2;

/// The multiplexer of a session, and the carrier whose frames count.
#[derive(Debug)]
pub struct SessionStreams {
    mux: Mux,
    current: Option<Epoch>,
    ended: bool,
}

impl SessionStreams {
    /// An empty session.
    pub fn new(role: Role) -> Self {
        let config = mux::Config { max_payload: FRAME_PAYLOAD, ..mux::Config::default() };
        Self { mux: Mux::new(role, config), current: None, ended: false }
    }

    /// The other end's socket holds this many bytes while its program does not run.
    pub fn receiver_holds(&mut self, bytes: u32) {
        let most = (bytes as usize / FRAMES_HELD).saturating_sub(mux::FRAME_CHARGE);
        self.mux.set_max_payload(most.min(FRAME_PAYLOAD));
    }

    /// The streams themselves.
    pub fn mux(&self) -> &Mux {
        &self.mux
    }

    /// For what programs do with their streams. After it there may be events
    /// and frames.
    pub fn mux_mut(&mut self) -> &mut Mux {
        &mut self.mux
    }

    /// Opens a stream to a service.
    ///
    /// # Errors
    /// [`OpenError`]; an ended session gives [`OpenError::Exhausted`].
    pub fn open(&mut self, target: &str) -> Result<StreamId, OpenError> {
        if self.ended {
            return Err(OpenError::Exhausted);
        }
        self.mux.open(target)
    }

    /// Ends the session: every stream is reset with this reason.
    pub fn end(&mut self, reason: ResetReason) {
        self.ended = true;
        self.mux.reset_all(reason);
    }

    /// The carrier whose frames count, also after it was lost.
    pub fn current(&self) -> Option<Epoch> {
        self.current
    }

    /// A carrier greets: from now on only it counts. Gives what to say in the
    /// hello; `None` where a newer one is there.
    pub fn greet(&mut self, epoch: Epoch) -> Option<Vec<StreamState>> {
        if self.current.is_some_and(|current| current >= epoch) {
            return None;
        }
        self.mux.carrier_lost();
        self.current = Some(epoch);
        Some(self.mux.hello())
    }

    /// The other end's hello: sending begins.
    ///
    /// # Errors
    /// [`Violation`]: close the carrier.
    pub fn resume(&mut self, epoch: Epoch, peer: &[StreamState], now: Instant) -> Result<(), Violation> {
        if self.current == Some(epoch) { self.mux.resume(peer, now) } else { Ok(()) }
    }

    /// A frame came on a carrier. One of a superseded carrier is dropped: the
    /// new one brings it again.
    ///
    /// # Errors
    /// [`Violation`]: close the carrier.
    pub fn frame(&mut self, epoch: Epoch, frame: Frame, now: Instant) -> Result<(), Violation> {
        if self.current == Some(epoch) { self.mux.handle_frame(frame, now) } else { Ok(()) }
    }

    /// A carrier is gone; says whether it was the one that counts. Its epoch
    /// stays: an older carrier must not come back.
    pub fn lost(&mut self, epoch: Epoch) -> bool {
        let counts = self.current == Some(epoch);
        if counts {
            self.mux.carrier_lost();
        }
        counts
    }

    /// What this carrier is to do next.
    pub fn next_frame(&mut self, epoch: Epoch, now: Instant) -> Outgoing {
        if self.current != Some(epoch) {
            return Outgoing::Superseded;
        }
        if self.mux.poll_timeout().is_some_and(|(when, _)| when <= now) {
            self.mux.handle_timeout(now);
        }
        match self.mux.poll_transmit(now) {
            Some(frame) => Outgoing::Frame(frame),
            None => Outgoing::Idle(self.mux.poll_timeout().map(|(when, _)| when)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn two_full_frames_fit_what_the_receiver_holds() {
        let now = Instant::now();
        for (said, payload) in
            [(48 << 10, 24 * 1024 - 64), (u32::MAX, mux::MIN_WINDOW as usize), (0, mux::MIN_PAYLOAD)]
        {
            let (mut phone, epoch) = (SessionStreams::new(Role::Phone), Epoch::of_start(1));
            phone.greet(epoch);
            phone.receiver_holds(said);
            phone.resume(epoch, &[], now).unwrap();
            let id = phone.open("bulk").unwrap();
            phone.mux_mut().write(id, &mut Bytes::from(vec![7; 100_000])).unwrap();
            let mut frames = std::iter::from_fn(|| match phone.next_frame(epoch, now) {
                Outgoing::Frame(frame) => Some(frame),
                _ => None,
            });
            let first = frames.find_map(|frame| match frame {
                Frame::Data { bytes, .. } => Some(bytes.len()),
                _ => None,
            });
            assert_eq!(first, Some(payload), "said {said}");
        }
    }

    #[test]
    fn only_the_newest_carrier_counts_and_its_loss_brings_none_back() {
        let now = Instant::now();
        let (old, new) = (Epoch::of_start(1), Epoch::of_start(2));
        let mut streams = SessionStreams::new(Role::Phone);
        assert!(streams.greet(old).is_some());
        streams.resume(old, &[], now).unwrap();
        let id = streams.open("ssh").unwrap();
        streams.mux_mut().write(id, &mut Bytes::from_static(b"hi")).unwrap();
        assert!(streams.greet(new).is_some());
        assert_eq!(streams.greet(old), None, "an older carrier took over");
        assert_eq!(streams.next_frame(old, now), Outgoing::Superseded);
        // What would break the protocol on the present carrier is dropped.
        let nonsense = Frame::Open { stream: 1, target: "x".to_owned(), credit: 0 };
        assert_eq!(streams.frame(old, nonsense.clone(), now), Ok(()));
        assert!(streams.frame(new, nonsense, now).is_err());
        assert!(!streams.lost(old));
        assert!(streams.lost(new));
        assert_eq!(streams.greet(old), None, "an older carrier came back");
    }
}
