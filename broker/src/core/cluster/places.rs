//! Where devices are that are with another broker, and which of several
//! claims to one device holds: the newest epoch, then the newest turn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use farm_protocol::epoch::Epoch;
use farm_protocol::id::BootId;

use super::message::BrokerId;
use crate::core::connection_state::{DeviceId, FORGET_DEVICE_AFTER};

/// The order of claims to one device. All brokers order them alike, so two
/// that both believe they have a device agree on whose it is as soon as they
/// hear of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The device's own: a newer run, or the same with other addresses.
    pub(super) epoch: Epoch,
    /// Counts the device's changes of broker. Of two brokers that did not know
    /// of each other both may be as high.
    pub(super) turn: u32,
    /// Then any order will do: who loses a device that it has lets it come
    /// back, with a higher turn.
    pub(super) broker: BrokerId,
}

/// A device that is, or was a short while ago, with another broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) rank: Rank,
    pub(super) boot: BootId,
    /// When it left, if it did.
    pub(super) left: Option<Instant>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: BTreeMap<DeviceId, Place>,
    /// How many devices are with each broker.
    counts: BTreeMap<BrokerId, u64>,
}

impl Places {
    /// What is known of a device, whether it is still there or left.
    pub(super) fn known(&self, device: DeviceId) -> Option<&Place> {
        self.places.get(&device)
    }

    /// The broker that has the device now.
    pub(super) fn broker_of(&self, device: DeviceId) -> Option<BrokerId> {
        self.places.get(&device).filter(|place| place.left.is_none()).map(|place| place.rank.broker)
    }

    /// A broker has a device. `false` if a newer claim is known.
    pub(super) fn put(&mut self, device: DeviceId, rank: Rank, boot: BootId) -> bool {
        if let Some(place) = self.places.get(&device) {
            // A broker's own claims come in order, even if a clone of the
            // device with an older epoch is what it has now.
            if place.left.is_none() && place.rank.broker != rank.broker && place.rank > rank {
                return false;
            }
            self.uncount(device);
        }
        self.places.insert(device, Place { rank, boot, left: None });
        *self.counts.entry(rank.broker).or_default() += 1;
        true
    }

    /// A broker says that it has the device no more. `false` if another had it.
    pub(super) fn leave(&mut self, device: DeviceId, broker: BrokerId, now: Instant) -> bool {
        if self.broker_of(device) != Some(broker) {
            return false;
        }
        self.uncount(device);
        if let Some(place) = self.places.get_mut(&device) {
            place.left = Some(now);
        }
        true
    }

    /// The device has come here: it is elsewhere no more.
    pub(super) fn take(&mut self, device: DeviceId) {
        self.uncount(device);
        self.places.remove(&device);
    }

    fn uncount(&mut self, device: DeviceId) {
        if let Some(broker) = self.broker_of(device)
            && let Some(count) = self.counts.get_mut(&broker)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&broker);
            }
        }
    }

    /// How many devices a broker has, as far as is known.
    pub(super) fn count(&self, broker: BrokerId) -> u64 {
        self.counts.get(&broker).copied().unwrap_or(0)
    }

    /// The devices that a broker has.
    pub(super) fn of(&self, broker: BrokerId) -> Vec<DeviceId> {
        let of_it = |(device, place): (&DeviceId, &Place)| {
            (place.left.is_none() && place.rank.broker == broker).then_some(*device)
        };
        self.places.iter().filter_map(of_it).collect()
    }

    /// Drops what left long ago; as long as an own device's epoch is
    /// remembered (see [`FORGET_DEVICE_AFTER`]).
    pub(super) fn forget_gone(&mut self, now: Instant) {
        let long_ago = |left: Instant| now >= left + FORGET_DEVICE_AFTER;
        self.places.retain(|_, place| !place.left.is_some_and(long_ago));
    }

    /// Whether there is anything that [`Self::forget_gone`] may drop one day.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// How often what left is looked at: it costs memory only.
pub(super) const FORGET_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device() -> DeviceId {
        DeviceId::Farm(farm_protocol::id::FarmId::from_bytes([1; 20]))
    }

    fn rank(starts: u64, turn: u32, broker: u64) -> Rank {
        Rank { epoch: Epoch::of_start(starts), turn, broker: BrokerId(broker) }
    }

    fn boot() -> BootId {
        BootId::from_bytes([0; 16])
    }

    #[test]
    fn a_newer_run_beats_any_turn_and_a_newer_turn_any_broker() {
        assert!(rank(2, 0, 1) > rank(1, 9, 9));
        assert!(rank(1, 2, 1) > rank(1, 1, 9));
        assert!(rank(1, 1, 2) > rank(1, 1, 1));
    }

    #[test]
    fn a_late_claim_of_the_broker_before_changes_nothing() {
        let mut places = Places::default();
        assert!(places.put(device(), rank(1, 1, 1), boot()));
        assert!(places.put(device(), rank(1, 2, 2), boot()));
        assert!(!places.put(device(), rank(1, 1, 1), boot()));
        assert!(!places.leave(device(), BrokerId(1), Instant::now()), "it is not its any more");
        assert_eq!(places.broker_of(device()), Some(BrokerId(2)));
        assert_eq!((places.count(BrokerId(1)), places.count(BrokerId(2))), (0, 1));
    }

    #[test]
    fn what_left_is_remembered_for_a_while() {
        let mut places = Places::default();
        let now = Instant::now();
        places.put(device(), rank(1, 7, 1), boot());
        assert!(places.leave(device(), BrokerId(1), now));
        assert_eq!(places.broker_of(device()), None);
        assert_eq!(places.known(device()).map(|place| place.rank.turn), Some(7));
        places.forget_gone(now + FORGET_DEVICE_AFTER);
        assert!(places.is_empty());
    }

    proptest! {
        /// In whatever order the claims of different brokers come, all agree.
        #[test]
        fn the_order_of_arrival_does_not_matter(
            claims in prop::collection::btree_map(0u64..6, (0u64..3, 0u32..4), 1..6),
            seed in any::<u64>(),
        ) {
            let mut order: Vec<_> = claims.iter().collect();
            let newest = order.iter().map(|(b, (e, t))| rank(*e, *t, **b)).max().unwrap();
            let by = (seed % order.len() as u64) as usize;
            order.rotate_left(by);
            let mut places = Places::default();
            for (broker, (epoch, turn)) in order {
                places.put(device(), rank(*epoch, *turn, *broker), boot());
            }
            prop_assert_eq!(places.broker_of(device()), Some(newest.broker));
        }
    }
}
