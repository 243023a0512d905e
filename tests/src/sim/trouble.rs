//! Lets faults begin and end.

use std::time::Duration;

use farm_protocol::frame::ResetReason;

use super::ctx::{Ctx, Event, NodeId};
use super::device::local_address;
use super::fault::Fault;
use super::net::{BROKER, HostId, Nat};
use super::world::World;

impl World {
    /// A fault begins.
    pub fn begin(&mut self, at: usize) {
        let fault = self.faults[at].fault;
        let lasts = self.faults[at].lasts;
        if self.ctx.healed.is_some() {
            return;
        }
        self.ctx.stats.faults += 1;
        self.ctx.note(|| format!("FAULT {fault:?} for {lasts:?}"));
        match fault {
            Fault::Link { host, seen } => {
                self.ctx.net.hosts[host].link = false;
                if seen {
                    self.netlink(host, false);
                }
            }
            Fault::OneWay { host, out: true } => self.ctx.net.hosts[host].out_ok = false,
            Fault::OneWay { host, out: false } => self.ctx.net.hosts[host].in_ok = false,
            Fault::Loss { host, percent } => self.ctx.net.hosts[host].loss = f64::from(percent) / 100.0,
            Fault::Slow { host, by } => {
                self.ctx.net.hosts[host].latency += Duration::from_millis(u64::from(by));
            }
            Fault::Partition { a, b } => {
                self.ctx.net.hosts[a].cut_off.insert(b);
            }
            Fault::Address { host, seen } => self.move_to(host, seen),
            Fault::Public { host } => {
                let host = &mut self.ctx.net.hosts[host];
                if host.nat != Nat::Open {
                    host.public += 1;
                    host.mapping += 1;
                }
            }
            Fault::Forget { host } => {
                let host = &mut self.ctx.net.hosts[host];
                host.mapping += u32::from(host.nat == Nat::Random);
            }
            Fault::Kill { host } | Fault::Stop { host } if host == BROKER => {
                self.broker.stop(true, &mut self.ctx);
            }
            Fault::Kill { host } => self.end_process(host, false),
            Fault::Stop { host } => self.stop(host),
            Fault::Power { host } => {
                self.ctx.net.hosts[host].powered = false;
                self.ctx.net.hosts[host].boots += 1;
                self.end_process(host, true);
            }
            Fault::Busy { by } => self.broker.slow = Duration::from_millis(u64::from(by)),
            Fault::Suspend { host } => {
                if let Some(NodeId::Phone(place)) = self.node_of(host) {
                    self.phones[place].asleep.get_or_insert_default();
                }
            }
            Fault::Clock { by } => self.ctx.wall += i64::from(by),
            Fault::Rollback { host, starts } => self.roll_back(host, u64::from(starts)),
            Fault::LookAway { host } => self.look(host, 0),
        }
    }

    /// It ends.
    pub fn mend(&mut self, at: usize) {
        if self.ctx.healed.is_some() {
            return;
        }
        let fault = self.faults[at].fault;
        self.ctx.note(|| format!("over: {fault:?}"));
        self.undo(fault);
        self.look_at_paths();
    }

    fn undo(&mut self, fault: Fault) {
        match fault {
            Fault::Power { host } if self.retired == Some(host) => {}
            Fault::Link { host, seen } => {
                self.ctx.net.hosts[host].link = true;
                if seen {
                    self.netlink(host, true);
                }
            }
            Fault::OneWay { host, out: true } => self.ctx.net.hosts[host].out_ok = true,
            Fault::OneWay { host, out: false } => self.ctx.net.hosts[host].in_ok = true,
            Fault::Loss { host, .. } => self.ctx.net.hosts[host].loss = 0.0,
            Fault::Slow { host, by } => {
                let latency = &mut self.ctx.net.hosts[host].latency;
                *latency = latency.saturating_sub(Duration::from_millis(u64::from(by)));
            }
            Fault::Partition { a, b } => {
                self.ctx.net.hosts[a].cut_off.remove(&b);
            }
            Fault::Power { host } => {
                self.ctx.net.hosts[host].powered = true;
                self.start(host);
            }
            Fault::Kill { host } | Fault::Stop { host } => self.start(host),
            Fault::Busy { .. } => self.broker.slow = Duration::ZERO,
            Fault::Suspend { host } => self.wake_up(host),
            Fault::LookAway { host } => self.look(host, 1),
            Fault::Address { .. }
            | Fault::Public { .. }
            | Fault::Forget { .. }
            | Fault::Clock { .. }
            | Fault::Rollback { .. } => {}
        }
    }

