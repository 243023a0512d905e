//! What farms and phones have in common: the link to the broker, as
//! `farm_tunnel::broker_socket` runs it, and the address watch, as
//! `farm_tunnel::address_watch` does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use farm_broker::core::ConnectionId;
use farm_protocol::broker::{
    Authenticate, Claim, FromBroker, Heartbeat, RefusedReason, Role, ToBroker, presence_proof,
};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, Slot};
use farm_protocol::keys::DeviceKey;
use farm_tunnel::address_watch::Told;
use farm_tunnel::broker_socket::BrokerEvent;
use farm_tunnel::ip_change::{self, Detector};
use farm_tunnel::link::{self, Link, SocketEvent, SocketId};

use super::ctx::{Conn, Ctx, Event, NodeId};
use super::mutation::Mutation;
use super::net::{BROKER, HostId};
use super::pipe::Parcel;

/// The broker's name in every claim.
pub const BROKER_NAME: &str = "broker.example.org";

/// Who a device is.
#[derive(Clone)]
pub struct Identity {
    /// Which device.
    pub node: NodeId,
    /// Its machine.
    pub host: HostId,
    /// Its key.
    pub key: Rc<DeviceKey>,
    /// Its role.
    pub role: Role,
    /// Which program.
    pub slot: Slot,
}

/// A link at work.
pub struct BrokerLink {
    identity: Identity,
    boot: BootId,
    run: u64,
    /// The core.
    pub link: Link,
    epoch: Epoch,
    told_epoch: Option<Epoch>,
    claimed_epoch: Option<Epoch>,
    current: Option<(SocketId, ConnectionId)>,
    welcomed: bool,
    /// Attempts, for the bound on their number.
    pub connects: Vec<Instant>,
}

impl BrokerLink {
    /// Starts connecting.
    pub fn new(identity: Identity, boot: BootId, run: u64, epoch: Epoch, ctx: &mut Ctx) -> Self {
        let link = Link::new(ctx.rng.draw(), ctx.now);
        Self {
            identity,
            boot,
            run,
            link,
            epoch,
            told_epoch: None,
            claimed_epoch: None,
            current: None,
            welcomed: false,
            connects: Vec::new(),
        }
    }

    /// Tells the link what happened around it.
    pub fn event(&mut self, event: link::Event, ctx: &mut Ctx) -> Vec<BrokerEvent> {
        if matches!(event, link::Event::NetworkChanged(_)) {
            self.drop_stranded(ctx);
        }
        self.link.handle(event, ctx.now);
        self.act(ctx)
    }

    /// A connection whose own address is gone can carry nothing any more.
    fn drop_stranded(&mut self, ctx: &mut Ctx) {
        let Some((socket, connection)) = self.current.filter(|_| self.link.is_online()) else { return };
        let stranded = ctx.conns.get(&connection).is_some_and(|conn| ctx.net.is_stranded(&conn.device));
        if stranded {
            let closed = SocketEvent::Closed("its local address is gone".to_owned());
            self.link.handle(link::Event::Socket(socket, closed), ctx.now);
        }
    }

    /// The device's newest epoch.
    pub fn set_epoch(&mut self, epoch: Epoch, ctx: &mut Ctx) -> Vec<BrokerEvent> {
        if epoch < self.epoch {
            ctx.violate("epochs", format!("{:?} went from {} to {epoch}", self.identity.node, self.epoch));
        }
        self.epoch = epoch;
        self.event(link::Event::AddressChanged, ctx)
    }

    /// Sends a message if the link is online.
    pub fn send(&mut self, message: ToBroker, ctx: &mut Ctx) {
        if self.link.is_online() {
            self.put(message, ctx);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, ctx: &mut Ctx) -> Vec<BrokerEvent> {
        if ctx.is_mutated(Mutation::LinkTimer) {
            return Vec::new();
        }
        self.link.handle_timeout(ctx.now);
        if self.link.poll_timeout().is_some_and(|(at, _)| at <= ctx.now) {
            ctx.violate("deadlines", format!("the link of {:?} is still due", self.identity.node));
        }
        self.act(ctx)
    }

    /// Starts anew in another slot.
    pub fn in_slot(&self, slot: Slot, epoch: Epoch, ctx: &mut Ctx) -> Self {
        let identity = Identity { slot, ..self.identity.clone() };
        Self::new(identity, self.boot, self.run, epoch, ctx)
    }

    /// Whether the present connection is this one.
    pub fn is_current(&self, connection: ConnectionId) -> bool {
        self.current.is_some_and(|(_, current)| current == connection)
    }

    /// The connection in use.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.current.map(|(_, connection)| connection)
    }

