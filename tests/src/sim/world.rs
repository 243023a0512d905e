//! The world of one seed: makes it, and lets time go by.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use farm_protocol::broker::Role;
use farm_protocol::id::{FarmId, PhoneId, Slot};
use farm_protocol::keys::{DeviceKey, PublicKey};
use farm_tunnel::ip_change;
use farm_tunnel::link::State as LinkState;

use super::broker::Broker;
use super::carrier::CarrierEnd;
use super::ctx::{Ctx, Event, NodeId};
use super::device::Identity;
use super::fault::Scheduled;
use super::net::HostId;
use super::pipe::{Parcel, Sink, Tick};
use super::traffic::Manner;
use super::{farm, phone};

/// Wakes of one device within a second of virtual time: pings in doubt (25 a
/// second and carrier), acknowledgements (50), programs (50) of a handful of
/// sessions. More is a loop.
const MAX_WAKES: u32 = 2_000;

/// Every so many events the device that had one is looked at.
const CHECK_EVERY: u64 = 4;

/// A farm's machine.
pub struct FarmNode {
    /// Who it is.
    pub identity: Identity,
    /// Its card.
    pub card: farm::Card,
    /// The agent, while it runs.
    pub process: Option<farm::Process>,
    /// The phones of the world by their ids.
    pub who: BTreeMap<PhoneId, usize>,
    /// Sessions without a carrier, and since when; whether one is on its way.
    pub waiting: BTreeMap<farm_protocol::id::SessionId, (bool, Instant)>,
    /// When it is woken next.
    pub wake: Option<Instant>,
    wakes: (u64, u32),
}

/// A phone.
pub struct PhoneNode {
    /// Who it is.
    pub identity: Identity,
    /// Starts counted.
    pub starts: u64,
    /// Its farm's place, id and key.
    pub farm: (usize, FarmId, PublicKey),
    /// The program, while it runs.
    pub process: Option<phone::Process>,
    /// What waits while the phone sleeps.
    pub asleep: Option<Vec<Event>>,
    /// It was in the background once: its monitor may have a pause to make up for.
    pub slept: bool,
    /// How many look, when it is not looked away from.
    pub watchers: usize,
    /// Since when the path of its live carrier is gone.
    pub dead_since: Option<(farm_protocol::epoch::Epoch, Instant)>,
    /// When it is woken next.
    pub wake: Option<Instant>,
    wakes: (u64, u32),
}

/// See the module.
pub struct World {
    /// What all share.
    pub ctx: Ctx,
    /// The broker.
    pub broker: Broker,
    /// The farms.
    pub farms: Vec<FarmNode>,
    /// The phones.
    pub phones: Vec<PhoneNode>,
    /// What goes wrong.
    pub faults: Vec<Scheduled>,
    /// What programs on phones do: who, when, how both ends behave.
    pub traffic: Vec<(usize, Duration, [Manner; 2])>,
    /// A phone that loses its power and never comes back.
    pub retired: Option<HostId>,
    /// The only fault, and what it may cost, where that is what is run.
    pub single: Option<super::single::Single>,
    /// When all faults end.
    pub heal_at: Duration,
    /// When the judge looks.
    pub judge_at: Vec<Duration>,
    broker_wake: Option<Instant>,
}

impl World {
    /// A world without anything scheduled.
    pub fn new(mut ctx: Ctx, keys: &mut dyn FnMut() -> DeviceKey, farms: usize, phones_of: &[usize]) -> Self {
        let mut nodes = Vec::new();
        for place in 0..farms {
            let identity = identity(NodeId::Farm(place), 1 + place, Role::Farm, keys());
            let (card, who) = (farm::Card { starts: 0, phones: BTreeMap::new() }, BTreeMap::new());
            let waiting = BTreeMap::new();
            nodes.push(FarmNode { identity, card, process: None, who, waiting, wake: None, wakes: (0, 0) });
        }
        let mut phones = Vec::new();
        for (place, farm) in phones_of.iter().enumerate() {
            let identity = identity(NodeId::Phone(place), 1 + farms + place, Role::Phone, keys());
            let key = identity.key.public();
            nodes[*farm].card.phones.insert(PhoneId::of(&key), key);
            nodes[*farm].who.insert(PhoneId::of(&key), place);
            let farm_key = nodes[*farm].identity.key.public();
            phones.push(PhoneNode {
                identity,
                starts: 0,
                farm: (*farm, FarmId::of(&farm_key), farm_key),
                process: None,
                asleep: None,
                slept: false,
                watchers: 1,
                dead_since: None,
                wake: None,
                wakes: (0, 0),
            });
        }
        let enrolled = nodes.iter().map(|node| node.identity.key.public());
        let broker = Broker::new(enrolled.map(|key| (FarmId::of(&key), key)).collect(), &ctx);
        ctx.note(|| format!("{farms} farms, phones of farms {phones_of:?}"));
        Self {
            ctx,
            broker,
            farms: nodes,
            phones,
            faults: Vec::new(),
            traffic: Vec::new(),
            retired: None,
            single: None,
            heal_at: Duration::ZERO,
            judge_at: Vec::new(),
            broker_wake: None,
        }
    }

