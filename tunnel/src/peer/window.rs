//! How much may be on its way: the send window of a channel.
//!
//! SCTP alone fills whatever the path has for queues until something is lost, and this engine
//! takes a second or more to recover from that; meanwhile the pings wait in the same queues. A
//! fixed bound is no way out: 128 KiB is 12 Mbit/s at 80 ms, and a second's worth at 1 Mbit/s.
//! So the window follows what was measured, delivery rate x shortest round trip, as BBR
//! (draft-ietf-ccwg-bbr) does: enough to keep the path full, little of it queued.
//!
//! Pure: it is told when bytes are sent and how many are unacknowledged, and says how many may be.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The window per (rate x round trip). More than 1 to find out whether there is more to have. The
/// queue this leaves is half a round trip, which every router has room for.
const GAIN: f64 = 1.5;

/// The same while the rate is rising: the window doubles every round, as in SCTP's slow start.
const GAIN_RISING: f64 = 2.0;

/// A rate is rising when a round's is this many times the highest before.
const RISING: f64 = 1.25;

/// Bytes before anything is measured: what SCTP's slow start sends in its first four rounds.
const INITIAL: usize = 64 << 10;

/// Never fewer bytes than this: 14 packets, so that a lost one is noticed by those behind it.
const LEAST: usize = 16 << 10;

/// The window is at least the data of this time, up to [`BATCH`]: two ends that take turns on a
/// processor do so in milliseconds.
const BATCH_TIME: Duration = Duration::from_millis(8);

/// See [`BATCH_TIME`]. A receiver whose socket buffer is the system's default of 208 KiB has room
/// for 92 packets (the kernel counts 2.3 KiB for each), and this is 85.
const BATCH: usize = 96 << 10;

/// Below this round trip the window is at most [`BATCH`] too: the path itself holds next to nothing,
/// so whatever is on its way waits in the receiver's socket buffer. It still is 50 MB/s at 2 ms.
const SHORT: Duration = Duration::from_millis(2);

/// A receiver that said what its socket holds: as long as this it may not run without a loss, at
/// whatever rate. Chromium's socket holds 56 packets, and a phone's processor has other work too.
/// A carrier that lost the last packets of what came at once waits a second for the engine.
const HOLDS_FOR: Duration = BATCH_TIME;

/// Rounds whose highest rate counts: one or two in which the path paused don't matter.
const ROUNDS: usize = 5;

/// How long the shortest round trip counts. Then, before the next message, the window is drained,
/// which tells the path's round trip from that of our own queue: 1-2 % of the time.
const ROUND_TRIP_COUNTS: Duration = Duration::from_secs(10);

/// It counts for less once the window has halved since: either the path got slower, or so much
/// longer that the window no longer fills it, and shrinks with every round.
const ROUND_TRIP_COUNTS_AT_LEAST: Duration = Duration::from_secs(1);

/// As good as nothing unacknowledged: a last packet's acknowledgement may be 200 ms late.
const NEXT_TO_NOTHING: usize = 2 << 10;

/// A channel's send window.
#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    /// What the receiver's socket holds, where it said so.
    holds: Option<usize>,
    limit: usize,
    sent: u64,
    delivered: u64,
    round: Option<Round>,
    /// Bytes per second, of the last [`ROUNDS`] rounds.
    rates: VecDeque<f64>,
    shortest: Option<RoundTrip>,
    rising: bool,
    draining: bool,
}

/// The round in progress: from the sending of a byte to its acknowledgement.
#[derive(Debug)]
struct Round {
    began: Instant,
    /// Bytes delivered when it began.
    delivered: u64,
    /// It ends when this many are.
    ends: u64,
    /// Whether the sender had to wait for the window.
    limited: bool,
}

/// The shortest round trip.
#[derive(Debug, Clone, Copy)]
struct RoundTrip {
    took: Duration,
    at: Instant,
    /// The largest window since.
    largest: usize,
}

