//! Tests of the multiplexer: each rule, then two ends over carriers that are
//! cut at random, then a peer that keeps to nothing.

mod carriers;
mod credit;
mod hostile;
mod simulation;
mod streams;
mod turns;

use std::time::{Duration, Instant};

use bytes::Bytes;
use farm_protocol::frame::{Frame, StreamId, StreamState};

use super::{Config, Event, Mux, Role};

/// The byte at each offset of a stream's direction: a window into a text
/// whose period (a prime) no frame or buffer size shares.
pub(super) struct Pattern(Vec<u8>);

impl Pattern {
    const PERIOD: usize = 65_521;

    pub(super) fn new() -> Self {
        let byte = |n: usize| (n.wrapping_mul(2_654_435_761) >> 13) as u8;
        Self((0..4 * Self::PERIOD).map(|n| byte(n % Self::PERIOD)).collect())
    }

    /// At most three periods of bytes from `offset` on.
    pub(super) fn slice(&self, id: StreamId, from_phone: bool, offset: u64, len: usize) -> &[u8] {
        let shift = u64::from(id) * 7919 + u64::from(from_phone) * 104_729;
        let start = ((offset + shift) % Self::PERIOD as u64) as usize;
        &self.0[start..start + len]
    }
}

/// Two ends and a carrier that delivers at once, in order, or drops.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) phone: Mux,
    pub(super) farm: Mux,
}

impl Pair {
    /// Resumed on a first carrier.
    pub(super) fn new() -> Self {
        Self::with_config(Config::default())
    }

    pub(super) fn with_config(config: Config) -> Self {
        let (phone, farm) = (Mux::new(Role::Phone, config), Mux::new(Role::Farm, config));
        let mut pair = Self { now: Instant::now(), phone, farm };
        pair.resume();
        pair
    }

    /// Exchanges hellos.
    pub(super) fn resume(&mut self) {
        let (phone, farm) = (self.phone.hello(), self.farm.hello());
        self.phone.resume(&farm, self.now).unwrap();
        self.farm.resume(&phone, self.now).unwrap();
    }

    /// A new carrier; what was on the old one is lost.
    pub(super) fn next_carrier(&mut self) {
        self.phone.carrier_lost();
        self.farm.carrier_lost();
        self.resume();
    }

    /// Delivers until neither has anything to send; counts the frames.
    pub(super) fn exchange(&mut self) -> usize {
        let mut frames = 0;
        loop {
            let before = frames;
            for frame in drain(&mut self.phone, self.now) {
                self.farm.handle_frame(frame, self.now).unwrap();
                frames += 1;
            }
            for frame in drain(&mut self.farm, self.now) {
                self.phone.handle_frame(frame, self.now).unwrap();
                frames += 1;
            }
            if frames == before {
                return frames;
            }
        }
    }

    /// Exchanges, and lets time pass while acks wait.
    pub(super) fn settle(&mut self) {
        loop {
            let frames = self.exchange();
            self.now += super::ACK_DELAY;
            self.phone.handle_timeout(self.now);
            self.farm.handle_timeout(self.now);
            if frames == 0 {
                return;
            }
        }
    }

    /// A stream both ends know.
    pub(super) fn open(&mut self) -> StreamId {
        let id = self.phone.open("greenhouse").unwrap();
        self.settle();
        assert!(events(&mut self.phone).contains(&Event::Established { id }));
        let opened = Event::Opened { id, target: "greenhouse".to_owned() };
        assert!(events(&mut self.farm).contains(&opened));
        id
    }
}

/// Everything `mux` would send now.
pub(super) fn drain(mux: &mut Mux, now: Instant) -> Vec<Frame> {
    std::iter::from_fn(|| mux.poll_transmit(now)).collect()
}

/// All events that wait.
pub(super) fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.poll_event()).collect()
}

/// Everything that can be read now.
pub(super) fn read_all(mux: &mut Mux, id: StreamId, now: Instant) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = mux.read(id, usize::MAX, now) {
        all.extend_from_slice(&bytes);
    }
    all
}

/// Writes as much of `len` bytes as is taken.
pub(super) fn write(mux: &mut Mux, id: StreamId, len: usize) -> usize {
    mux.write(id, &mut Bytes::from(vec![b'x'; len])).unwrap()
}

pub(super) fn data(stream: StreamId, offset: u64, bytes: &[u8]) -> Frame {
    Frame::Data { stream, offset, bytes: Bytes::copy_from_slice(bytes) }
}

pub(super) fn ack(stream: StreamId, received: u64, credit: u64) -> Frame {
    Frame::Ack { stream, received, credit }
}

pub(super) fn state(stream: StreamId, received: u64, credit: u64) -> StreamState {
    StreamState { stream, received, credit }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
