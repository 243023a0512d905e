//! Fast IP updates: what changes about a farm (it came, went, restarted or
//! has other addresses) is pushed to the phones that watch it, at once.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use farm_protocol::broker::{
    Access, FromBroker, Heartbeat, HeartbeatAnswer, MAX_FORMER, MAX_INVITATIONS, MAX_PHONES, MAX_WATCHED,
    RefusedReason, Watch,
};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, PhoneId, SessionId};
use farm_protocol::relay::Relay;

use super::authentication::verify_presence;
use super::connection_state::DeviceId;
use super::event::{ConnectionId, Now};
use super::presence::{Proof, Version};
use super::relay::limits::CREDENTIALS_LAST;
use super::timers::Timer;
use super::{Core, Phase};

impl Core {
    /// A farm has a connection in this run, since then if it had none.
    pub(super) fn farm_came(
        &mut self,
        farm: FarmId,
        run: (BootId, Epoch),
        proof: Proof,
        address: IpAddr,
        since: Instant,
        now: Now,
    ) {
        self.absence_ends(farm, now);
        let was_online = self.farms.seen(farm).is_some_and(|seen| seen.online);
        if self.farms.came(farm, run, proof, address, since) {
            if !was_online {
                self.log_farm(farm, "farm online", now);
            }
            self.announce(farm, now);
            self.note_here(farm, address, now);
        }
    }

    /// A farm's last connection is gone.
    pub(super) fn farm_went(&mut self, farm: FarmId, now: Now) {
        let most = self.settings.limits.offline_farms;
        let no_longer_shown = self.farms.went(farm, most, now.instant);
        self.log_farm(farm, "farm offline", now);
        self.announce(farm, now);
        self.note_gone(farm, now);
        self.absence_begins(farm, now);
        if let Some(longest_away) = no_longer_shown {
            self.announce(longest_away, now);
        }
    }

    fn log_farm(&mut self, farm: FarmId, what: &'static str, now: Now) {
        if !self.log_lines.take(self.settings.limits.log_lines, 1, now.instant) {
            self.lines_left_out += 1;
            return;
        }
        let name = self.farms.record(farm).map_or("", |record| record.name.as_str());
        match std::mem::take(&mut self.lines_left_out) {
            0 => tracing::info!(%farm, name, "{what}"),
            left_out => tracing::info!(%farm, name, left_out, "{what}"),
        }
    }

    /// A heartbeat, perhaps with news of the device's addresses.
    pub(super) fn heartbeat(
        &mut self,
        connection: ConnectionId,
        device: DeviceId,
        heartbeat: Heartbeat,
        now: Now,
    ) {
        let known = self.states.run_of(device);
        let newer = known.filter(|(_, epoch)| heartbeat.epoch > *epoch);
        if let (DeviceId::Farm(farm), Some((boot, _))) = (device, newer) {
            let run = (boot, heartbeat.epoch);
            let key = self.farms.record(farm).map(|record| record.key);
            let proof =
                key.zip(heartbeat.presence).filter(|(key, proof)| verify_presence(key, run, *proof).is_ok());
            let Some((_, proof)) = proof else {
                return self.protocol_error(connection, now);
            };
            if self.states.raise(device, heartbeat.epoch).is_none() {
                return self.protocol_error(connection, now);
            }
            if let Some(observed) = self.connections.get(&connection).map(|c| c.observed) {
                self.farm_came(farm, run, Proof::Checked(proof), observed.ip(), now.instant, now);
            }
        } else if self.states.raise(device, heartbeat.epoch).is_none() {
            return self.protocol_error(connection, now);
        }
        if newer.is_some() {
            self.claim(device, now);
        }
        let sequence = heartbeat.sequence;
        let relay = self.relay_credentials(connection, now);
        self.send(connection, FromBroker::HeartbeatAnswer(HeartbeatAnswer { sequence, relay }));
    }

