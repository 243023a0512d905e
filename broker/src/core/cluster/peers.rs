//! The other brokers: which are there, and whether all that each said has
//! come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::message::BrokerId;
use crate::core::connection_state::DeviceId;

/// How often a broker says that it is there.
pub(in crate::core) const BEAT: Duration = Duration::from_secs(1);

/// A broker of which nothing came for this long is gone with all its devices:
/// four lost beats. Presence is to be right 10 s after a broker died, and a
/// message between two engine nodes is lost when one of them is killed.
pub const LEASE: Duration = Duration::from_secs(4);

/// Without the engine nothing is heard of anybody. What is known is kept for
/// this long: a minute's absence of the engine and a half must not empty
/// everybody's screen, but what can't be reached for longer is not there.
pub const BLIND_KEEPS: Duration = Duration::from_secs(90);

/// A broker that does not say all again is asked again after this long: 64
/// bytes, against 3 MB of an answer of 10,000 devices.
pub(in crate::core) const ASK_AGAIN: Duration = Duration::from_secs(2);

/// All is said again at most this often, whoever asks: several brokers miss
/// something at the same time, and one answer is for all.
pub(super) const SAY_AGAIN: Duration = Duration::from_secs(1);

/// Most brokers of one cluster; more are not listened to. Each beat goes to
/// all, so twice as many cost four times as much.
pub(super) const MAX_PEERS: usize = 32;

/// What is known of one broker's devices.
#[derive(Debug)]
enum View {
    /// Something is missing.
    Incomplete,
    /// All is being said again: what was named so far.
    Loading(BTreeSet<DeviceId>),
    /// Everything is known.
    Whole,
}

#[derive(Debug)]
struct Peer {
    name: String,
    sequence: u64,
    heard: Instant,
    asked: Option<Instant>,
    view: View,
}

/// What a message's envelope tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is the next one: take it.
    InOrder,
    /// It is of a broker that was not known.
    New,
    /// Others were missed before it; what it says is true all the same.
    AfterGap,
    /// It is older than what came already.
    Late,
    /// There is no room for another broker.
    TooMany,
}

/// The other brokers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<BrokerId, Peer>,
    /// Since when the engine is away.
    blind: Option<Instant>,
}