    /// All faults end.
    pub fn heal(&mut self) {
        let now = self.ctx.elapsed();
        let active: Vec<Fault> =
            (self.faults.iter()).filter(|f| f.at <= now && now < f.at + f.lasts).map(|f| f.fault).collect();
        self.ctx.note(|| format!("HEALED ({} faults were still on)", active.len()));
        active.into_iter().for_each(|fault| self.undo(fault));
        self.ctx.healed = Some(self.ctx.now);
        self.ctx.net.hosts.iter_mut().for_each(super::net::Host::heal);
        self.broker.mischief = super::broker::Mischief::default();
        self.broker.slow = Duration::ZERO;
        let retired = self.retired;
        for host in (0..self.ctx.net.hosts.len()).filter(|host| retired != Some(*host)) {
            self.ctx.net.hosts[host].powered = true;
            self.start(host);
            if host != BROKER {
                self.netlink(host, true);
                self.wake_up(host);
            }
        }
    }

    /// Starts what does not run.
    fn start(&mut self, host: HostId) {
        if !self.ctx.net.hosts[host].powered || self.retired == Some(host) && self.ctx.healed.is_some() {
            return;
        }
        match self.node_of(host) {
            None if self.broker.core.is_none() => {
                self.ctx.note(|| "the broker starts".to_owned());
                self.broker.start(&self.ctx);
                self.rearm_broker();
            }
            Some(NodeId::Farm(place)) if self.farms[place].process.is_none() => self.start_farm(place),
            Some(NodeId::Phone(place)) if self.phones[place].process.is_none() => self.start_phone(place),
            _ => {}
        }
    }

    fn end_process(&mut self, host: HostId, power: bool) {
        match self.node_of(host) {
            None => self.broker.stop(!power, &mut self.ctx),
            Some(node) => self.kill(node, power),
        }
        if let Some(NodeId::Phone(place)) = self.node_of(host) {
            self.phones[place].asleep = None;
        }
    }

    fn stop(&mut self, host: HostId) {
        match self.node_of(host) {
            None => {}
            Some(NodeId::Farm(place)) => {
                if let Some(mut process) = self.farms[place].process.take() {
                    self.ctx.bereave(|plan| plan.farm == place, ResetReason::SessionEnded);
                    process.stop(&mut self.ctx);
                }
            }
            Some(NodeId::Phone(place)) => {
                self.wake_up(host);
                if let Some(mut process) = self.phones[place].process.take() {
                    self.ctx.bereave(|plan| plan.phone == place, ResetReason::SessionEnded);
                    process.stop(&mut self.ctx);
                }
            }
        }
    }

    fn roll_back(&mut self, host: HostId, starts: u64) {
        self.end_process(host, false);
        match self.node_of(host) {
            Some(NodeId::Farm(place)) => {
                let card = &mut self.farms[place].card;
                card.starts = card.starts.saturating_sub(starts);
            }
            Some(NodeId::Phone(place)) => {
                let counted = &mut self.phones[place].starts;
                *counted = counted.saturating_sub(starts);
            }
            None => {}
        }
        self.start(host);
    }

    /// The host gets another local address, and with it other mappings.
    fn move_to(&mut self, host: HostId, seen: bool) {
        if seen {
            self.netlink(host, false);
        }
        let h = &mut self.ctx.net.hosts[host];
        h.address += 1;
        h.mapping += 1;
        if h.nat == Nat::Open {
            h.public += 1;
        }
        if seen && h.link {
            self.netlink(host, true);
        }
    }

    /// Netlink tells of the host's present address.
    fn netlink(&mut self, host: HostId, up: bool) {
        let Some(node) = self.node_of(host) else { return };
        let address = local_address(host, self.ctx.net.hosts[host].address);
        let soon = self.ctx.now + self.ctx.rng.ms(0, 20);
        self.ctx.schedule(soon, Event::Netlink(node, address, up));
    }

    fn wake_up(&mut self, host: HostId) {
        let Some(node @ NodeId::Phone(place)) = self.node_of(host) else { return };
        let Some(waiting) = self.phones[place].asleep.take() else { return };
        self.ctx.note(|| format!("phone {place} wakes up, {} events waited", waiting.len()));
        for event in waiting {
            self.ctx.schedule(self.ctx.now, event);
        }
        self.phones[place].wake = None;
        self.phones[place].dead_since = None;
        self.phones[place].slept = true;
        self.rearm(node);
    }

    fn look(&mut self, host: HostId, watchers: usize) {
        let Some(node @ NodeId::Phone(place)) = self.node_of(host) else { return };
        self.phones[place].watchers = watchers;
        let awake = self.phones[place].asleep.is_none();
        if let Some(process) = &mut self.phones[place].process {
            process.watchers = watchers;
            if awake {
                process.attention(&mut self.ctx);
                self.rearm(node);
            }
        }
    }
}

impl Ctx {
    /// Streams lose an end for this reason.
    pub fn bereave(&mut self, of: impl Fn(&super::traffic::Plan) -> bool, reason: ResetReason) {
        for plan in self.plans.iter_mut().filter(|plan| of(plan)) {
            match reason {
                ResetReason::Restarted => plan.bereaved = true,
                ResetReason::Expired => plan.expired = true,
                // Ended on purpose, or for lack of room.
                _ => plan.excused = true,
            }
        }
    }
}
