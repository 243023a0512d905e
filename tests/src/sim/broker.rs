//! The broker: its real core, on the virtual network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use farm_broker::core::enrollment::{FarmRecord, TokenHash};
use farm_broker::core::{Action, ConnectionId, Core, Event, Now, Settings};
use farm_protocol::broker::{FromBroker, Presence, ToBroker};
use farm_protocol::id::FarmId;
use farm_protocol::keys::{Nonce, PublicKey};

use super::ctx::{self, Ctx};
use super::device::BROKER_NAME;
use super::mutation::Mutation;
use super::pipe::{Parcel, PipeId};

/// What a broker that lies does with what it hands on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mischief {
    /// Share of signals that come late, behind others.
    pub delays: f64,
    /// Share of signals that come twice.
    pub repeats: f64,
    /// Share of signals that never come.
    pub withholds: f64,
    /// Share of presences that are told wrongly.
    pub lies: f64,
}

/// See the module.
pub struct Broker {
    /// The core while the process runs.
    pub core: Option<Core>,
    farms: Vec<(FarmId, PublicKey)>,
    /// Its ends of the connections, and the pipes to the devices.
    pub connections: BTreeMap<ConnectionId, PipeId>,
    /// Until it reads what came.
    pub slow: Duration,
    last_input: Instant,
    /// What it does wrong on purpose.
    pub mischief: Mischief,
    /// It told presence wrongly: what devices were told last may stay wrong.
    pub lied: bool,
    /// Signals to replay.
    pub recorded: Vec<(ConnectionId, FromBroker)>,
}

impl Broker {
    /// A running broker that knows these farms.
    pub fn new(farms: Vec<(FarmId, PublicKey)>, ctx: &Ctx) -> Self {
        let mut broker = Self {
            core: None,
            farms,
            connections: BTreeMap::new(),
            slow: Duration::ZERO,
            last_input: ctx.now,
            mischief: Mischief::default(),
            lied: false,
            recorded: Vec::new(),
        };
        broker.start(ctx);
        broker
    }

    /// The process starts: it knows what its store knows.
    pub fn start(&mut self, ctx: &Ctx) {
        let settings = Settings {
            names: BTreeSet::from([BROKER_NAME.to_owned()]),
            stun_port: Some(8443),
            ..Settings::default()
        };
        let record =
            |key| FarmRecord { key, name: "farm".to_owned(), enrolled: 0, token: TokenHash([0; 32]) };
        let farms = self.farms.iter().map(|(id, key)| (*id, record(*key)));
        self.core = Some(Core::new(settings, farms, [], now(ctx)));
    }

    /// The process ends. Where its machine lives on, the kernel closes its sockets.
    pub fn stop(&mut self, says_so: bool, ctx: &mut Ctx) {
        self.core = None;
        for (_, down) in std::mem::take(&mut self.connections) {
            if says_so {
                ctx.push(down, Parcel::Fin);
            }
        }
    }