    /// Runs until nothing is left to judge, or an invariant does not hold.
    pub fn run(&mut self) {
        for place in 0..self.farms.len() {
            self.start_farm(place);
        }
        for place in 0..self.phones.len() {
            self.start_phone(place);
        }
        for (at, fault) in self.faults.iter().enumerate() {
            self.ctx.schedule(Ctx::at(fault.at), Event::Fault(at));
            self.ctx.schedule(Ctx::at(fault.at + fault.lasts), Event::Mend(at));
        }
        for (at, (_, when, _)) in self.traffic.iter().enumerate() {
            self.ctx.schedule(Ctx::at(*when), Event::Traffic(at));
        }
        self.ctx.schedule(Ctx::at(self.heal_at), Event::Heal);
        for at in &self.judge_at {
            self.ctx.schedule(Ctx::at(*at), Event::Judge);
        }
        let end = self.judge_at.iter().max().copied().unwrap_or(self.heal_at);
        while self.ctx.violation.is_none()
            && let Some(event) = self.ctx.next_event()
        {
            self.handle(event);
            if self.ctx.elapsed() >= end {
                break;
            }
        }
    }

    /// Starts an agent, and counts the start on its card first.
    pub fn start_farm(&mut self, place: usize) {
        let node = &mut self.farms[place];
        node.card.starts += 1;
        let process = farm::Process::new(node.identity.clone(), &node.card, node.who.clone(), &mut self.ctx);
        node.process = Some(process);
        self.ctx.note(|| format!("farm {place} starts"));
        self.rearm(NodeId::Farm(place));
    }

    /// Starts a phone's program.
    pub fn start_phone(&mut self, place: usize) {
        let node = &mut self.phones[place];
        node.starts += 1;
        let (_, farm, key) = node.farm;
        let (identity, starts, watchers) = (node.identity.clone(), node.starts, node.watchers);
        node.process = Some(phone::Process::new(identity, starts, (farm, key), watchers, &mut self.ctx));
        self.ctx.note(|| format!("phone {place} starts"));
        self.rearm(NodeId::Phone(place));
    }

    /// A process dies without a word of its own.
    pub fn kill(&mut self, node: NodeId, power: bool) {
        let link = match node {
            NodeId::Farm(place) => {
                let Some(mut process) = self.farms[place].process.take() else { return };
                for runtime in process.sessions.values_mut() {
                    runtime.end.died(&mut self.ctx);
                }
                self.ctx.kill_peers(node, process.run);
                for plan in self.ctx.plans.iter_mut().filter(|plan| plan.farm == place) {
                    plan.bereaved = true;
                }
                process.link.connection()
            }
            NodeId::Phone(place) => {
                let Some(mut process) = self.phones[place].process.take() else { return };
                process.end.died(&mut self.ctx);
                self.ctx.kill_peers(node, process.run);
                for plan in self.ctx.plans.iter_mut().filter(|plan| plan.phone == place) {
                    plan.bereaved = true;
                }
                process.link.connection()
            }
        };
        if let Some(connection) = link.filter(|_| !power) {
            // The kernel closes the socket.
            self.ctx.hang_up(connection);
        }
    }

    /// The device of a host; `None` for the broker's.
    pub fn node_of(&self, host: HostId) -> Option<NodeId> {
        let place = host.checked_sub(1)?;
        let farms = self.farms.len();
        Some(if place < farms { NodeId::Farm(place) } else { NodeId::Phone(place - farms) })
    }

    /// The host of a device.
    pub fn host_of(&self, node: NodeId) -> HostId {
        match node {
            NodeId::Farm(place) => self.farms[place].identity.host,
            NodeId::Phone(place) => self.phones[place].identity.host,
        }
    }