impl Peers {
    /// Takes in a message's envelope. `numbered` ones count up by themselves;
    /// the others name the last number.
    pub(super) fn hear(&mut self, from: BrokerId, sequence: u64, numbered: bool, now: Instant) -> Heard {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.heard = now;
            let expected = peer.sequence + u64::from(numbered);
            if sequence < expected {
                return if numbered { Heard::Late } else { Heard::InOrder };
            }
            peer.sequence = sequence;
            if sequence == expected {
                return Heard::InOrder;
            }
            peer.view = View::Incomplete;
            return Heard::AfterGap;
        }
        if self.peers.len() >= MAX_PEERS {
            return Heard::TooMany;
        }
        let view = View::Incomplete;
        self.peers.insert(from, Peer { name: String::new(), sequence, heard: now, asked: None, view });
        Heard::New
    }

    /// Gives a broker its name. `true` if it had another one, or none.
    pub(super) fn rename(&mut self, from: BrokerId, name: &str) -> bool {
        match self.peers.get_mut(&from) {
            Some(peer) if peer.name != name => {
                name.clone_into(&mut peer.name);
                true
            }
            _ => false,
        }
    }

    /// What the operator calls a broker.
    pub(super) fn name(&self, broker: BrokerId) -> &str {
        self.peers.get(&broker).map_or("", |peer| &peer.name)
    }

    /// Something of this broker's devices is missing.
    pub(super) fn doubt(&mut self, broker: BrokerId) {
        if let Some(peer) = self.peers.get_mut(&broker)
            && matches!(peer.view, View::Whole)
        {
            peer.view = View::Incomplete;
        }
    }

    /// Whether to ask this broker now to say all again; then it is noted.
    pub(super) fn is_to_be_asked(&mut self, broker: BrokerId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&broker) else { return false };
        let due = peer.asked.is_none_or(|asked| now >= asked + ASK_AGAIN);
        // While it is being said, too: the end may have been lost.
        let ask = due && !matches!(peer.view, View::Whole);
        if ask {
            peer.asked = Some(now);
        }
        ask
    }

    /// Whether everything that this broker's devices do is known.
    pub(super) fn is_whole(&self, broker: BrokerId) -> bool {
        self.peers.get(&broker).is_some_and(|peer| matches!(peer.view, View::Whole))
    }

    /// A broker begins to say all again.
    pub(super) fn begin(&mut self, broker: BrokerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&broker) {
            peer.asked = Some(now);
            peer.view = View::Loading(BTreeSet::new());
        }
    }

    /// A broker named a device as its own.
    pub(super) fn named(&mut self, broker: BrokerId, device: DeviceId) {
        if let Some(Peer { view: View::Loading(named), .. }) = self.peers.get_mut(&broker) {
            named.insert(device);
        }
    }

    /// It has said all: gives what it named. `None` if something was missed.
    pub(super) fn end(&mut self, broker: BrokerId) -> Option<BTreeSet<DeviceId>> {
        let peer = self.peers.get_mut(&broker)?;
        let View::Loading(named) = &mut peer.view else { return None };
        let named = std::mem::take(named);
        peer.view = View::Whole;
        Some(named)
    }

    /// The engine went away, or is back.
    pub(super) fn set_blind(&mut self, blind: bool, now: Instant) {
        match (blind, self.blind) {
            (true, None) => self.blind = Some(now),
            (false, Some(_)) => {
                self.blind = None;
                // Their silence was ours.
                for peer in self.peers.values_mut() {
                    (peer.heard, peer.asked) = (now, None);
                }
            }
            _ => {}
        }
    }

    /// When a broker is taken for gone if nothing is heard of it until then.
    pub(super) fn lease_ends(&self, broker: BrokerId) -> Option<Instant> {
        let peer = self.peers.get(&broker)?;
        Some(self.blind.map_or(peer.heard + LEASE, |since| since + BLIND_KEEPS))
    }

    /// A broker is gone. `false` if it is not known.
    pub(super) fn forget(&mut self, broker: BrokerId) -> bool {
        self.peers.remove(&broker).is_some()
    }

    /// All that are there.
    pub(super) fn ids(&self) -> impl Iterator<Item = BrokerId> {
        self.peers.keys().copied()
    }

    /// How many are there.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BrokerId = BrokerId(1);

    fn device(n: u8) -> DeviceId {
        DeviceId::Farm(farm_protocol::id::FarmId::from_bytes([n; 20]))
    }

    #[test]
    fn what_is_missing_is_noticed_by_the_next_message_of_any_kind() {
        let now = Instant::now();
        let mut peers = Peers::default();
        assert_eq!(peers.hear(A, 5, false, now), Heard::New);
        assert_eq!(peers.hear(A, 6, true, now), Heard::InOrder);
        assert_eq!(peers.hear(A, 6, false, now), Heard::InOrder);
        assert_eq!(peers.hear(A, 6, true, now), Heard::Late);
        assert_eq!(peers.hear(A, 8, true, now), Heard::AfterGap);
        assert_eq!(peers.hear(A, 8, false, now), Heard::InOrder);
        assert_eq!(peers.hear(A, 9, false, now), Heard::AfterGap);
    }

    #[test]
    fn a_view_is_whole_only_after_all_was_said_without_a_gap() {
        let now = Instant::now();
        let mut peers = Peers::default();
        peers.hear(A, 0, false, now);
        assert!(peers.is_to_be_asked(A, now) && !peers.is_to_be_asked(A, now));
        assert!(peers.is_to_be_asked(A, now + ASK_AGAIN), "it did not answer");
        for gap in [true, false] {
            peers.begin(A, now);
            peers.named(A, device(1));
            if gap {
                let missed = peers.peers[&A].sequence + 2;
                assert_eq!(peers.hear(A, missed, true, now), Heard::AfterGap);
            }
            assert_eq!(peers.end(A).is_none(), gap);
            assert_eq!(peers.is_whole(A), !gap);
        }
    }

    #[test]
    fn silence_ends_a_lease_but_not_while_the_engine_is_away() {
        let now = Instant::now();
        let mut peers = Peers::default();
        peers.hear(A, 0, false, now);
        assert_eq!(peers.lease_ends(A), Some(now + LEASE));
        peers.set_blind(true, now + BEAT);
        assert_eq!(peers.lease_ends(A), Some(now + BEAT + BLIND_KEEPS));
        let back = now + Duration::from_secs(60);
        peers.set_blind(false, back);
        assert_eq!(peers.lease_ends(A), Some(back + LEASE), "it has had no chance to be heard before");
    }

    #[test]
    fn brokers_are_bounded() {
        let mut peers = Peers::default();
        for n in 0..=MAX_PEERS as u64 {
            let heard = peers.hear(BrokerId(n), 0, false, Instant::now());
            assert_eq!(heard == Heard::TooMany, n == MAX_PEERS as u64);
        }
    }
}
