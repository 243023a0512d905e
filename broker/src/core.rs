//! The broker's decisions: who is here, who may know, who may talk to whom.
//!
//! Pure: no I/O, no clock, no randomness of its own. A shell feeds
//! [`Core::handle`], does what [`Core::poll_action`] asks and wakes it when
//! [`Core::poll_timeout`] says.

pub mod alerts;
mod authentication;
pub mod bucket;
mod cleanup;
pub mod cluster;
pub mod connection_state;
pub mod counters;
pub mod enrollment;
pub mod event;
pub mod history;
mod ip_updates;
pub mod limits;
pub mod network;
mod presence;
pub mod relay;
mod routing;
mod timers;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use farm_protocol::broker::{FromBroker, Refused, RefusedReason, RetryAfter, ToBroker};
use farm_protocol::id::FarmId;
use farm_protocol::keys::Nonce;

use crate::backup::Backup;
use alerts::Absences;
use authentication::Entrant;
use bucket::{Bucket, Buckets};
use cluster::{Cluster, Membership};
use connection_state::{ConnectionStates, DeviceId, FORGET_DEVICE_AFTER};
use counters::Counters;
use enrollment::{Enrollment, FarmRecord, TokenHash, TokenRecord};
pub use event::{Action, Claimed, ConnectionId, Event, Now};
use history::History;
pub use limits::Limits;
use network::Network;
pub use presence::FarmView;
use presence::Farms;
use relay::{Account, Issuer};
use timers::{Timer, Timers};
use watch::Watchers;

/// How long devices stay away from a broker that goes: long enough for a
/// restart, and spread so that they don't all come back at once.
const RETURN_AFTER_MILLIS: std::ops::Range<u64> = 500..3000;

/// What the operator decides.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The names (host, or host and port) by which devices may call this
    /// broker. Empty: any name.
    pub names: BTreeSet<String>,
    /// The UDP port of the STUN responder, if there is one.
    pub stun_port: Option<u16>,
    /// Gives devices credentials for the relay, if there is one.
    pub relay: Option<Issuer>,
    /// With other brokers: who this one is among them.
    pub cluster: Option<Membership>,
    /// What devices may do.
    pub limits: Limits,
    /// How long a farm may be away before the operator is told. `None`: the
    /// operator is told of nothing.
    pub alert_after: Option<Duration>,
}

/// The broker without its I/O.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    started: Instant,
    connections: BTreeMap<ConnectionId, Connection>,
    per_address: BTreeMap<Network, usize>,
    states: ConnectionStates,
    farms: Farms,
    enrollment: Enrollment,
    watchers: Watchers,
    history: History,
    absences: Absences,
    timers: Timers,
    handshakes: Bucket,
    handshakes_per_address: Buckets<Network>,
    token_guesses: Buckets<Network>,
    log_lines: Bucket,
    lines_left_out: u64,
    cluster: Option<Cluster>,
    counters: Counters,
    actions: VecDeque<Action>,
    shutting_down: bool,
}

#[derive(Debug)]
struct Connection {
    observed: SocketAddr,
    network: Network,
    phase: Phase,
    /// When the last message came.
    heard: Instant,
    messages: Bucket,
}

/// How far a connection has come.
#[derive(Debug)]
enum Phase {
    /// It was sent the challenge.
    Challenged(Nonce),
    /// Its farm is being enrolled.
    Enrolling(Box<Entrant>),
    /// It is a device's.
    In(Box<Device>),
}

#[derive(Debug)]
struct Device {
    id: DeviceId,
    signals: Bucket,
    pairing: Bucket,
    strikes: Bucket,
    watched: Vec<FarmId>,
    /// When it is due new credentials for the relay. `None`: it has none.
    relay_due: Option<Instant>,
}

impl Device {
    fn new(id: DeviceId) -> Self {
        Self {
            id,
            signals: Bucket::default(),
            pairing: Bucket::default(),
            strikes: Bucket::default(),
            watched: Vec::new(),
            relay_due: None,
        }
    }
}

impl Phase {
    fn device(connection: &mut Connection) -> Option<&mut Device> {
        match &mut connection.phase {
            Self::In(device) => Some(device),
            _ => None,
        }
    }
}

fn refused(reason: RefusedReason) -> FromBroker {
    FromBroker::Refused(Refused { reason, newest: None })
}

fn retry_after(duration: Duration) -> FromBroker {
    let milliseconds = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    FromBroker::RetryAfter(RetryAfter { milliseconds })
}