    /// The dialer reports.
    pub fn dialed(
        &mut self,
        connection: ConnectionId,
        failed: Option<&str>,
        ctx: &mut Ctx,
    ) -> Vec<BrokerEvent> {
        let event = match failed {
            None => SocketEvent::Opened,
            Some(why) => SocketEvent::Failed(why.to_owned()),
        };
        self.socket(connection, event, ctx)
    }

    /// The socket was closed from outside.
    pub fn closed(&mut self, connection: ConnectionId, ctx: &mut Ctx) -> Vec<BrokerEvent> {
        self.socket(connection, SocketEvent::Closed("closed".to_owned()), ctx)
    }

    fn socket(&mut self, connection: ConnectionId, event: SocketEvent, ctx: &mut Ctx) -> Vec<BrokerEvent> {
        let Some((socket, _)) = self.current.filter(|(_, current)| *current == connection) else {
            return Vec::new();
        };
        self.event(link::Event::Socket(socket, event), ctx)
    }

    /// The broker says something.
    pub fn message(
        &mut self,
        connection: ConnectionId,
        message: FromBroker,
        ctx: &mut Ctx,
    ) -> Vec<BrokerEvent> {
        if !self.is_current(connection) {
            return Vec::new();
        }
        let mut events = Vec::new();
        let mut online = None;
        let event = match message {
            FromBroker::Challenge(challenge) if !self.welcomed => {
                let claim = Claim {
                    role: self.identity.role,
                    slot: self.identity.slot,
                    boot: self.boot,
                    epoch: self.claimed_epoch.unwrap_or(self.epoch),
                    broker: BROKER_NAME.to_owned(),
                };
                let answer = Authenticate::sign(&self.identity.key, &challenge.nonce, claim);
                self.put(ToBroker::Authenticate(Box::new(answer)), ctx);
                return events;
            }
            FromBroker::Welcome(welcome) if !self.welcomed => {
                self.welcomed = true;
                self.told_epoch = self.claimed_epoch;
                let heartbeat_interval = Duration::from_secs(u64::from(welcome.heartbeat_seconds));
                online = Some(welcome);
                SocketEvent::Welcomed { heartbeat_interval }
            }
            FromBroker::Refused(refused) => {
                if let (RefusedReason::StaleEpoch, Some(newest)) = (refused.reason, refused.newest) {
                    events.push(BrokerEvent::StaleEpoch(newest));
                }
                if refused.reason == RefusedReason::Superseded {
                    events.push(BrokerEvent::Superseded);
                }
                let explanation = refused.reason.explanation().to_owned();
                SocketEvent::Refused { permanent: !refused.reason.is_temporary(), explanation }
            }
            FromBroker::HeartbeatAnswer(answer) if self.welcomed => {
                SocketEvent::HeartbeatAnswered { sequence: answer.sequence, address_changed: false }
            }
            FromBroker::RetryAfter(after) => {
                SocketEvent::RetryAfter(Duration::from_millis(u64::from(after.milliseconds)))
            }
            message if self.welcomed => {
                events.push(BrokerEvent::Message(message));
                SocketEvent::Received
            }
            _ => return self.closed(connection, ctx),
        };
        events.extend(self.socket(connection, event, ctx));
        events.extend(online.map(BrokerEvent::Online));
        events
    }

    fn act(&mut self, ctx: &mut Ctx) -> Vec<BrokerEvent> {
        let mut events = Vec::new();
        while let Some(action) = self.link.poll_action() {
            match action {
                link::Action::Connect(socket) => self.connect(socket, ctx),
                link::Action::Close { .. } => {
                    if let Some((_, connection)) = self.current.take() {
                        ctx.hang_up(connection);
                    }
                }
                link::Action::SendHeartbeat { sequence, .. } => self.heartbeat(sequence, ctx),
                link::Action::Goodbye(_) => self.put(ToBroker::Goodbye, ctx),
                link::Action::Changed(state) => events.push(BrokerEvent::State(state)),
            }
        }
        events
    }

    fn connect(&mut self, socket: SocketId, ctx: &mut Ctx) {
        self.welcomed = false;
        self.claimed_epoch = Some(self.epoch);
        if let Some((_, former)) = self.current.take() {
            ctx.hang_up(former);
        }
        let connection = ConnectionId(ctx.number());
        let (device, broker) = (ctx.net.endpoint(self.identity.host), ctx.net.endpoint(BROKER));
        let node = self.identity.node;
        ctx.conns.insert(connection, Conn { node, run: self.run, device, broker, pipes: None });
        ctx.schedule(ctx.now, Event::Dial(connection, 0));
        self.current = Some((socket, connection));
        self.connects.push(ctx.now);
        let minute = ctx.now.checked_sub(Duration::from_secs(60));
        self.connects.retain(|at| minute.is_none_or(|minute| *at > minute));
        if self.connects.len() > link::MAX_CONNECTS_PER_MINUTE as usize {
            ctx.violate("bounded", format!("{node:?}: {} attempts in a minute", self.connects.len()));
        }
    }

