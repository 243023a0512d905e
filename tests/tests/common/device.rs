//! A device that talks to the real broker by hand.

use std::sync::Arc;
use std::time::Duration;

use farm_protocol::broker::{FromBroker, Role, Signal, ToBroker};
use farm_protocol::codec;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, PhoneId, SessionId, Slot};
use farm_protocol::keys::DeviceKey;
use farm_protocol::signal::Payload;
use farm_tunnel::broker_socket::{BrokerEvent, BrokerSocket, Dialer, Identity, Trust};
use farm_tunnel::progress::Beat;
use ring::rand::SystemRandom;

use super::SOON;

/// A key that nobody knows.
pub(crate) fn stranger() -> Arc<DeviceKey> {
    Arc::new(DeviceKey::generate(&SystemRandom::new()).unwrap())
}

/// A phone program's connection to the broker.
pub(crate) struct Device {
    key: Arc<DeviceKey>,
    slot: Slot,
    socket: BrokerSocket,
    events: async_channel::Receiver<BrokerEvent>,
}

impl Device {
    /// Connects as a phone and waits until the broker lets it in.
    pub(crate) fn online(broker: &str, key: Arc<DeviceKey>, slot: u8, starts: u64) -> Self {
        let slot = Slot::new(slot).unwrap();
        let identity = Identity {
            key: key.clone(),
            role: Role::Phone,
            slot,
            boot: BootId::from_bytes([7; BootId::LEN]),
            name: None,
            enrollment_token: None,
        };
        let dialer = Dialer::new(broker.parse().unwrap(), Trust::public().unwrap(), None);
        let (socket, events) =
            BrokerSocket::start(dialer, identity, Epoch::of_start(starts), 0, Beat::unwatched());
        let device = Self { key, slot, socket, events };
        device.event("the broker's welcome", |event| matches!(event, BrokerEvent::Online(_)).then_some(()));
        device
    }

    /// Its session with any farm.
    pub(crate) fn session(&self) -> SessionId {
        SessionId { phone: PhoneId::of(&self.key.public()), slot: self.slot }
    }

    /// Its key.
    pub(crate) fn key(&self) -> Arc<DeviceKey> {
        self.key.clone()
    }

    /// Says something to the broker.
    pub(crate) fn send(&self, message: ToBroker) {
        assert!(self.socket.send(message), "the link to the broker is choked");
    }

    /// Says something to another device.
    pub(crate) fn signal(&self, peer: farm_protocol::broker::Address, payload: &Payload) {
        let payload = codec::encode(payload).unwrap();
        self.send(ToBroker::Signal(Signal { peer, payload }));
    }

    /// Waits for a message from the broker.
    pub(crate) fn told<T>(&self, what: &str, mut wanted: impl FnMut(&FromBroker) -> Option<T>) -> T {
        self.event(what, |event| match event {
            BrokerEvent::Message(message) => wanted(message),
            _ => None,
        })
    }

    /// Waits for what another device says.
    pub(crate) fn heard<T>(&self, what: &str, mut wanted: impl FnMut(Payload) -> Option<T>) -> T {
        self.told(what, |message| match message {
            FromBroker::Signal(signal) => wanted(codec::decode(&signal.payload).unwrap()),
            _ => None,
        })
    }

    fn event<T>(&self, what: &str, mut wanted: impl FnMut(&BrokerEvent) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let wait = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if let Some(found) = wanted(&event) {
                    return Some(found);
                }
                seen.push(format!("{event:?}"));
            }
        };
        let late = async {
            smol::Timer::after(SOON).await;
            None
        };
        let found = smol::block_on(smol::future::or(wait, late));
        found.unwrap_or_else(|| panic!("waited {SOON:?} in vain for {what}; came instead: {seen:#?}"))
    }
}

/// A moment in which nothing unwanted may happen: long against what the broker
/// and the agent take for one message on loopback.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);