    /// The next deadline.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.as_ref()?.poll_timeout().map(|(at, _)| at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, ctx: &mut Ctx) {
        if self.poll_timeout().is_some_and(|at| at <= ctx.now) {
            self.handle(Event::Timeout, ctx);
            if self.poll_timeout().is_some_and(|at| at <= ctx.now) {
                ctx.violate("deadlines", "the broker is still due".to_owned());
            }
        }
    }

    /// A device has opened a WebSocket.
    pub fn opened(&mut self, connection: ConnectionId, ctx: &mut Ctx) {
        let Some(conn) = ctx.conns.get(&connection).copied() else { return };
        let Some((_, down)) = conn.pipes else { return };
        self.connections.insert(connection, down);
        let observed = ctx.net.reflexive(conn.device.host);
        let nonce = Nonce::from_bytes(ctx.rng.bytes());
        self.handle(Event::Opened { connection, observed, nonce, claim: None }, ctx);
    }

    /// Something came on a connection.
    pub fn received(&mut self, connection: ConnectionId, parcel: Parcel, ctx: &mut Ctx) {
        if !self.connections.contains_key(&connection) {
            return;
        }
        match parcel {
            Parcel::ToBroker(message) if self.slow > Duration::ZERO => {
                self.last_input = self.last_input.max(ctx.now + self.slow);
                ctx.schedule(self.last_input, ctx::Event::ToBroker(connection, message));
            }
            Parcel::ToBroker(message) => self.message(connection, message, ctx),
            Parcel::Fin => self.closed(connection, ctx),
            _ => {}
        }
    }

    /// A message reaches the core.
    pub fn message(&mut self, connection: ConnectionId, message: ToBroker, ctx: &mut Ctx) {
        if self.connections.contains_key(&connection) {
            self.handle(Event::Message { connection, message }, ctx);
        }
    }

    /// A connection ended.
    pub fn closed(&mut self, connection: ConnectionId, ctx: &mut Ctx) {
        if self.connections.remove(&connection).is_some() {
            self.handle(Event::Closed { connection, slow: false }, ctx);
        }
    }

    fn handle(&mut self, event: Event, ctx: &mut Ctx) {
        let Some(core) = &mut self.core else { return };
        core.handle(event, now(ctx));
        let mut actions = Vec::new();
        while let Some(action) = core.poll_action() {
            actions.push(action);
        }
        for action in actions {
            match action {
                Action::Send { connection, message } => self.send(connection, *message, ctx),
                Action::Close { connection } => {
                    if let Some(down) = self.connections.remove(&connection) {
                        ctx.push(down, Parcel::Fin);
                    }
                }
                Action::Enroll { .. }
                | Action::ForgetToken { .. }
                | Action::WriteHistory { .. }
                | Action::MarkRun { .. }
                | Action::CloseRelay { .. }
                | Action::Alert { .. }
                | Action::ForgetAlert { .. } => {}
                // This broker is alone.
                Action::TellAll { .. }
                | Action::Tell { .. }
                | Action::Restore { .. }
                | Action::RestoreRevoked { .. } => {}
            }
        }
    }

    fn send(&mut self, connection: ConnectionId, message: FromBroker, ctx: &mut Ctx) {
        let Some(down) = self.connections.get(&connection).copied() else { return };
        let mischief = self.mischief;
        match message {
            FromBroker::Signal(_) => {
                if self.recorded.len() < 64 {
                    self.recorded.push((connection, message.clone()));
                }
                if ctx.rng.chance(mischief.withholds) {
                    return;
                }
                if ctx.rng.chance(mischief.repeats) {
                    let again = ctx.now + ctx.rng.ms(0, 3000);
                    ctx.schedule(again, ctx::Event::FromBroker(connection, Box::new(message.clone())));
                }
                if ctx.rng.chance(mischief.delays) {
                    let later = ctx.now + ctx.rng.ms(1, 1500);
                    return ctx.schedule(later, ctx::Event::FromBroker(connection, Box::new(message)));
                }
                ctx.push(down, Parcel::FromBroker(Box::new(message)));
            }
            FromBroker::Presence(mut presence) => {
                if ctx.is_mutated(Mutation::StalePresence) && self.told_before(&presence) {
                    return;
                }
                if ctx.rng.chance(mischief.lies) {
                    self.lied = true;
                    match &mut presence.state {
                        Some(state) if ctx.rng.chance(0.7) => state.online = !state.online,
                        state => *state = None,
                    }
                }
                self.recorded.push((connection, FromBroker::Presence(presence.clone())));
                ctx.push(down, Parcel::FromBroker(Box::new(FromBroker::Presence(presence))));
            }
            other => ctx.push(down, Parcel::FromBroker(Box::new(other))),
        }
    }

    /// Presence of this farm in another run was told to somebody.
    fn told_before(&self, presence: &Presence) -> bool {
        self.recorded.iter().any(|(_, message)| {
            matches!(message, FromBroker::Presence(old) if old.farm == presence.farm && old.state.is_some())
        })
    }

    /// A recorded message is sent again to whom it was for, as it was or forged.
    pub fn replay(&mut self, ctx: &mut Ctx) {
        let at = ctx.rng.below(self.recorded.len() as u64) as usize;
        let Some((connection, mut message)) = self.recorded.get(at).cloned() else { return };
        if let FromBroker::Signal(signal) = &mut message
            && ctx.rng.chance(0.3)
        {
            let byte = ctx.rng.below(signal.payload.len() as u64) as usize;
            signal.payload[byte] ^= 1;
        }
        if let FromBroker::Presence(_) = message {
            self.lied = true;
        }
        // The device may have another connection by now.
        let node = ctx.conns.get(&connection).map(|conn| conn.node);
        let mut open = self.connections.iter().rev();
        let to = open.find(|(id, _)| node.is_some() && ctx.conns.get(id).map(|c| c.node) == node);
        if let Some((_, down)) = to {
            ctx.push(*down, Parcel::FromBroker(Box::new(message)));
        }
    }
}

fn now(ctx: &Ctx) -> Now {
    Now { instant: ctx.now, unix: ctx.unix() }
}

impl Ctx {
    /// A device tries to reach the broker: TCP, TLS and the WebSocket.
    pub fn dial(&mut self, connection: ConnectionId, attempt: usize, listens: bool) {
        /// When TCP asks again after it asked first: 1, 3, 7 s.
        const AGAIN: [u64; 3] = [1, 2, 4];
        let Some(conn) = self.conns.get(&connection).copied() else { return };
        let host = &self.net.hosts[conn.device.host];
        if !host.link {
            return self.schedule(self.now, ctx::Event::DialFailed(connection, "no route"));
        }
        let there = self.net.fate(&conn.device, &conn.broker, false, &mut self.rng);
        let back = self.net.fate(&conn.broker, &conn.device, false, &mut self.rng);
        match (there, back) {
            (super::net::Fate::Arrives(there), super::net::Fate::Arrives(back)) => {
                let event = if listens {
                    ctx::Event::Dialed(connection)
                } else {
                    ctx::Event::DialFailed(connection, "refused")
                };
                let trips = if listens { 3 } else { 1 };
                self.schedule(self.now + (there + back) * trips, event);
            }
            _ => {
                if let Some(wait) = AGAIN.get(attempt) {
                    let again = ctx::Event::Dial(connection, attempt + 1);
                    self.schedule(self.now + Duration::from_secs(*wait), again);
                }
            }
        }
    }

    /// Makes the pipes of a connection that is set up.
    pub fn dialed(&mut self, connection: ConnectionId) -> bool {
        let Some(conn) = self.conns.get(&connection).copied() else { return false };
        if self.net.is_gone(&conn.device) || self.net.is_gone(&conn.broker) {
            return false;
        }
        let up = self.pipe(conn.device, conn.broker, super::pipe::Sink::Broker(connection));
        let down = self.pipe(conn.broker, conn.device, super::pipe::Sink::Device(connection));
        if let Some(conn) = self.conns.get_mut(&connection) {
            conn.pipes = Some((up, down));
        }
        true
    }
}
