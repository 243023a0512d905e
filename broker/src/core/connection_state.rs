//! The connection state DB: which run of which device is here, over which
//! connection. The newest authenticated (boot, epoch) wins, at once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use farm_protocol::broker::Address;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, SessionId};

use super::event::ConnectionId;

/// How long the epoch of a device without a connection is remembered.
/// Longer than any hand-over or restart, so that a late message of an old run
/// can't displace a new one; short, so that what is gone costs nothing.
pub const FORGET_DEVICE_AFTER: Duration = Duration::from_secs(300);

/// A device as the broker keys it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceId {
    /// A farm's agent.
    Farm(FarmId),
    /// One program on a phone.
    Phone(SessionId),
}

impl From<DeviceId> for Address {
    fn from(device: DeviceId) -> Self {
        match device {
            DeviceId::Farm(farm) => Self::Farm(farm),
            DeviceId::Phone(session) => Self::Phone(session),
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Address::from(*self).fmt(f)
    }
}

/// Whether a run of a device may take the device's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Newest,
    /// It may not: it is older than, or absurdly far ahead of, this epoch.
    Stale(Epoch),
}

/// Whether a run may follow the one that is known.
pub(super) fn judge(known: (BootId, Epoch), (boot, epoch): (BootId, Epoch)) -> Verdict {
    let newest = if boot == known.0 {
        // The same run reconnects, with or without a change of address.
        epoch >= known.1 && !epoch.is_absurd_after(known.1)
    } else {
        epoch.follows(known.1)
    };
    if newest { Verdict::Newest } else { Verdict::Stale(known.1) }
}

#[derive(Debug, Clone, Copy)]
struct Record {
    boot: BootId,
    epoch: Epoch,
    connection: Option<ConnectionId>,
    /// When its last connection ended, or began.
    seen: Instant,
}

/// All devices that are connected or were within [`FORGET_DEVICE_AFTER`].
#[derive(Debug, Default)]
pub(super) struct ConnectionStates {
    devices: BTreeMap<DeviceId, Record>,
}

impl ConnectionStates {
    /// Whether this run may enter.
    pub(super) fn judge(&self, device: DeviceId, boot: BootId, epoch: Epoch) -> Verdict {
        let known = self.devices.get(&device);
        known.map_or(Verdict::Newest, |known| judge((known.boot, known.epoch), (boot, epoch)))
    }

    /// Whether this connection was opened before the one that the same run of
    /// the device has now. Its first message may still come last.
    pub(super) fn is_older_connection(
        &self,
        device: DeviceId,
        boot: BootId,
        connection: ConnectionId,
    ) -> bool {
        let known = self.devices.get(&device).filter(|known| known.boot == boot);
        known.and_then(|known| known.connection).is_some_and(|newer| newer > connection)
    }

    /// Puts a run in the device's place and gives the connection that it had
    /// until now.
    pub(super) fn enter(
        &mut self,
        device: DeviceId,
        (boot, epoch): (BootId, Epoch),
        connection: ConnectionId,
        now: Instant,
    ) -> Option<ConnectionId> {
        let record = Record { boot, epoch, connection: Some(connection), seen: now };
        self.devices.insert(device, record).and_then(|former| former.connection)
    }

    /// A connection ended. `false` if the device has moved to another one.
    pub(super) fn leave(&mut self, device: DeviceId, connection: ConnectionId, now: Instant) -> bool {
        match self.devices.get_mut(&device) {
            Some(record) if record.connection == Some(connection) => {
                record.connection = None;
                record.seen = now;
                true
            }
            _ => false,
        }
    }

    /// Takes a newer epoch of the run that is here. `None` if it is absurd,
    /// else whether it is newer.
    pub(super) fn raise(&mut self, device: DeviceId, epoch: Epoch) -> Option<bool> {
        let record = self.devices.get_mut(&device)?;
        if epoch.is_absurd_after(record.epoch) {
            return None;
        }
        let newer = epoch > record.epoch;
        record.epoch = record.epoch.max(epoch);
        Some(newer)
    }

    /// The device's run.
    pub(super) fn run_of(&self, device: DeviceId) -> Option<(BootId, Epoch)> {
        self.devices.get(&device).map(|record| (record.boot, record.epoch))
    }

    /// The device's connection, if it has one.
    pub(super) fn connection_of(&self, device: DeviceId) -> Option<ConnectionId> {
        self.devices.get(&device).and_then(|record| record.connection)
    }

    /// Drops the device if it has been away for [`FORGET_DEVICE_AFTER`].
    pub(super) fn forget_if_away(&mut self, device: DeviceId, now: Instant) -> bool {
        let away = self
            .devices
            .get(&device)
            .is_some_and(|record| record.connection.is_none() && now >= record.seen + FORGET_DEVICE_AFTER);
        if away {
            self.devices.remove(&device);
        }
        away
    }

    #[cfg(test)]
    pub(super) fn connected(&self) -> impl Iterator<Item = (DeviceId, ConnectionId)> {
        self.devices
            .iter()
            .filter_map(|(device, record)| record.connection.map(|connection| (*device, connection)))
    }

    #[cfg(test)]
    pub(super) fn away(&self) -> impl Iterator<Item = DeviceId> {
        self.devices.iter().filter(|(_, record)| record.connection.is_none()).map(|(device, _)| *device)
    }
}
