//! What a world is made of.

use std::collections::{BTreeMap, VecDeque};

use super::super::*;

/// What a run includes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Plan {
    pub(super) farm_restarts: bool,
    pub(super) forget_to_rewind: bool,
}

/// What a run met.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) cuts: u64,
    pub(super) restarts: u64,
    pub(super) completed: u64,
    pub(super) reset: u64,
    pub(super) lost_frames: u64,
    /// Frames handled before the hello of their carrier.
    pub(super) early_frames: u64,
    pub(super) replayed_bytes: u64,
    pub(super) bytes: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.restarts += other.restarts;
        self.completed += other.completed;
        self.reset += other.reset;
        self.lost_frames += other.lost_frames;
        self.early_frames += other.early_frames;
        self.replayed_bytes += other.replayed_bytes;
        self.bytes += other.bytes;
    }
}

/// The randomness of one seed.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    /// SplitMix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A program's view of its end of a stream.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) written: u64,
    pub(super) read: u64,
    pub(super) finished: bool,
    /// It was told that the other end's bytes are all read.
    pub(super) heard_end: bool,
    /// It was refused bytes: it does nothing until it is told.
    pub(super) waits_for_room: bool,
    /// It was told of bytes and did not read all since.
    pub(super) readable: bool,
}

impl Program {
    pub(super) fn may_write(&self) -> bool {
        !self.finished && !self.waits_for_room
    }
}

/// One end.
pub(super) struct Side {
    pub(super) mux: Mux,
    /// The carrier it is on.
    pub(super) carrier: u64,
    pub(super) streams: BTreeMap<StreamId, Program>,
    /// On their way to this end, on the present carrier.
    pub(super) hellos: VecDeque<Vec<StreamState>>,
    pub(super) frames: VecDeque<Frame>,
    /// The highest credit this end ever gave, by stream.
    pub(super) given: BTreeMap<StreamId, u64>,
    /// The highest offset this end ever sent, by stream.
    pub(super) sent: BTreeMap<StreamId, u64>,
}

impl Side {
    pub(super) fn new(role: Role, config: Config, carrier: u64) -> Self {
        Self {
            mux: Mux::new(role, config),
            carrier,
            streams: BTreeMap::new(),
            hellos: VecDeque::new(),
            frames: VecDeque::new(),
            given: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }
}
