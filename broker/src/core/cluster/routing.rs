//! Signals between devices of different brokers.
//!
//! The sender's broker checks what it sends, the receiver's what it hands on:
//! a farm's word on who may reach it is with both.

use farm_protocol::broker::{
    Address, FromBroker, MAX_SIGNAL, Signal, Undelivered, UndeliveredReason as Reason,
};

use super::message::{Body, BrokerId, PeerSignal, PeerUndelivered};
use crate::core::Core;
use crate::core::connection_state::DeviceId;
use crate::core::event::{ConnectionId, Now};

/// A signal is handed on by this many brokers at most: its receiver may have
/// moved while it was under way, and once more. Then the sender is told.
const MAX_HOPS: u8 = 2;

/// Where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum Way {
    /// Here.
    Here(ConnectionId),
    /// With another broker.
    To(BrokerId),
}

impl Core {
    /// The way to a device, if it is anywhere that can be reached now.
    pub(in crate::core) fn way_to(&self, device: DeviceId) -> Option<Way> {
        if let Some(connection) = self.states.connection_of(device) {
            return Some(Way::Here(connection));
        }
        let cluster = self.cluster.as_ref().filter(|cluster| !cluster.blind)?;
        cluster.places.broker_of(device).map(Way::To)
    }

    /// Hands a signal of a device here to another broker.
    pub(in crate::core) fn signal_to_peer(&mut self, broker: BrokerId, sender: DeviceId, signal: Signal) {
        let Some(cluster) = &self.cluster else { return };
        self.counters.peer_signals += 1;
        let signal = PeerSignal {
            sender: sender.into(),
            receiver: signal.peer,
            origin: cluster.me.id,
            hops: 0,
            payload: signal.payload,
        };
        self.tell(broker, Body::Signal(signal));
    }

    /// A signal of another broker's device.
    pub(super) fn peer_signal(&mut self, from: BrokerId, signal: PeerSignal, now: Now) {
        let Ok(sender) = DeviceId::try_from(signal.sender) else { return };
        if signal.payload.len() > MAX_SIGNAL {
            return;
        }
        match self.way_for_peer(sender, signal.receiver, now) {
            Ok(Way::Here(connection)) => {
                self.counters.signals += 1;
                let handed_on = Signal { peer: signal.sender, payload: signal.payload };
                self.send(connection, FromBroker::Signal(handed_on));
            }
            Ok(Way::To(next)) if signal.hops + 1 < MAX_HOPS && next != from => {
                self.counters.peer_signals += 1;
                self.tell(next, Body::Signal(PeerSignal { hops: signal.hops + 1, ..signal }));
            }
            // Back to where it came from: that broker knew no better, and it
            // is for the sender to try again.
            Ok(Way::To(_)) => self.return_to_origin(&signal, Reason::Offline),
            Err(reason) => self.return_to_origin(&signal, reason),
        }
    }

    fn way_for_peer(&mut self, sender: DeviceId, receiver: Address, now: Now) -> Result<Way, Reason> {
        match (sender, receiver) {
            (DeviceId::Phone(session), Address::Farm(farm)) => self.route_to_farm(session, farm, now),
            (DeviceId::Phone(session), Address::Invitation(invitation)) => {
                self.route_to_holder(session, invitation, now)
            }
            // The farm's broker, which knows whom it may answer, let it pass.
            (DeviceId::Farm(_), Address::Phone(session)) => {
                self.way_to(DeviceId::Phone(session)).ok_or(Reason::Offline)
            }
            _ => Err(Reason::Offline),
        }
    }

    fn return_to_origin(&mut self, signal: &PeerSignal, reason: Reason) {
        let undelivered = PeerUndelivered { sender: signal.sender, receiver: signal.receiver, reason };
        self.tell(signal.origin, Body::Undelivered(undelivered));
    }

    /// A device's signal was not handed on by another broker.
    pub(super) fn peer_undelivered(&mut self, undelivered: PeerUndelivered) {
        let PeerUndelivered { sender, receiver, reason } = undelivered;
        let Ok(sender) = DeviceId::try_from(sender) else { return };
        if reason == Reason::Offline {
            self.counters.undelivered_offline += 1;
        }
        if let Some(connection) = self.states.connection_of(sender) {
            self.send(connection, FromBroker::Undelivered(Undelivered { peer: receiver, reason }));
        }
    }
}