impl Window {
    /// A window of at most `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            holds: None,
            limit: INITIAL.min(most),
            sent: 0,
            delivered: 0,
            round: None,
            rates: VecDeque::with_capacity(ROUNDS + 1),
            shortest: None,
            rising: false,
            draining: false,
        }
    }

    /// The receiver's socket holds this many bytes; 0 where it has not said.
    pub(super) fn receiver_holds(&mut self, bytes: usize) {
        let holds = (bytes > 0).then_some(bytes.clamp(LEAST.min(self.most), self.most));
        if self.holds != holds {
            self.holds = holds;
            self.limit = self.limit.min(holds.unwrap_or(self.most));
        }
    }

    /// Whether a message of `bytes` may be sent while `outstanding` are unacknowledged. A message
    /// larger than the window goes alone.
    pub(super) fn admits(&self, outstanding: usize, bytes: usize) -> bool {
        outstanding <= NEXT_TO_NOTHING || (!self.draining && outstanding + bytes <= self.limit)
    }

    /// `bytes` were sent.
    pub(super) fn sent(&mut self, now: Instant, bytes: usize) {
        self.sent += bytes as u64;
        let (delivered, ends) = (self.delivered, self.sent);
        self.round.get_or_insert(Round { began: now, delivered, ends, limited: false });
    }

    /// A sender waits for the window.
    pub(super) fn limited(&mut self) {
        if let Some(round) = &mut self.round {
            round.limited = true;
        }
    }

    /// `outstanding` bytes are unacknowledged now.
    pub(super) fn outstanding(&mut self, now: Instant, outstanding: usize) {
        self.delivered = self.delivered.max(self.sent.saturating_sub(outstanding as u64));
        if let Some(round) = self.round.take_if(|round| self.delivered >= round.ends) {
            self.ended(now, &round);
        }
        if !self.draining && self.shortest.is_some_and(|shortest| self.is_stale(now, shortest)) {
            // What is on its way now waits in our own queue and would tell nothing.
            self.draining = true;
            self.round = None;
        }
    }

    fn is_stale(&self, now: Instant, shortest: RoundTrip) -> bool {
        let age = now.saturating_duration_since(shortest.at);
        age > ROUND_TRIP_COUNTS || (age > ROUND_TRIP_COUNTS_AT_LEAST && self.limit < shortest.largest / 2)
    }

    fn ended(&mut self, now: Instant, round: &Round) {
        let took = now.saturating_duration_since(round.began).max(Duration::from_micros(1));
        if self.draining || self.shortest.is_none_or(|shortest| took <= shortest.took) {
            self.shortest = Some(RoundTrip { took, at: now, largest: 0 });
            self.draining = false;
        }
        let rate = (self.delivered - round.delivered) as f64 / took.as_secs_f64();
        self.rising = rate > RISING * self.rate();
        // A sender with little to send says nothing about the path, unless it was even faster.
        if round.limited || rate > self.rate() {
            self.rates.push_back(rate);
            if self.rates.len() > ROUNDS {
                self.rates.pop_front();
            }
        }
        self.set_limit();
    }

    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn set_limit(&mut self) {
        let rate = self.rate();
        let Some(shortest) = &mut self.shortest else { return };
        let gain = if self.rising { GAIN_RISING } else { GAIN };
        let path = gain * rate * shortest.took.as_secs_f64();
        let batch = self.holds.unwrap_or(BATCH);
        let most = match self.holds {
            Some(holds) => {
                let held = holds as f64 / HOLDS_FOR.as_secs_f64() * shortest.took.as_secs_f64();
                holds.max(held as usize).min(self.most)
            }
            None if shortest.took < SHORT => BATCH.min(self.most),
            None => self.most,
        };
        let batch = (rate * BATCH_TIME.as_secs_f64()).min(batch as f64);
        self.limit = (path.max(batch) as usize).clamp(LEAST.min(most), most);
        shortest.largest = shortest.largest.max(self.limit);
    }
}

#[cfg(test)]
mod tests;