impl Core {
    /// A broker with the farms and open tokens of its store.
    pub fn new(
        settings: Settings,
        farms: impl IntoIterator<Item = (FarmId, FarmRecord)>,
        tokens: impl IntoIterator<Item = (TokenHash, TokenRecord)>,
        now: Now,
    ) -> Self {
        let limits = &settings.limits;
        let remembered = limits.remembered_addresses;
        let absences = Absences::new(settings.alert_after);
        let mut core = Self {
            handshakes_per_address: Buckets::new(limits.handshakes_per_address, remembered),
            token_guesses: Buckets::new(limits.token_guesses, remembered),
            settings,
            started: now.instant,
            connections: BTreeMap::new(),
            per_address: BTreeMap::new(),
            states: ConnectionStates::default(),
            farms: Farms::default(),
            enrollment: Enrollment::default(),
            watchers: Watchers::default(),
            history: History::default(),
            absences,
            timers: Timers::default(),
            handshakes: Bucket::default(),
            log_lines: Bucket::default(),
            lines_left_out: 0,
            cluster: None,
            counters: Counters::default(),
            actions: VecDeque::new(),
            shutting_down: false,
        };
        for (farm, record) in farms {
            core.farms.add(farm, record);
        }
        core.enrollment.tokens.extend(tokens);
        core.forget_expired_tokens(now);
        if let Some(membership) = core.settings.cluster.clone() {
            core.cluster = Some(Cluster::new(membership));
            core.timers.arm(Timer::Beat, now.instant);
        }
        core
    }

