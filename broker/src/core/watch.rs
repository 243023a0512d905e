//! Who watches which farm, and which version of its presence each was sent.

use std::collections::BTreeMap;

use farm_protocol::id::FarmId;

use super::event::ConnectionId;
use super::presence::Version;

/// The watching phones of every watched farm, enrolled or not.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    farms: BTreeMap<FarmId, BTreeMap<ConnectionId, Version>>,
    count: usize,
}

impl Watchers {
    /// How many watches there are altogether.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Notes what this connection was last sent of this farm.
    pub(super) fn sent(&mut self, farm: FarmId, connection: ConnectionId, version: Version) {
        let watching = self.farms.entry(farm).or_default();
        if watching.insert(connection, version).is_none() {
            self.count += 1;
        }
    }

    /// The connection does not watch this farm any more.
    pub(super) fn remove(&mut self, farm: FarmId, connection: ConnectionId) {
        let Some(watching) = self.farms.get_mut(&farm) else {
            return;
        };
        if watching.remove(&connection).is_some() {
            self.count -= 1;
        }
        if watching.is_empty() {
            self.farms.remove(&farm);
        }
    }

    /// The connections that watch this farm, with what each was last sent.
    pub(super) fn of(&self, farm: FarmId) -> impl Iterator<Item = (ConnectionId, Version)> {
        let watching = self.farms.get(&farm).into_iter().flatten();
        watching.map(|(connection, version)| (*connection, *version))
    }
}
