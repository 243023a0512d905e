//! A core with a virtual clock, devices with real keys, and a record of what
//! each connection was sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use farm_protocol::base32;
use farm_protocol::broker::{
    Access, Address, Authenticate, Claim, FromBroker, Heartbeat, Presence, PresenceState, RefusedReason,
    Role, Signal, ToBroker, UndeliveredReason, Watch, presence_proof,
};
use farm_protocol::channel::Channel;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, InvitationId, PhoneId, SessionId, Slot};
use farm_protocol::keys::{DeviceKey, Nonce};

use crate::core::cluster::message::{BrokerId, PeerMessage};
use crate::core::connection_state::DeviceId;
use crate::core::enrollment::{FarmRecord, TOKEN_BYTES, TokenHash, TokenRecord};
use crate::core::{Action, Claimed, ConnectionId, Core, Event, Now, Phase, Settings};

pub(super) const NAME: &str = "broker.example.org";
pub(super) const UNIX: u64 = 1_790_000_000;

/// A device as it would be: a key and a run.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) role: Role,
    pub(super) key: DeviceKey,
    pub(super) slot: Slot,
    pub(super) boot: BootId,
    pub(super) epoch: Epoch,
}

impl Device {
    pub(super) fn new(role: Role, seed: u8) -> Self {
        let role_bit = if role == Role::Farm { 0x80 } else { 0 };
        Self {
            role,
            key: DeviceKey::from_seed([seed | role_bit; 32]).unwrap(),
            slot: Slot::default(),
            boot: BootId::from_bytes([1; 16]),
            epoch: Epoch::of_start(1),
        }
    }

    pub(super) fn farm(seed: u8) -> Self {
        Self::new(Role::Farm, seed)
    }

    pub(super) fn phone(seed: u8) -> Self {
        Self::new(Role::Phone, seed)
    }

    pub(super) fn farm_id(&self) -> FarmId {
        FarmId::of(&self.key.public())
    }

    pub(super) fn phone_id(&self) -> PhoneId {
        PhoneId::of(&self.key.public())
    }

    pub(super) fn session(&self) -> SessionId {
        SessionId { phone: self.phone_id(), slot: self.slot }
    }

    pub(super) fn id(&self) -> DeviceId {
        match self.role {
            Role::Farm => DeviceId::Farm(self.farm_id()),
            Role::Phone => DeviceId::Phone(self.session()),
        }
    }

    /// The program starts again.
    pub(super) fn restart(&mut self) {
        let starts = self.epoch.starts() + 1;
        self.epoch = Epoch::of_start(starts);
        self.boot = BootId::from_bytes([starts as u8; 16]);
    }

    pub(super) fn authenticate(&self, nonce: &Nonce) -> Authenticate {
        Authenticate::sign(&self.key, nonce, self.says())
    }

    /// What goes with a request on this channel.
    pub(super) fn claim(&self, channel: &Channel) -> Authenticate {
        Authenticate::sign_for_channel(&self.key, channel, self.says())
    }

    fn says(&self) -> Claim {
        Claim {
            role: self.role,
            slot: self.slot,
            boot: self.boot,
            epoch: self.epoch,
            broker: NAME.to_owned(),
        }
    }

    pub(super) fn heartbeat(&self, sequence: u32) -> ToBroker {
        let presence = presence_proof(&self.key, self.farm_id(), self.boot, self.epoch);
        ToBroker::Heartbeat(Heartbeat {
            sequence,
            epoch: self.epoch,
            presence: (self.role == Role::Farm).then_some(presence),
        })
    }
}

pub(super) fn access(phones: &[&Device], invitations: &[InvitationId]) -> ToBroker {
    ToBroker::Access(Access {
        phones: phones.iter().map(|phone| phone.phone_id()).collect(),
        invitations: invitations.to_vec(),
        former: Vec::new(),
    })
}

pub(super) fn watch(farms: &[&Device]) -> ToBroker {
    ToBroker::Watch(Watch { farms: farms.iter().map(|farm| farm.farm_id()).collect() })
}

pub(super) fn signal(peer: Address) -> ToBroker {
    ToBroker::Signal(Signal { peer, payload: b"opaque".to_vec() })
}

pub(super) fn invitation(number: u8) -> InvitationId {
    InvitationId::from_bytes([number; 16])
}

pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Now,
    start: Instant,
    next: u64,
    sent: BTreeMap<ConnectionId, Vec<FromBroker>>,
    closed: BTreeSet<ConnectionId>,
    nonces: BTreeMap<ConnectionId, Nonce>,
    /// Enrollments and forgotten tokens that the store was asked for.
    pub(super) stored: Vec<Action>,
    /// What was said to other brokers; to all, or to one.
    pub(super) told: VecDeque<(Option<BrokerId>, PeerMessage)>,
    /// What the log's writer was asked for.
    pub(super) written: Vec<Action>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            names: BTreeSet::from([NAME.to_owned()]),
            stun_port: Some(8443),
            ..Settings::default()
        };
        change(&mut settings);
        let start = Instant::now();
        let now = Now { instant: start, unix: UNIX };
        Self {
            core: Core::new(settings, [], [], now),
            now,
            start,
            next: 0,
            sent: BTreeMap::new(),
            closed: BTreeSet::new(),
            nonces: BTreeMap::new(),
            stored: Vec::new(),
            told: VecDeque::new(),
            written: Vec::new(),
        }
    }

    pub(super) fn handle(&mut self, event: Event) {
        self.core.handle(event, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send { connection, message } => {
                    assert!(
                        !self.closed.contains(&connection),
                        "{message:?} to {connection:?} after its close"
                    );
                    assert!(self.nonces.contains_key(&connection), "{connection:?} was never opened");
                    self.sent.entry(connection).or_default().push(*message);
                }
                Action::Close { connection } => {
                    assert!(self.closed.insert(connection), "{connection:?} closed twice");
                }
                Action::TellAll { message } => self.told.push_back((None, *message)),
                Action::Tell { broker, message } => self.told.push_back((Some(broker), *message)),
                Action::WriteHistory { .. } | Action::MarkRun { .. } => self.written.push(action),
                other => self.stored.push(other),
            }
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now.instant - self.start
    }

    /// Lets time go by, waking the core exactly when it asks for it.
    pub(super) fn advance(&mut self, duration: Duration) {
        let until = self.now.instant + duration;
        while let Some((at, reason)) = self.core.poll_timeout().filter(|(at, _)| *at <= until) {
            self.set_time(at.max(self.now.instant));
            self.handle(Event::Timeout);
            let next = self.core.poll_timeout();
            assert!(next != Some((at, reason)), "{reason} was due and stays so");
        }
        self.set_time(until);
    }

    fn set_time(&mut self, instant: Instant) {
        self.now = Now { instant, unix: UNIX + (instant - self.start).as_secs() };
    }

    pub(super) fn open(&mut self) -> ConnectionId {
        self.open_claiming(None)
    }

    /// With what came with the request.
    pub(super) fn open_claiming(&mut self, claim: Option<Box<Claimed>>) -> ConnectionId {
        // Each from an address of its own: limits per address have their tests.
        let host = u32::try_from(self.next + 1).unwrap();
        self.open_as(std::net::Ipv4Addr::from(0x0a00_0000 + host).into(), claim)
    }

    pub(super) fn open_from(&mut self, ip: IpAddr) -> ConnectionId {
        self.open_as(ip, None)
    }

    fn open_as(&mut self, ip: IpAddr, claim: Option<Box<Claimed>>) -> ConnectionId {
        self.next += 1;
        let connection = ConnectionId(self.next);
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.next.to_be_bytes());
        let nonce = Nonce::from_bytes(nonce);
        self.nonces.insert(connection, nonce);
        self.handle(Event::Opened { connection, observed: SocketAddr::new(ip, 40_000), nonce, claim });
        connection
    }

    pub(super) fn nonce(&self, connection: ConnectionId) -> Nonce {
        self.nonces[&connection]
    }

    pub(super) fn say(&mut self, connection: ConnectionId, message: ToBroker) {
        self.handle(Event::Message { connection, message });
    }

    pub(super) fn authenticate(&mut self, connection: ConnectionId, device: &Device) {
        let claim = device.authenticate(&self.nonce(connection));
        self.say(connection, ToBroker::Authenticate(Box::new(claim)));
    }

    /// What the connection was sent since the last look.
    pub(super) fn take(&mut self, connection: ConnectionId) -> Vec<FromBroker> {
        self.sent.remove(&connection).unwrap_or_default()
    }

    pub(super) fn is_closed(&self, connection: ConnectionId) -> bool {
        self.closed.contains(&connection)
    }

    /// The reason of the refusal that ends what the connection was sent.
    pub(super) fn refusal(&mut self, connection: ConnectionId) -> Option<RefusedReason> {
        assert!(self.is_closed(connection), "{connection:?} was not closed");
        match self.take(connection).pop() {
            Some(FromBroker::Refused(refused)) => Some(refused.reason),
            _ => None,
        }
    }

    /// Enrolls a farm without the ceremony of a token.
    pub(super) fn enroll(&mut self, farm: &Device) {
        self.core.farms.add(farm.farm_id(), record(farm));
    }

    /// A device that is in; the farms are enrolled first.
    pub(super) fn enter(&mut self, device: &Device) -> ConnectionId {
        let connection = self.open();
        self.enter_on(connection, device);
        connection
    }

    pub(super) fn enter_from(&mut self, ip: &str, device: &Device) -> ConnectionId {
        let connection = self.open_from(ip.parse().unwrap());
        self.enter_on(connection, device);
        connection
    }

    fn enter_on(&mut self, connection: ConnectionId, device: &Device) {
        if device.role == Role::Farm && !self.core.farms.is_enrolled(device.farm_id()) {
            self.enroll(device);
        }
        self.authenticate(connection, device);
        let sent = self.take(connection);
        assert!(
            matches!(sent.as_slice(), [FromBroker::Challenge(_), FromBroker::Welcome(_)]),
            "{device:?} was sent {sent:?}"
        );
    }

    /// The presence messages since the last look; nothing else was sent.
    pub(super) fn presences(&mut self, connection: ConnectionId) -> Vec<Presence> {
        let sent = self.take(connection).into_iter();
        sent.map(|message| match message {
            FromBroker::Presence(presence) => presence,
            other => panic!("expected presence, got {other:?}"),
        })
        .collect()
    }

    /// The state in the only presence message since the last look.
    pub(super) fn one_state(&mut self, connection: ConnectionId) -> Option<PresenceState> {
        let mut presences = self.presences(connection);
        assert_eq!(presences.len(), 1, "{presences:?}");
        presences.remove(0).state
    }

    /// Sends a signal and gives the reason why it was not handed on, if any.
    pub(super) fn try_signal(
        &mut self,
        connection: ConnectionId,
        peer: Address,
    ) -> Option<UndeliveredReason> {
        self.take(connection);
        self.say(connection, signal(peer));
        match self.take(connection).as_slice() {
            [] => None,
            [FromBroker::Undelivered(undelivered)] => {
                assert_eq!(undelivered.peer, peer);
                Some(undelivered.reason)
            }
            other => panic!("{other:?}"),
        }
    }

    /// From whom the only signal since the last look came.
    pub(super) fn one_signal(&mut self, connection: ConnectionId) -> Address {
        match self.take(connection).as_slice() {
            [FromBroker::Signal(signal)] => {
                assert_eq!(signal.payload, b"opaque");
                signal.peer
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn issue_token(&mut self, token: [u8; TOKEN_BYTES], name: Option<&str>, lasts: u64) -> String {
        let record = TokenRecord { name: name.map(str::to_owned), expires: self.now.unix + lasts };
        self.handle(Event::TokenIssued { hash: TokenHash::of(&token), token: record });
        base32::encode(&token)
    }

    /// What must hold after every event, whatever came.
    pub(super) fn check_invariants(&self) {
        let core = &self.core;
        let mut in_use = BTreeSet::new();
        for (id, connection) in &core.connections {
            assert!(!self.closed.contains(id), "{id:?} was closed and is kept");
            assert!(core.timers.is_armed(super::super::Timer::Connection(*id)), "{id:?} has no deadline");
            if let Phase::In(device) = &connection.phase {
                assert!(in_use.insert(device.id), "{} has two connections", device.id);
                assert_eq!(core.states.connection_of(device.id), Some(*id));
            }
        }
        assert_eq!(core.states.connected().count(), in_use.len());
        for device in core.states.away() {
            assert!(core.timers.is_armed(super::super::Timer::Device(device)), "{device} is never forgotten");
        }
        let watches: usize = core
            .connections
            .values()
            .filter_map(|connection| match &connection.phase {
                Phase::In(device) => Some(device.watched.len()),
                _ => None,
            })
            .sum();
        assert_eq!(core.watchers.len(), watches, "leaked watches");
        assert_eq!(core.per_address.values().sum::<usize>(), core.connections.len());
        let limits = &core.settings.limits;
        assert!(core.farms.shown_offline() <= limits.offline_farms);
        assert!(core.connections.len() <= limits.connections);
        assert!(
            core.timers.len()
                <= core.connections.len()
                    + core.states.away().count()
                    + core.farms.enrolled()
                    + core.peers()
                    + 7
        );
        if let Some(cluster) = &core.cluster {
            assert!(cluster.devices().eq(in_use.iter().copied()), "claims and devices differ");
        }
        for view in core.farms() {
            let connected = core.is_anywhere(DeviceId::Farm(view.id));
            assert_eq!(view.online, connected, "{} is shown wrongly", view.id);
            if let Some(seen) = core.farms.seen(view.id) {
                assert!(seen.exchanges() <= limits.exchanges_per_farm);
            }
        }
    }
}

pub(super) fn record(farm: &Device) -> FarmRecord {
    FarmRecord {
        key: farm.key.public(),
        name: "North field".to_owned(),
        enrolled: UNIX,
        token: TokenHash([0; 32]),
    }
}