    /// Credentials for the relay, where the device is due some: a farm always,
    /// a phone if a farm lists it. A stranger with a key of its own gets none,
    /// or the relay would be everybody's.
    pub(super) fn relay_credentials(&mut self, connection: ConnectionId, now: Now) -> Option<Relay> {
        let issuer = self.settings.relay.as_ref()?;
        let device = self.connections.get_mut(&connection).and_then(Phase::device)?;
        if device.relay_due.is_some_and(|due| now.instant < due) {
            return None;
        }
        let relay = match device.id {
            DeviceId::Farm(farm) => issuer.for_farm(farm, now.unix),
            DeviceId::Phone(SessionId { phone, .. }) => {
                issuer.for_phone(phone, self.farms.listing(phone)?, now.unix)
            }
        };
        device.relay_due = Some(now.instant + CREDENTIALS_LAST / 2);
        Some(relay)
    }

    /// Phones get new credentials with their next heartbeat, if another farm
    /// pays for them: nothing remembers which farm did.
    pub(super) fn renew_phones_credentials(&mut self) {
        for connection in self.connections.values_mut() {
            if let Some(device) = Phase::device(connection)
                && matches!(device.id, DeviceId::Phone(_))
            {
                device.relay_due = None;
            }
        }
    }

    /// A farm says who may reach it.
    pub(super) fn access(&mut self, connection: ConnectionId, farm: FarmId, access: Access, now: Now) {
        let Access { phones, invitations, former } = &access;
        if phones.len() > MAX_PHONES || invitations.len() > MAX_INVITATIONS || former.len() > MAX_FORMER {
            self.counters.limit_access += 1;
            return self.refuse(connection, RefusedReason::Limit, now);
        }
        self.farms.set_access(farm, access);
        self.tell_access(farm);
        self.announce(farm, now);
    }

    /// A phone says which farms it wants to be told of, and is told at once.
    pub(super) fn watch(&mut self, connection: ConnectionId, phone: PhoneId, watch: Watch, now: Now) {
        let farms: BTreeSet<FarmId> = watch.farms.into_iter().collect();
        self.stop_watching(connection);
        let most = self.settings.limits.watches;
        if farms.len() > MAX_WATCHED || self.watchers.len() + farms.len() > most {
            self.counters.limit_watches += 1;
            return self.refuse(connection, RefusedReason::Limit, now);
        }
        for &farm in &farms {
            let version = self.farms.version_for(farm, phone);
            self.send_presence(farm, connection, version, now);
        }
        if let Some(device) = self.connections.get_mut(&connection).and_then(Phase::device) {
            device.watched = farms.into_iter().collect();
        }
    }

    /// Takes back all watches of a connection.
    pub(super) fn stop_watching(&mut self, connection: ConnectionId) {
        let device = self.connections.get_mut(&connection).and_then(Phase::device);
        let watched = device.map(|device| std::mem::take(&mut device.watched));
        for farm in watched.into_iter().flatten() {
            self.watchers.remove(farm, connection);
        }
    }

    /// Sends a farm's presence to each watcher whose view of it is out of
    /// date; where it changes too often, only the last after a while.
    pub(super) fn announce(&mut self, farm: FarmId, now: Now) {
        let views = self.watchers.of(farm);
        let outdated: Vec<(ConnectionId, Version)> = views
            .filter_map(|(connection, sent)| {
                let version = self.version_for(farm, connection);
                (version != sent).then_some((connection, version))
            })
            .collect();
        if outdated.is_empty() {
            return;
        }
        let rate = self.settings.limits.presence_changes;
        if let Some(seen) = self.farms.seen_mut(farm)
            && !seen.pushes.take(rate, 1, now.instant)
        {
            self.counters.limit_presence += 1;
            let at = seen.pushes.next_token(rate, now.instant);
            return self.timers.arm(Timer::Announce(farm), at);
        }
        for (connection, version) in outdated {
            self.send_presence(farm, connection, version, now);
        }
    }

    fn version_for(&self, farm: FarmId, connection: ConnectionId) -> Version {
        match self.connections.get(&connection).map(|c| &c.phase) {
            Some(Phase::In(device)) => match device.id {
                DeviceId::Phone(session) => self.farms.version_for(farm, session.phone),
                DeviceId::Farm(_) => 0,
            },
            _ => 0,
        }
    }

    fn send_presence(&mut self, farm: FarmId, connection: ConnectionId, version: Version, now: Now) {
        if version != 0 {
            self.check_presence(farm, now);
        }
        let presence = self.farms.presence(farm, version != 0, now.instant);
        self.counters.presence += 1;
        self.watchers.sent(farm, connection, version);
        self.send(connection, FromBroker::Presence(presence));
    }
}
