//! Several brokers as one: who has which device, what each tells the others,
//! and what is done when they disagree or can't hear each other.
//!
//! Every broker keeps the presence of every device in memory. What it knows of
//! the others' devices is their word, numbered so that a gap shows; of a farm
//! it believes only what the farm itself has signed.

pub mod message;
mod peers;
mod places;
pub mod records;
mod routing;

use std::collections::BTreeMap;
use std::time::Instant;

use farm_protocol::broker::{Access, Address, MAX_FORMER, MAX_INVITATIONS, MAX_PHONES, RefusedReason};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId};

use self::message::{Beat, Body, BrokerId, Claim, FarmAccess, FarmHere, MAX_CLAIMS, PeerMessage};
use self::peers::{BEAT, Heard, Peers, SAY_AGAIN};
use self::places::{FORGET_EVERY, Places, Rank};
use super::authentication::verify_presence;
use super::connection_state::{DeviceId, Verdict, judge};
use super::enrollment::presentable;
use super::event::{Action, Now};
use super::presence::Proof;
use super::timers::Timer;
use super::{Core, refused};

pub use self::message::MAX_NAME;
#[cfg(test)]
pub(super) use self::peers::{ASK_AGAIN, BEAT as BEAT_EVERY};
pub use self::peers::{BLIND_KEEPS, LEASE};
pub(super) use self::routing::Way;

/// This broker in its cluster.
#[derive(Debug, Clone)]
pub struct Membership {
    /// This run of it.
    pub id: BrokerId,
    /// What the operator calls it, for the others' logs.
    pub name: String,
}

/// What a broker of a cluster knows besides.
#[derive(Debug)]
pub(super) struct Cluster {
    me: Membership,
    /// Numbered messages said so far.
    sequence: u64,
    peers: Peers,
    places: Places,
    /// The devices that are here, each with the turn of its claim.
    turns: BTreeMap<DeviceId, u32>,
    /// Farms that came to another broker before their record came here.
    unknown: BTreeMap<FarmId, Unknown>,
    /// All records of the engine were read once.
    records_are_whole: bool,
    /// When all was said last.
    said: Option<Instant>,
    blind: bool,
}

#[derive(Debug)]
struct Unknown {
    from: BrokerId,
    claim: Claim,
    access: Option<Access>,
}

impl Cluster {
    pub(super) fn new(me: Membership) -> Self {
        Self {
            me,
            sequence: 0,
            peers: Peers::default(),
            places: Places::default(),
            turns: BTreeMap::new(),
            unknown: BTreeMap::new(),
            records_are_whole: false,
            said: None,
            // Until the shell says that there is an engine.
            blind: true,
        }
    }

    fn rank(&self, device: DeviceId, epoch: Epoch) -> Rank {
        let turn = self.turns.get(&device).copied().unwrap_or(0);
        Rank { epoch, turn, broker: self.me.id }
    }

    #[cfg(test)]
    pub(super) fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.turns.keys().copied()
    }
}