    fn heartbeat(&mut self, sequence: u32, ctx: &mut Ctx) {
        let is_new = self.told_epoch != Some(self.epoch);
        let presence = (self.identity.role == Role::Farm && is_new).then(|| {
            let key = &self.identity.key;
            presence_proof(key, FarmId::of(&key.public()), self.boot, self.epoch)
        });
        self.told_epoch = Some(self.epoch);
        self.put(ToBroker::Heartbeat(Heartbeat { sequence, epoch: self.epoch, presence }), ctx);
    }

    fn put(&mut self, message: ToBroker, ctx: &mut Ctx) {
        if let Some((_, connection)) = self.current
            && let Some((up, _)) = ctx.conns.get(&connection).and_then(|conn| conn.pipes)
        {
            ctx.push(up, Parcel::ToBroker(message));
        }
    }
}

/// An address watch at work.
pub struct Watch {
    node: NodeId,
    host: HostId,
    run: u64,
    /// The core.
    pub detector: Detector,
    target: bool,
    transaction: u64,
}

impl Watch {
    /// Starts with the addresses that the host has.
    pub fn new(identity: &Identity, run: u64, ctx: &mut Ctx) -> Self {
        let mut detector = Detector::starting(ctx.now);
        let host = &ctx.net.hosts[identity.host];
        if host.link {
            detector.handle(ip_change::Event::AddressUp(local_address(identity.host, host.address)), ctx.now);
        }
        Self { node: identity.node, host: identity.host, run, detector, target: false, transaction: 0 }
    }

    /// The broker answers probes.
    pub fn probe_target(&mut self, ctx: &mut Ctx) -> Vec<Told> {
        if std::mem::replace(&mut self.target, true) {
            return Vec::new();
        }
        self.event(ip_change::Event::ProbeTarget(true), ctx)
    }

    /// Something happened.
    pub fn event(&mut self, event: ip_change::Event, ctx: &mut Ctx) -> Vec<Told> {
        self.detector.handle(event, ctx.now);
        self.act(ctx)
    }

    /// A probe was answered.
    pub fn answered(&mut self, transaction: u64, address: SocketAddr, ctx: &mut Ctx) -> Vec<Told> {
        if transaction != self.transaction {
            return Vec::new();
        }
        let mut told = vec![Told::ProbeAnswered(address)];
        self.detector.handle(ip_change::Event::ProbeAnswered(address), ctx.now);
        told.extend(self.act(ctx));
        told
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, ctx: &mut Ctx) -> Vec<Told> {
        self.detector.handle_timeout(ctx.now);
        if self.detector.poll_timeout().is_some_and(|(at, _)| at <= ctx.now) {
            ctx.violate("deadlines", format!("the address watch of {:?} is still due", self.node));
        }
        self.act(ctx)
    }

    fn act(&mut self, ctx: &mut Ctx) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(action) = self.detector.poll_action() {
            match action {
                ip_change::Action::Probe => {
                    self.transaction = ctx.number();
                    ctx.probe(self.node, self.host, self.run, self.transaction);
                }
                ip_change::Action::Verdict(verdict) => told.push(Told::Verdict(verdict)),
            }
        }
        told
    }
}

/// A host's local address by its count.
pub fn local_address(host: HostId, count: u32) -> IpAddr {
    Ipv4Addr::new(192, 168, host as u8, (count % 250) as u8 + 2).into()
}

impl Ctx {
    /// The device hangs up: what is queued leaves first.
    pub fn hang_up(&mut self, connection: ConnectionId) {
        if let Some((up, _)) = self.conns.get(&connection).and_then(|conn| conn.pipes) {
            self.push(up, Parcel::Fin);
        } else {
            self.conns.remove(&connection);
        }
    }

    /// A STUN probe leaves.
    fn probe(&mut self, node: NodeId, host: HostId, run: u64, transaction: u64) {
        let (from, to) = (self.net.endpoint(host), self.net.endpoint(BROKER));
        if let super::net::Fate::Arrives(delay) = self.net.fate(&from, &to, false, &mut self.rng) {
            self.schedule(self.now + delay, Event::Probe(node, run, transaction));
        }
    }

    /// It reaches the broker, which answers at once.
    pub fn probe_arrives(&mut self, node: NodeId, host: HostId, run: u64, transaction: u64) {
        let (from, to) = (self.net.endpoint(BROKER), self.net.endpoint(host));
        if let super::net::Fate::Arrives(delay) = self.net.fate(&from, &to, false, &mut self.rng) {
            let address = self.net.reflexive(host);
            self.schedule(self.now + delay, Event::ProbeAnswer(node, run, transaction, address));
        }
    }
}