    fn handle(&mut self, event: Event) {
        let Some(node) = self.addressee(&event) else { return self.handle_other(event) };
        if let NodeId::Phone(place) = node
            && let Some(waiting) = &mut self.phones[place].asleep
        {
            if !matches!(event, Event::Wake(_)) && waiting.len() < 1000 {
                waiting.push(event);
            }
            return;
        }
        self.deliver(node, event);
        self.rearm(node);
        if self.ctx.stats.events.is_multiple_of(CHECK_EVERY) {
            self.check(node);
        }
    }

    /// The device that an event is for.
    fn addressee(&self, event: &Event) -> Option<NodeId> {
        let peer = |peer| self.ctx.peers.get(peer).map(|p| p.owner);
        let connection = |connection| self.ctx.conns.get(connection).map(|c| c.node);
        match event {
            Event::Wake(node)
            | Event::Built(node, ..)
            | Event::ProbeAnswer(node, ..)
            | Event::Netlink(node, ..) => Some(*node),
            Event::Ping(id, _)
            | Event::PeerOpen(id)
            | Event::Reflexive(id)
            | Event::Consent(id)
            | Event::PeerGone(id) => peer(id),
            Event::Dialed(id) | Event::DialFailed(id, _) => connection(id),
            Event::FromBroker(id, _) => connection(id),
            Event::Arrive(id) => match self.ctx.pipes.get(id)?.sink {
                Sink::Peer(id) => peer(&id),
                Sink::Device(id) => connection(&id),
                Sink::Broker(_) => None,
            },
            Event::Traffic(at) => Some(NodeId::Phone(self.traffic[*at].0)),
            _ => None,
        }
    }

    fn deliver(&mut self, node: NodeId, event: Event) {
        match event {
            Event::Wake(_) => self.wake(node),
            Event::Built(_, run, id) => match node {
                NodeId::Farm(place) => {
                    if let Some(p) = self.farms[place].process.as_mut().filter(|p| p.run == run) {
                        p.built(id, &mut self.ctx);
                    }
                }
                NodeId::Phone(place) => {
                    if let Some(p) = self.phones[place].process.as_mut().filter(|p| p.run == run) {
                        p.built(id, &mut self.ctx);
                    }
                }
            },
            Event::ProbeAnswer(_, run, transaction, address) => match node {
                NodeId::Farm(place) => {
                    if let Some(p) = self.farms[place].process.as_mut().filter(|p| p.run == run) {
                        let told = p.watch.answered(transaction, address, &mut self.ctx);
                        p.told(told, &mut self.ctx);
                    }
                }
                NodeId::Phone(place) => {
                    if let Some(p) = self.phones[place].process.as_mut().filter(|p| p.run == run) {
                        let told = p.watch.answered(transaction, address, &mut self.ctx);
                        p.told(told, &mut self.ctx);
                    }
                }
            },
            Event::Netlink(_, _, address, up) => {
                let event = if up {
                    ip_change::Event::AddressUp(address)
                } else {
                    ip_change::Event::AddressDown(address)
                };
                match node {
                    NodeId::Farm(place) => {
                        if let Some(p) = &mut self.farms[place].process {
                            let told = p.watch.event(event, &mut self.ctx);
                            p.told(told, &mut self.ctx);
                        }
                    }
                    NodeId::Phone(place) => {
                        if let Some(p) = &mut self.phones[place].process {
                            let told = p.watch.event(event, &mut self.ctx);
                            p.told(told, &mut self.ctx);
                        }
                    }
                }
            }
            Event::Ping(peer, ping) => self.carry(peer, |c, end, ctx| c.ping(ping, end, ctx)),
            Event::PeerOpen(peer) => {
                if self.ctx.peer_opens(peer) {
                    self.carry(peer, CarrierEnd::opened);
                }
            }
            Event::Reflexive(peer) => {
                if self.ctx.learns_reflexive(peer) && !self.candidate(peer) {
                    // Told once the description has left.
                    self.ctx.schedule(self.ctx.now + Duration::from_millis(5), Event::Reflexive(peer));
                }
            }
            Event::Consent(peer) => {
                if self.ctx.consent(peer) {
                    self.carry(peer, |c, end, ctx| c.lost("unreachable".to_owned(), end, ctx));
                }
            }
            Event::PeerGone(peer) => {
                let open = self.ctx.peers.get(&peer).is_some_and(|p| p.state == super::peer::PeerState::Open);
                if open {
                    self.carry(peer, |c, end, ctx| c.lost("closed by the peer".to_owned(), end, ctx));
                }
            }
            Event::Dialed(connection) => {
                if self.broker.core.is_none() {
                    return self.ctx.schedule(self.ctx.now, Event::DialFailed(connection, "refused"));
                }
                if self.link_of(connection) && self.ctx.dialed(connection) {
                    self.link(connection, |link, ctx| link.dialed(connection, None, ctx));
                    self.broker.opened(connection, &mut self.ctx);
                    self.rearm_broker();
                }
            }
            Event::DialFailed(connection, why) => {
                self.link(connection, |link, ctx| link.dialed(connection, Some(why), ctx));
                self.ctx.conns.remove(&connection);
            }
            Event::FromBroker(connection, message) => {
                self.link(connection, |link, ctx| link.message(connection, *message, ctx));
            }
            Event::Arrive(pipe) => self.arrive(pipe),
            Event::Traffic(at) => self.open_stream(at),
            _ => {}
        }
    }

