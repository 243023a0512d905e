//! Brokers of one cluster and what is under way between them.

use std::collections::BTreeSet;
use std::time::Duration;

use farm_protocol::broker::{Address, FromBroker, ToBroker, UndeliveredReason};

use super::super::world::{Device, World, signal};
use crate::core::cluster::Membership;
use crate::core::cluster::message::{BrokerId, PeerMessage};
use crate::core::{ConnectionId, Event};

/// Rounds of messages that one event may cause: each hop of a signal is one,
/// and so is each answer to a claim.
const MOST_ROUNDS: usize = 12;

pub(super) struct Net {
    pub(super) worlds: Vec<World>,
    alive: Vec<bool>,
    /// Messages from the first to the second are lost.
    pub(super) lossy: BTreeSet<(usize, usize)>,
}

pub(super) fn id(broker: usize) -> BrokerId {
    BrokerId(broker as u64 + 1)
}

impl Net {
    pub(super) fn of(brokers: usize) -> Self {
        let world = |broker: usize| {
            World::with(|settings| {
                let name = format!("b{broker}");
                settings.cluster = Some(Membership { id: id(broker), name });
            })
        };
        let worlds: Vec<World> = (0..brokers).map(world).collect();
        let mut net = Self { worlds, alive: vec![true; brokers], lossy: BTreeSet::new() };
        net.engine(true);
        net.run(Duration::from_secs(2));
        for world in &net.worlds {
            assert_eq!(world.core.peers(), brokers - 1);
        }
        net
    }

    /// The engine comes or goes; without it nothing is carried.
    pub(super) fn engine(&mut self, there: bool) {
        let all = 0..self.worlds.len();
        if there {
            self.lossy.clear();
        } else {
            self.lossy = all.clone().flat_map(|a| all.clone().map(move |b| (a, b))).collect();
        }
        for world in &mut self.worlds {
            world.handle(Event::Engine { there });
        }
        self.settle();
    }

    pub(super) fn kill(&mut self, broker: usize) {
        self.alive[broker] = false;
        self.worlds[broker].told.clear();
    }

    /// Carries all that is said until nobody says anything.
    pub(super) fn settle(&mut self) {
        for _ in 0..MOST_ROUNDS {
            let mut said = false;
            for from in 0..self.worlds.len() {
                while let Some((to, message)) = self.worlds[from].told.pop_front() {
                    said = true;
                    self.deliver(from, to, &message);
                }
            }
            if !said {
                return;
            }
        }
        panic!("the brokers do not stop talking");
    }

    fn deliver(&mut self, from: usize, to: Option<BrokerId>, message: &PeerMessage) {
        let bytes = message.encode().expect("what the core says can be sent");
        for receiver in 0..self.worlds.len() {
            let meant = to.is_none_or(|to| to == id(receiver));
            let lost = self.lossy.contains(&(from, receiver)) || !self.alive[receiver] || !self.alive[from];
            if receiver != from && meant && !lost {
                let message = PeerMessage::decode(&bytes).expect("what was sent can be read");
                self.worlds[receiver].handle(Event::Peer(Box::new(message)));
            }
        }
    }

    /// Lets time go by everywhere, in steps shorter than any deadline.
    pub(super) fn run(&mut self, duration: Duration) {
        let step = Duration::from_millis(250);
        let mut left = duration;
        while left > Duration::ZERO {
            let now = left.min(step);
            left -= now;
            for world in &mut self.worlds {
                world.advance(now);
            }
            self.settle();
        }
    }

    /// A device comes to a broker. Farms are known to all.
    pub(super) fn enter(&mut self, broker: usize, device: &Device) -> ConnectionId {
        if device.role == farm_protocol::broker::Role::Farm {
            for world in &mut self.worlds {
                if !world.core.farms.is_enrolled(device.farm_id()) {
                    world.enroll(device);
                }
            }
        }
        let connection = self.worlds[broker].enter(device);
        self.settle();
        connection
    }

    pub(super) fn say(&mut self, broker: usize, connection: ConnectionId, message: ToBroker) {
        self.worlds[broker].say(connection, message);
        self.settle();
    }

    pub(super) fn close(&mut self, broker: usize, connection: ConnectionId) {
        self.worlds[broker].handle(Event::Closed { connection, slow: false });
        self.settle();
    }

    /// Sends a signal and gives the reason why it was not handed on, if any.
    pub(super) fn undelivered(
        &mut self,
        broker: usize,
        connection: ConnectionId,
        peer: Address,
    ) -> Option<UndeliveredReason> {
        self.worlds[broker].take(connection);
        self.say(broker, connection, signal(peer));
        match self.worlds[broker].take(connection).as_slice() {
            [] => None,
            [FromBroker::Undelivered(undelivered)] => Some(undelivered.reason),
            other => panic!("{other:?}"),
        }
    }

    /// Whether all who are alive agree where a device is, and it is there once.
    pub(super) fn place_of(&self, device: &Device) -> Result<Option<usize>, String> {
        let alive: Vec<usize> = (0..self.worlds.len()).filter(|broker| self.alive[*broker]).collect();
        let has = |broker: &usize| self.worlds[*broker].core.states.connection_of(device.id()).is_some();
        let having: Vec<usize> = alive.iter().copied().filter(has).collect();
        if having.len() > 1 {
            return Err(format!("{} is at {having:?}", device.id()));
        }
        let expected = having.first().copied();
        for broker in alive.into_iter().filter(|broker| Some(*broker) != expected) {
            let believed = self.worlds[broker].core.elsewhere(device.id());
            if believed != expected.map(id) {
                return Err(format!("{broker} believes {believed:?}, {} is at {expected:?}", device.id()));
            }
        }
        Ok(expected)
    }

    pub(super) fn check(&self) {
        for (broker, world) in self.worlds.iter().enumerate() {
            if self.alive[broker] {
                world.check_invariants();
            }
        }
    }
}