impl Core {
    /// The engine between the brokers is there, or not.
    pub(super) fn engine(&mut self, there: bool, now: Now) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.blind = !there;
        cluster.peers.set_blind(!there, now.instant);
        for broker in cluster.peers.ids().collect::<Vec<_>>() {
            self.watch_lease(broker);
        }
        if there {
            self.timers.arm(Timer::Beat, now.instant);
        }
    }

    /// It is time to say that this broker is there.
    pub(super) fn beat(&mut self, now: Now) {
        let Some(cluster) = &self.cluster else { return };
        let beat = Beat { name: cluster.me.name.clone(), devices: cluster.turns.len() as u64 };
        self.tell_all(Body::Beat(beat));
        self.timers.arm(Timer::Beat, now.instant + BEAT);
    }

    /// Another broker said something.
    pub(super) fn peer_said(&mut self, message: PeerMessage, now: Now) {
        let PeerMessage { from, sequence, body } = message;
        let Some(cluster) = &mut self.cluster else { return };
        if from == cluster.me.id {
            return;
        }
        self.counters.peer_messages += 1;
        let body = match body {
            // Over a way of their own: their number says nothing of what is under way.
            Body::Signal(signal) => return self.peer_signal(from, signal, now),
            Body::Undelivered(undelivered) => return self.peer_undelivered(undelivered),
            body => body,
        };
        match cluster.peers.hear(from, sequence, body.is_numbered(), now.instant) {
            Heard::InOrder => {}
            Heard::New => self.watch_lease(from),
            Heard::AfterGap => self.counters.peer_gaps += 1,
            Heard::Late => return,
            Heard::TooMany => return self.counters.peer_too_many += 1,
        }
        match body {
            Body::Beat(beat) => self.peer_beat(from, &beat),
            Body::Here(claims) => {
                for claim in claims.into_iter().take(MAX_CLAIMS) {
                    self.claimed(from, claim, now);
                }
            }
            Body::Gone(device) => {
                if let Ok(device) = DeviceId::try_from(device) {
                    self.gone_from(from, device, now);
                }
            }
            Body::Access(access) => self.peer_access(from, access, now),
            Body::Begin => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.peers.begin(from, now.instant);
                }
            }
            Body::End => self.said_all(from, now),
            Body::Ask(whom) => self.asked(whom, now),
            Body::Signal(_) | Body::Undelivered(_) => {}
        }
        if let Some(cluster) = &mut self.cluster
            && cluster.peers.is_to_be_asked(from, now.instant)
        {
            self.tell_all(Body::Ask(from));
        }
    }

    fn peer_beat(&mut self, from: BrokerId, beat: &Beat) {
        let Some(cluster) = &mut self.cluster else { return };
        let name: String = presentable(&beat.name).chars().take(MAX_NAME).collect();
        if cluster.peers.rename(from, &name) {
            tracing::info!(broker = %from, name, "another broker is here");
        }
        // Both count the same devices, or one of them is wrong.
        if cluster.places.count(from) != beat.devices && cluster.peers.is_whole(from) {
            cluster.peers.doubt(from);
            self.counters.peer_doubts += 1;
        }
    }

    /// Another broker says that a device is with it. The newest claim holds.
    fn claimed(&mut self, from: BrokerId, claim: Claim, now: Now) {
        let Ok(device) = DeviceId::try_from(claim.device) else { return };
        let Some(cluster) = &mut self.cluster else { return };
        cluster.peers.named(from, device);
        if let DeviceId::Farm(farm) = device
            && !self.believes(farm, &claim)
        {
            self.counters.peer_unproven += 1;
            return;
        }
        let theirs = Rank { epoch: claim.epoch, turn: claim.turn, broker: from };
        let here = self.states.connection_of(device).zip(self.states.run_of(device));
        let Some(cluster) = &mut self.cluster else { return };
        if let Some((connection, (boot, epoch))) = here {
            if cluster.rank(device, epoch) > theirs {
                // They have not heard of ours, or they would not say so.
                return self.claim(device, now);
            }
            cluster.turns.remove(&device);
            cluster.places.put(device, theirs, claim.boot);
            self.counters.moved_away += 1;
            // Where it is the same run it knows that it has moved.
            let last = (boot != claim.boot).then(|| refused(RefusedReason::Superseded));
            self.close(connection, last, now);
        } else if !cluster.places.put(device, theirs, claim.boot) {
            return;
        }
        if !self.timers.is_armed(Timer::Places) {
            self.timers.arm(Timer::Places, now.instant + FORGET_EVERY);
        }
        if let DeviceId::Farm(farm) = device {
            self.farm_is_elsewhere(farm, from, claim, now);
        }
    }

    /// Whether the farm itself says what is claimed of it. One whose record is
    /// not here yet is not shown to anybody either.
    fn believes(&self, farm: FarmId, claim: &Claim) -> bool {
        let Some(here) = &claim.farm else { return false };
        if self.enrollment.revoked.contains_key(&farm) {
            return false;
        }
        let run = (claim.boot, claim.epoch);
        let checked = self
            .farms
            .seen(farm)
            .is_some_and(|seen| (seen.boot, seen.epoch) == run && seen.proof == Proof::Checked(here.proof));
        checked
            || self
                .farms
                .record(farm)
                .is_none_or(|record| verify_presence(&record.key, run, here.proof).is_ok())
    }

    fn farm_is_elsewhere(&mut self, farm: FarmId, from: BrokerId, claim: Claim, now: Now) {
        if !self.farms.is_enrolled(farm) {
            let most = self.settings.limits.farms;
            if let Some(cluster) = &mut self.cluster
                && (cluster.unknown.len() < most || cluster.unknown.contains_key(&farm))
            {
                let access = cluster.unknown.remove(&farm).and_then(|unknown| unknown.access);
                cluster.unknown.insert(farm, Unknown { from, claim, access });
            }
            return;
        }
        let Some(here) = claim.farm else { return };
        let ago = std::time::Duration::from_secs(here.since_seconds);
        let since = now.instant.checked_sub(ago).unwrap_or(now.instant);
        self.farm_came(farm, (claim.boot, claim.epoch), Proof::Checked(here.proof), here.address, since, now);
    }

    /// The record of a farm came: it may be with another broker already.
    pub(super) fn farm_became_known(&mut self, farm: FarmId, now: Now) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(Unknown { from, claim, access }) = cluster.unknown.remove(&farm) else { return };
        if cluster.places.broker_of(DeviceId::Farm(farm)) != Some(from) {
            return;
        }
        if !self.believes(farm, &claim) {
            self.counters.peer_unproven += 1;
            return self.gone_from(from, DeviceId::Farm(farm), now);
        }
        self.farm_is_elsewhere(farm, from, claim, now);
        if let Some(access) = access {
            self.peer_access(from, FarmAccess { farm, access }, now);
        }
    }

    fn gone_from(&mut self, from: BrokerId, device: DeviceId, now: Now) {
        let Some(cluster) = &mut self.cluster else { return };
        if !cluster.places.leave(device, from, now.instant) {
            return;
        }
        if let DeviceId::Farm(farm) = device {
            cluster.unknown.remove(&farm);
            if self.farms.seen(farm).is_some_and(|seen| seen.online) {
                self.farm_went(farm, now);
            }
        }
    }

    fn peer_access(&mut self, from: BrokerId, FarmAccess { farm, access }: FarmAccess, now: Now) {
        let Some(cluster) = &mut self.cluster else { return };
        let fits = access.phones.len() <= MAX_PHONES
            && access.invitations.len() <= MAX_INVITATIONS
            && access.former.len() <= MAX_FORMER;
        if !fits || cluster.places.broker_of(DeviceId::Farm(farm)) != Some(from) {
            return;
        }
        if let Some(unknown) = cluster.unknown.get_mut(&farm) {
            unknown.access = Some(access);
            return;
        }
        self.farms.set_access(farm, access);
        self.announce(farm, now);
    }

    fn said_all(&mut self, from: BrokerId, now: Now) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(named) = cluster.peers.end(from) else { return };
        let gone = cluster.places.of(from).into_iter().filter(|device| !named.contains(device));
        for device in gone.collect::<Vec<_>>() {
            self.gone_from(from, device, now);
        }
    }

    fn asked(&mut self, whom: BrokerId, now: Now) {
        let Some(cluster) = &self.cluster else { return };
        if whom != cluster.me.id {
            return;
        }
        match cluster.said.map(|said| said + SAY_AGAIN).filter(|next| *next > now.instant) {
            Some(next) => self.timers.arm(Timer::SayAll, next),
            None => self.say_all(now),
        }
    }

    /// Says what is here, from the beginning.
    pub(super) fn say_all(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.said = Some(now.instant);
        let devices: Vec<DeviceId> = cluster.turns.keys().copied().collect();
        self.counters.peer_said_all += 1;
        self.tell_all(Body::Begin);
        for some in devices.chunks(MAX_CLAIMS) {
            let claims = some.iter().filter_map(|device| self.claim_of(*device, now)).collect();
            self.tell_all(Body::Here(claims));
        }
        for device in devices {
            if let DeviceId::Farm(farm) = device {
                self.tell_access(farm);
            }
        }
        self.tell_all(Body::End);
    }

    fn claim_of(&self, device: DeviceId, now: Now) -> Option<Claim> {
        let cluster = self.cluster.as_ref()?;
        let turn = *cluster.turns.get(&device)?;
        let (boot, epoch) = self.states.run_of(device)?;
        let farm = match device {
            DeviceId::Farm(farm) => {
                let seen = self.farms.seen(farm)?;
                let since_seconds = now.instant.saturating_duration_since(seen.since).as_secs();
                Some(FarmHere { proof: seen.proof.checked()?, address: seen.address, since_seconds })
            }
            DeviceId::Phone(_) => None,
        };
        Some(Claim { device: device.into(), boot, epoch, turn, farm })
    }

    /// Whether a run of a device is older than one that is known of elsewhere.
    pub(super) fn judge_elsewhere(&self, device: DeviceId, run: (BootId, Epoch)) -> Verdict {
        let place = self.cluster.as_ref().and_then(|cluster| cluster.places.known(device));
        place.map_or(Verdict::Newest, |place| judge((place.boot, place.rank.epoch), run))
    }

    /// A device has come here: a claim of a higher turn than any known.
    pub(super) fn take_turn(&mut self, device: DeviceId) {
        let Some(cluster) = &mut self.cluster else { return };
        let before = cluster.places.known(device).map(|place| place.rank.turn);
        let turn = before.max(cluster.turns.get(&device).copied()).map_or(0, |turn| turn.saturating_add(1));
        cluster.places.take(device);
        cluster.turns.insert(device, turn);
    }

    /// Tells the others that a device is here.
    pub(super) fn claim(&mut self, device: DeviceId, now: Now) {
        if let Some(claim) = self.claim_of(device, now) {
            self.tell_all(Body::Here(vec![claim]));
        }
    }

    /// A device is here no more. Whether it is with another broker.
    pub(super) fn give_up_claim(&mut self, device: DeviceId) -> bool {
        let Some(cluster) = &mut self.cluster else { return false };
        let elsewhere = cluster.places.broker_of(device).is_some();
        let told = cluster.turns.remove(&device).is_some();
        if told && !elsewhere && !self.shutting_down {
            self.tell_all(Body::Gone(device.into()));
        }
        elsewhere
    }

    /// Tells the others whom a farm lets know.
    pub(super) fn tell_access(&mut self, farm: FarmId) {
        if self.cluster.is_some()
            && let Some(access) = self.farms.access_of(farm)
        {
            self.tell_all(Body::Access(FarmAccess { farm, access }));
        }
    }

    fn watch_lease(&mut self, broker: BrokerId) {
        let Some(cluster) = &self.cluster else { return };
        if let Some(ends) = cluster.peers.lease_ends(broker) {
            self.timers.arm(Timer::Peer(broker), ends);
        }
    }

    /// A broker's lease may have ended.
    pub(super) fn peer_due(&mut self, broker: BrokerId, now: Now) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.peers.lease_ends(broker).is_some_and(|ends| ends > now.instant) {
            return self.watch_lease(broker);
        }
        let name = cluster.peers.name(broker).to_owned();
        let devices = cluster.places.of(broker);
        if cluster.peers.forget(broker) {
            tracing::warn!(%broker, name, devices = devices.len(), "another broker is gone");
        }
        for device in devices {
            self.gone_from(broker, device, now);
        }
    }

    /// What left long ago is forgotten.
    pub(super) fn forget_places(&mut self, now: Now) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.places.forget_gone(now.instant);
        if !cluster.places.is_empty() {
            self.timers.arm(Timer::Places, now.instant + FORGET_EVERY);
        }
    }

    fn tell_all(&mut self, body: Body) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.sequence += u64::from(body.is_numbered());
        let message = PeerMessage { from: cluster.me.id, sequence: cluster.sequence, body };
        self.actions.push_back(Action::TellAll { message: Box::new(message) });
    }

    fn tell(&mut self, broker: BrokerId, body: Body) {
        let Some(cluster) = &self.cluster else { return };
        let message = PeerMessage { from: cluster.me.id, sequence: cluster.sequence, body };
        self.actions.push_back(Action::Tell { broker, message: Box::new(message) });
    }

    #[cfg(test)]
    pub(super) fn is_anywhere(&self, device: DeviceId) -> bool {
        let elsewhere = self.cluster.as_ref().and_then(|cluster| cluster.places.broker_of(device));
        self.states.connection_of(device).is_some() || elsewhere.is_some()
    }

    #[cfg(test)]
    pub(super) fn elsewhere(&self, device: DeviceId) -> Option<BrokerId> {
        self.cluster.as_ref().and_then(|cluster| cluster.places.broker_of(device))
    }

    /// How many other brokers are there.
    pub fn peers(&self) -> usize {
        self.cluster.as_ref().map_or(0, |cluster| cluster.peers.len())
    }
}

impl TryFrom<Address> for DeviceId {
    type Error = ();

    fn try_from(address: Address) -> Result<Self, ()> {
        match address {
            Address::Farm(farm) => Ok(Self::Farm(farm)),
            Address::Phone(session) => Ok(Self::Phone(session)),
            Address::Invitation(_) => Err(()),
        }
    }
}
