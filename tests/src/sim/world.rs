//! The world of one seed: makes it, and lets time go by.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use farm_protocol::broker::Role;
use farm_protocol::id::{FarmId, PhoneId, Slot};
use farm_protocol::keys::{DeviceKey, PublicKey};

use super::broker::Broker;
use super::ctx::{Ctx, Event, NodeId};
use super::device::Identity;
use super::fault::Scheduled;
use super::net::HostId;
use super::traffic::Manner;
use super::{farm, phone};

/// Wakes of one device within a second of virtual time: pings in doubt (25 a
/// second and carrier), acknowledgements (50), programs (50) of a handful of
/// sessions. More is a loop.
const MAX_WAKES: u32 = 2_000;

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
    pub dead_since: Option<(farm_protocol::epoch::Epoch, Instant, bool)>,
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
    /// When the broker is woken next.
    pub broker_wake: Option<Instant>,
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

    /// A program opens a stream.
    pub fn open_stream(&mut self, at: usize) {
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

    /// A device's timers.
    pub fn wake(&mut self, node: NodeId) {
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
}

fn identity(node: NodeId, host: HostId, role: Role, key: DeviceKey) -> Identity {
    Identity { node, host, key: Rc::new(key), role, slot: Slot::default() }
}