    fn arrive(&mut self, pipe: u64) {
        let Some(p) = self.ctx.pipes.get_mut(&pipe) else { return };
        let sink = p.sink;
        let Some(parcel) = p.arrive() else { return };
        match (sink, parcel) {
            (Sink::Peer(peer), Parcel::Control(control)) => {
                self.carry(peer, |c, end, ctx| c.control(control, end, ctx));
            }
            (Sink::Peer(peer), Parcel::Frame(frame)) => {
                self.carry(peer, |c, end, ctx| c.frame(frame, end, ctx));
                // The sender has room again.
                let partner = self.ctx.peers.get(&peer).and_then(|p| p.partner);
                if let Some(partner) = partner {
                    self.carry(partner, CarrierEnd::pump);
                    if let Some(owner) = self.ctx.peers.get(&partner).map(|p| p.owner) {
                        self.rearm(owner);
                    }
                }
            }
            (Sink::Device(connection), Parcel::FromBroker(_)) if !self.link_of(connection) => {
                // The kernel of a dead process answers with a reset.
                self.broker.closed(connection, &mut self.ctx);
                self.rearm_broker();
                self.forget_connection(connection);
            }
            (Sink::Device(connection), Parcel::FromBroker(message)) => {
                self.link(connection, |link, ctx| link.message(connection, *message, ctx));
            }
            (Sink::Device(connection), Parcel::Fin) => {
                self.link(connection, |link, ctx| link.closed(connection, ctx));
                self.forget_connection(connection);
            }
            _ => {}
        }
    }

    fn handle_other(&mut self, event: Event) {
        match event {
            Event::BrokerWake => {
                if self.broker_wake == Some(self.ctx.now) {
                    self.broker_wake = None;
                    self.broker.handle_timeout(&mut self.ctx);
                }
            }
            Event::Tick(pipe) => self.tick(pipe),
            Event::Arrive(pipe) => {
                let Some(p) = self.ctx.pipes.get_mut(&pipe) else { return };
                let Sink::Broker(connection) = p.sink else { return };
                if let Some(parcel) = p.arrive() {
                    let fin = matches!(parcel, Parcel::Fin);
                    if !fin && !self.broker.connections.contains_key(&connection) {
                        return self.reset_device(connection);
                    }
                    self.broker.received(connection, parcel, &mut self.ctx);
                    if fin {
                        self.forget_connection(connection);
                    }
                }
            }
            Event::Dial(connection, attempt) => {
                if self.link_of(connection) {
                    let listens = self.broker.core.is_some();
                    self.ctx.dial(connection, attempt, listens);
                } else {
                    self.ctx.conns.remove(&connection);
                }
            }
            Event::ToBroker(connection, message) => self.broker.message(connection, message, &mut self.ctx),
            Event::Ice(peer) => self.ctx.ice(peer),
            Event::ClosePeer(peer) => self.ctx.close_peer(peer),
            Event::Probe(node, run, transaction) => {
                let host = self.host_of(node);
                if self.broker.core.is_some() {
                    self.ctx.probe_arrives(node, host, run, transaction);
                }
            }
            Event::Fault(at) => self.begin(at),
            Event::Mend(at) => self.mend(at),
            Event::Mischief => self.broker.replay(&mut self.ctx),
            Event::Heal => self.heal(),
            Event::Judge => self.judge(),
            _ => {}
        }
        self.rearm_broker();
    }