    /// Takes in what happened. `now` must not go back.
    pub fn handle(&mut self, event: Event, now: Now) {
        self.run_due(now);
        match event {
            Event::Opened { connection, observed, nonce, claim } => {
                self.opened(connection, observed, (nonce, claim), now);
            }
            Event::Message { connection, message } => self.message(connection, message, now),
            Event::Malformed { connection } => self.protocol_error(connection, now),
            Event::Closed { connection, slow } => {
                if self.forget(connection, now) && slow {
                    self.counters.slow_readers += 1;
                }
            }
            Event::Enrolled { farm } => self.enrolled(farm, now),
            Event::EnrollmentFailed { farm } => self.enrollment_failed(farm, now),
            Event::EnrollmentRefused { farm } => self.enrollment_refused(farm, now),
            Event::Recorded(record) => self.recorded(*record, now),
            Event::RecordsWhole { farms, revoked } => self.records_whole(&farms, &revoked),
            Event::Engine { there } => self.engine(there, now),
            Event::PeerUnreadable => self.counters.peer_unreadable += 1,
            Event::Peer(message) => self.peer_said(*message, now),
            Event::TokenIssued { hash, token } => self.token_issued(hash, token, now),
            Event::Revoked { farm } => self.revoked(farm, now),
            Event::Reconfigured { connections, connections_per_address, alert_after } => {
                // Who is in stays in.
                let limits = &mut self.settings.limits;
                (limits.connections, limits.connections_per_address) = (connections, connections_per_address);
                self.alert_after(alert_after, now);
            }
            Event::Timeout => {}
            Event::ShutDown { seed } => self.shut_down(seed, now),
        }
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Timeout`] is due, and for what.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.next()
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// All enrolled farms.
    pub fn farms(&self) -> impl Iterator<Item = FarmView> {
        self.farms.views()
    }

    /// Who pays for what the relay carries for this farm.
    pub fn relay_account(&self, farm: FarmId) -> Option<Account> {
        self.settings.relay.as_ref().map(|issuer| issuer.account(farm))
    }

    /// What a backup keeps of it, at this moment.
    pub fn backup(&self, now: Now) -> Backup {
        let tokens = self.enrollment.tokens.iter().map(|(hash, token)| (*hash, token));
        let revoked = self.enrollment.revoked.iter().map(|(farm, at)| (*farm, *at));
        Backup::of(now.unix, self.farms.records(), tokens, revoked)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    fn opened(
        &mut self,
        id: ConnectionId,
        observed: SocketAddr,
        (nonce, claim): (Nonce, Option<Box<Claimed>>),
        now: Now,
    ) {
        self.counters.opened += 1;
        let observed = SocketAddr::new(observed.ip().to_canonical(), observed.port());
        let network = Network::of_client(observed.ip());
        if self.shutting_down {
            return self.turn_away(id, retry_after(Duration::from_millis(RETURN_AFTER_MILLIS.end)));
        }
        let limits = &self.settings.limits;
        let here = self.per_address.get(&network).copied().unwrap_or(0);
        if self.connections.len() >= limits.connections {
            self.counters.limit_connections += 1;
            return self.turn_away(id, refused(RefusedReason::Limit));
        }
        if here >= limits.connections_per_address {
            self.counters.limit_connections_per_address += 1;
            return self.turn_away(id, refused(RefusedReason::Limit));
        }
        // The one address first: it must not use up what is for all.
        if !self.handshakes_per_address.take(network, now.instant)
            || !self.handshakes.take(limits.handshakes, 1, now.instant)
        {
            self.counters.limit_handshakes += 1;
            return self.turn_away(id, refused(RefusedReason::Limit));
        }
        self.per_address.insert(network, here + 1);
        let connection = Connection {
            observed,
            network,
            phase: Phase::Challenged(nonce),
            heard: now.instant,
            messages: Bucket::default(),
        };
        self.connections.insert(id, connection);
        if let Some(claim) = claim
            && self.enter_by_claim(id, *claim, now)
        {
            return;
        }
        self.timers.arm(Timer::Connection(id), now.instant + limits::AUTHENTICATE_WITHIN);
        let challenge = farm_protocol::broker::Challenge { nonce };
        self.send(id, FromBroker::Challenge(challenge));
    }

    fn turn_away(&mut self, connection: ConnectionId, message: FromBroker) {
        self.send(connection, message);
        self.actions.push_back(Action::Close { connection });
    }

    fn message(&mut self, id: ConnectionId, message: ToBroker, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.heard = now.instant;
        match (&connection.phase, message) {
            (_, ToBroker::Goodbye) => self.close(id, None, now),
            (Phase::Challenged(nonce), ToBroker::Authenticate(claim)) => {
                let nonce = *nonce;
                self.authenticate(id, nonce, *claim, now);
            }
            (Phase::In(device), message) => {
                let device = device.id;
                let rate = match device {
                    DeviceId::Farm(_) => self.settings.limits.farm_messages,
                    DeviceId::Phone(_) => self.settings.limits.phone_messages,
                };
                if !connection.messages.take(rate, cost(&message), now.instant) {
                    self.counters.limit_messages += 1;
                    return self.refuse(id, RefusedReason::Limit, now);
                }
                self.device_message(id, device, message, now);
            }
            _ => self.protocol_error(id, now),
        }
    }

    fn device_message(&mut self, connection: ConnectionId, device: DeviceId, message: ToBroker, now: Now) {
        match (device, message) {
            (_, ToBroker::Heartbeat(heartbeat)) => self.heartbeat(connection, device, heartbeat, now),
            (_, ToBroker::Signal(signal)) => self.signal(connection, device, signal, now),
            (DeviceId::Farm(farm), ToBroker::Access(access)) => self.access(connection, farm, access, now),
            (DeviceId::Phone(session), ToBroker::Watch(watch)) => {
                self.watch(connection, session.phone, watch, now);
            }
            _ => self.protocol_error(connection, now),
        }
    }

    fn shut_down(&mut self, seed: u64, now: Now) {
        self.shutting_down = true;
        self.write_history(now);
        self.mark_run(now);
        for timer in [Timer::History, Timer::Run, Timer::Returned] {
            self.timers.disarm(timer);
        }
        let mut state = seed;
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            let spread = RETURN_AFTER_MILLIS.end - RETURN_AFTER_MILLIS.start;
            let millis = RETURN_AFTER_MILLIS.start + split_mix(&mut state) % spread;
            self.close(connection, Some(retry_after(Duration::from_millis(millis))), now);
        }
    }

    fn send(&mut self, connection: ConnectionId, message: FromBroker) {
        let message = Box::new(message);
        self.actions.push_back(Action::Send { connection, message });
    }

    fn protocol_error(&mut self, connection: ConnectionId, now: Now) {
        self.counters.refused_protocol += 1;
        self.refuse(connection, RefusedReason::ProtocolError, now);
    }

    fn refuse(&mut self, connection: ConnectionId, reason: RefusedReason, now: Now) {
        self.close(connection, Some(refused(reason)), now);
    }

    /// Closes a connection that is open, with a last word.
    fn close(&mut self, connection: ConnectionId, last: Option<FromBroker>, now: Now) {
        if !self.connections.contains_key(&connection) {
            return;
        }
        if let Some(last) = last {
            self.send(connection, last);
        }
        self.actions.push_back(Action::Close { connection });
        self.forget(connection, now);
    }

    /// Lets go of all that belongs to a connection. `false` if it is unknown.
    fn forget(&mut self, id: ConnectionId, now: Now) -> bool {
        self.stop_watching(id);
        let Some(connection) = self.connections.remove(&id) else {
            return false;
        };
        self.timers.disarm(Timer::Connection(id));
        if let Some(here) = self.per_address.get_mut(&connection.network) {
            *here -= 1;
            if *here == 0 {
                self.per_address.remove(&connection.network);
            }
        }
        match connection.phase {
            Phase::Challenged(_) => {}
            Phase::Enrolling(_) => self.stop_waiting(id),
            Phase::In(device) => self.left(device.id, id, now),
        }
        true
    }

    fn left(&mut self, device: DeviceId, connection: ConnectionId, now: Now) {
        if !self.states.leave(device, connection, now.instant) {
            return;
        }
        self.timers.arm(Timer::Device(device), now.instant + FORGET_DEVICE_AFTER);
        if self.give_up_claim(device) {
            return;
        }
        if let DeviceId::Farm(farm) = device
            && !self.shutting_down
        {
            self.farm_went(farm, now);
        }
    }
}

/// What a message takes from its connection's bucket.
fn cost(message: &ToBroker) -> u32 {
    let more = match message {
        ToBroker::Access(access) => {
            let items = access.phones.len() + access.invitations.len() + access.former.len();
            items / limits::LIST_ITEMS_PER_TOKEN
        }
        ToBroker::Watch(watch) => watch.farms.len() / limits::LIST_ITEMS_PER_TOKEN,
        ToBroker::Signal(signal) => signal.payload.len() / limits::SIGNAL_BYTES_PER_TOKEN,
        _ => 0,
    };
    // Both are bounded by the size of a message.
    u32::try_from(1 + more).unwrap_or(u32::MAX)
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough to spread returns with.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