    fn tick(&mut self, pipe: u64) {
        let Some(p) = self.ctx.pipes.get_mut(&pipe) else { return };
        match p.tick(&self.ctx.net, self.ctx.now, &mut self.ctx.rng) {
            Tick::Sent(arrives, next) => {
                self.ctx.schedule(arrives, Event::Arrive(pipe));
                if let Some(next) = next {
                    self.ctx.schedule(next, Event::Tick(pipe));
                }
            }
            Tick::Again(at) => self.ctx.schedule(at, Event::Tick(pipe)),
            Tick::Idle => {}
            Tick::Reset => match p.sink {
                Sink::Broker(connection) => {
                    // The device is told; the broker never hears of it.
                    self.reset_device(connection);
                    self.ctx.pipes.remove(&pipe);
                }
                Sink::Device(connection) => {
                    self.broker.closed(connection, &mut self.ctx);
                    self.ctx.pipes.remove(&pipe);
                }
                Sink::Peer(_) => {}
            },
        }
    }

    fn reset_device(&mut self, connection: farm_broker::core::ConnectionId) {
        let node = self.ctx.conns.get(&connection).map(|c| c.node);
        let asleep = matches!(node, Some(NodeId::Phone(place)) if self.phones[place].asleep.is_some());
        if asleep {
            return self.ctx.schedule(self.ctx.now, Event::DialFailed(connection, "reset"));
        }
        self.link(connection, |link, ctx| link.closed(connection, ctx));
        if let Some(node) = node {
            self.rearm(node);
        }
    }

    fn forget_connection(&mut self, connection: farm_broker::core::ConnectionId) {
        if let Some(conn) = self.ctx.conns.get(&connection)
            && !self.broker.connections.contains_key(&connection)
            && let Some((up, down)) = conn.pipes
        {
            self.ctx.pipes.remove(&up);
            self.ctx.pipes.remove(&down);
            self.ctx.conns.remove(&connection);
        }
    }

    /// Whether a device still wants this connection.
    fn link_of(&self, connection: farm_broker::core::ConnectionId) -> bool {
        let Some(conn) = self.ctx.conns.get(&connection) else { return false };
        match conn.node {
            NodeId::Farm(place) => {
                let process = self.farms[place].process.as_ref();
                process.is_some_and(|p| p.run == conn.run && p.link.is_current(connection))
            }
            NodeId::Phone(place) => {
                let process = self.phones[place].process.as_ref();
                process.is_some_and(|p| p.run == conn.run && p.link.is_current(connection))
            }
        }
    }

    fn link(
        &mut self,
        connection: farm_broker::core::ConnectionId,
        work: impl FnOnce(
            &mut super::device::BrokerLink,
            &mut Ctx,
        ) -> Vec<farm_tunnel::broker_socket::BrokerEvent>,
    ) {
        if !self.link_of(connection) {
            return;
        }
        let Some(node) = self.ctx.conns.get(&connection).map(|c| c.node) else { return };
        match node {
            NodeId::Farm(place) => {
                if let Some(p) = &mut self.farms[place].process {
                    let events = work(&mut p.link, &mut self.ctx);
                    p.broker_events(events, &mut self.ctx);
                    if let Some(starts) = p.count.take() {
                        self.farms[place].card.starts = starts;
                    }
                }
            }
            NodeId::Phone(place) => {
                if let Some(p) = &mut self.phones[place].process {
                    let events = work(&mut p.link, &mut self.ctx);
                    p.broker_events(events, &mut self.ctx);
                    if let Some(starts) = p.count.take() {
                        self.phones[place].starts = starts;
                    }
                }
            }
        }
    }

    fn carry(
        &mut self,
        peer: u64,
        work: impl FnOnce(&mut CarrierEnd, &mut super::traffic::SessionEnd, &mut Ctx),
    ) {
        let Some(p) = self.ctx.peers.get(&peer) else { return };
        let (owner, run, id) = (p.owner, p.run, p.id);
        // What comes before the channels are open, or after the end, is dropped.
        if p.state != super::peer::PeerState::Open {
            return;
        }
        match owner {
            NodeId::Farm(place) => {
                if let Some(p) = self.farms[place].process.as_mut().filter(|p| p.run == run) {
                    p.carry(id, &mut self.ctx, work);
                }
            }
            NodeId::Phone(place) => {
                let node = &mut self.phones[place];
                if node.asleep.is_none()
                    && let Some(p) = node.process.as_mut().filter(|p| p.run == run)
                {
                    p.carry(id, &mut self.ctx, work);
                }
            }
        }
    }

    /// Tells the other side of a candidate; `false` while the description has not left.
    fn candidate(&mut self, peer: u64) -> bool {
        let Some(p) = self.ctx.peers.get(&peer) else { return true };
        let (owner, run, id) = (p.owner, p.run, p.id);
        let note = farm_tunnel::carrier::Note::Candidate(super::peer::candidate(peer));
        match owner {
            NodeId::Farm(place) => {
                if let Some(p) = self.farms[place].process.as_mut().filter(|p| p.run == run) {
                    if p.is_building(id) {
                        return false;
                    }
                    p.note(id, note, &mut self.ctx);
                }
            }
            NodeId::Phone(place) => {
                if let Some(p) = self.phones[place].process.as_mut().filter(|p| p.run == run) {
                    if p.is_building(id) {
                        return false;
                    }
                    p.note(id.epoch, note, &mut self.ctx);
                }
            }
        }
        true
    }

    fn open_stream(&mut self, at: usize) {
        let (place, _, manners) = self.traffic[at];
        let farm = self.phones[place].farm.0;
        let Some(process) = &mut self.phones[place].process else { return };
        let plan = self.ctx.plans.len();
        self.ctx.plans.push(super::traffic::Plan {
            phone: place,
            farm,
            manners,
            written: [0; 2],
            finished: [false; 2],
            ended: [None; 2],
            bereaved: false,
            expired: false,
            excused: false,
            farm_runs: 0,
        });
        if process.end.open(plan, &self.ctx) {
            process.end.run(&mut self.ctx);
            process.attention(&mut self.ctx);
            process.flow(&mut self.ctx);
        } else {
            self.ctx.plans.pop();
        }
    }

    fn wake(&mut self, node: NodeId) {
        let second = self.ctx.elapsed().as_secs();
        let (wake, wakes) = match node {
            NodeId::Farm(place) => {
                let node = &mut self.farms[place];
                (&mut node.wake, &mut node.wakes)
            }
            NodeId::Phone(place) => {
                let node = &mut self.phones[place];
                (&mut node.wake, &mut node.wakes)
            }
        };
        if *wake != Some(self.ctx.now) {
            return;
        }
        *wake = None;
        *wakes = if wakes.0 == second { (second, wakes.1 + 1) } else { (second, 1) };
        let count = wakes.1;
        match node {
            NodeId::Farm(place) => {
                if let Some(p) = &mut self.farms[place].process {
                    p.handle_timeout(&mut self.ctx);
                }
            }
            NodeId::Phone(place) => {
                if let Some(p) = &mut self.phones[place].process {
                    p.handle_timeout(&mut self.ctx);
                }
            }
        }
        if count > MAX_WAKES {
            self.ctx.violate("deadlines", format!("{node:?} was woken {count} times in a second"));
        }
    }

    /// Schedules a device's next wake.
    pub fn rearm(&mut self, node: NodeId) {
        let (due, wake) = match node {
            NodeId::Farm(place) => {
                let node = &mut self.farms[place];
                (node.process.as_ref().and_then(|p| p.poll_timeout(&self.ctx)), &mut node.wake)
            }
            NodeId::Phone(place) => {
                let node = &mut self.phones[place];
                (node.process.as_ref().and_then(|p| p.poll_timeout(&self.ctx)), &mut node.wake)
            }
        };
        if let Some(due) = due.map(|due| due.max(self.ctx.now))
            && wake.is_none_or(|at| due < at || at < self.ctx.now)
        {
            *wake = Some(due);
            self.ctx.schedule(due, Event::Wake(node));
        }
    }

    /// Schedules the broker's next wake.
    pub fn rearm_broker(&mut self) {
        if let Some(due) = self.broker.poll_timeout().map(|due| due.max(self.ctx.now))
            && self.broker_wake.is_none_or(|at| due < at || at < self.ctx.now)
        {
            self.broker_wake = Some(due);
            self.ctx.schedule(due, Event::BrokerWake);
        }
    }

    /// Whether a link is online.
    pub fn is_online(link: &super::device::BrokerLink) -> bool {
        link.link.state().state == LinkState::Online
    }
}

fn identity(node: NodeId, host: HostId, role: Role, key: DeviceKey) -> Identity {
    Identity { node, host, key: Rc::new(key), role, slot: Slot::default() }
}
