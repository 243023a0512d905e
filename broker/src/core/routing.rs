//! Signal routing: between a farm and the phones that it lists, and from
//! phones with an invitation. Nothing is parsed; the sender's address is the
//! broker's word, never the sender's.

use farm_protocol::broker::{
    Address, FromBroker, MAX_SIGNAL, RefusedReason, Signal, Undelivered, UndeliveredReason as Reason,
};
use farm_protocol::id::{FarmId, InvitationId, SessionId};

use super::cluster::Way;
use super::connection_state::DeviceId;
use super::event::{ConnectionId, Now};
use super::{Core, Phase, limits};

impl Core {
    /// Hands a signal on, or tells the sender that it was not.
    pub(super) fn signal(&mut self, connection: ConnectionId, device: DeviceId, signal: Signal, now: Now) {
        let peer = signal.peer;
        let routed = self
            .check_signal(connection, device, &signal, now)
            .and_then(|()| self.route(connection, device, peer, now));
        match routed {
            Ok(Way::To(broker)) => self.signal_to_peer(broker, device, signal),
            Ok(Way::Here(receiver)) => {
                self.counters.signals += 1;
                let signal = Signal { peer: device.into(), payload: signal.payload };
                self.send(receiver, FromBroker::Signal(signal));
            }
            Err(reason) => {
                if reason == Reason::Offline {
                    self.counters.undelivered_offline += 1;
                }
                let undelivered = Undelivered { peer, reason };
                self.send(connection, FromBroker::Undelivered(undelivered));
                if reason == Reason::Limit {
                    self.strike(connection, device, peer, now);
                }
            }
        }
    }

    fn check_signal(
        &mut self,
        connection: ConnectionId,
        device: DeviceId,
        signal: &Signal,
        now: Now,
    ) -> Result<(), Reason> {
        if signal.payload.len() > MAX_SIGNAL {
            self.counters.limit_signal_size += 1;
            return Err(Reason::Limit);
        }
        let rate = match device {
            DeviceId::Farm(_) => self.settings.limits.farm_signals,
            DeviceId::Phone(_) => self.settings.limits.phone_signals,
        };
        let sender = self.connections.get_mut(&connection).and_then(Phase::device);
        if !sender.is_some_and(|sender| sender.signals.take(rate, 1, now.instant)) {
            self.counters.limit_signals += 1;
            return Err(Reason::Limit);
        }
        Ok(())
    }

    /// A phone that was told of a limit and goes on all the same is sent away:
    /// being told costs as much as being heard. A farm that answers many phones
    /// may meet a limit without fault.
    fn strike(&mut self, connection: ConnectionId, device: DeviceId, peer: Address, now: Now) {
        let DeviceId::Phone(_) = device else { return };
        let cost = if let Address::Invitation(_) = peer { limits::GUESS_STRIKES } else { 1 };
        let rate = self.settings.limits.strikes;
        let sender = self.connections.get_mut(&connection).and_then(Phase::device);
        if !sender.is_some_and(|sender| sender.strikes.take(rate, cost, now.instant)) {
            self.counters.limit_strikes += 1;
            self.refuse(connection, RefusedReason::Limit, now);
        }
    }

    /// The way to the receiver, if the sender may reach it.
    fn route(
        &mut self,
        connection: ConnectionId,
        sender: DeviceId,
        receiver: Address,
        now: Now,
    ) -> Result<Way, Reason> {
        match (sender, receiver) {
            (DeviceId::Phone(session), Address::Farm(farm)) => self.route_to_farm(session, farm, now),
            (DeviceId::Phone(session), Address::Invitation(invitation)) => {
                self.route_to_invitation(connection, session, invitation, now)
            }
            (DeviceId::Farm(farm), Address::Phone(session)) => {
                let seen = self.farms.seen(farm);
                let may = seen.is_some_and(|seen| seen.may_answer(session, now.instant));
                let receiver = self.way_to(DeviceId::Phone(session));
                receiver.filter(|_| may).ok_or(Reason::Offline)
            }
            // Farms don't talk to farms, nor phones to phones.
            _ => Err(Reason::Offline),
        }
    }

    pub(super) fn route_to_farm(
        &mut self,
        session: SessionId,
        farm: FarmId,
        now: Now,
    ) -> Result<Way, Reason> {
        let most = self.settings.limits.exchanges_per_farm;
        let receiver = self.way_to(DeviceId::Farm(farm));
        let seen = self.farms.seen_mut(farm).filter(|seen| seen.hears(session.phone));
        let seen = seen.ok_or(Reason::Offline)?;
        let receiver = receiver.ok_or(Reason::Offline)?;
        // So that a farm which revokes the phone meanwhile can still say so.
        seen.exchange(session, most, now.instant);
        Ok(receiver)
    }

    fn route_to_invitation(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        invitation: InvitationId,
        now: Now,
    ) -> Result<Way, Reason> {
        let limits = &self.settings.limits;
        let sender = self.connections.get_mut(&connection).and_then(Phase::device);
        let rate = limits.pairing_per_phone;
        if !sender.is_some_and(|sender| sender.pairing.take(rate, 1, now.instant)) {
            self.counters.limit_pairing += 1;
            return Err(Reason::Limit);
        }
        self.route_to_holder(session, invitation, now)
    }

    /// The way to the farm that holds an invitation.
    pub(super) fn route_to_holder(
        &mut self,
        session: SessionId,
        invitation: InvitationId,
        now: Now,
    ) -> Result<Way, Reason> {
        let limits = &self.settings.limits;
        let farm = self.farms.holder(invitation).ok_or(Reason::Offline)?;
        let receiver = self.way_to(DeviceId::Farm(farm)).ok_or(Reason::Offline)?;
        let seen = self.farms.seen_mut(farm).ok_or(Reason::Offline)?;
        if !seen.pairing.take(limits.pairing_per_farm, 1, now.instant) {
            self.counters.limit_pairing += 1;
            return Err(Reason::Limit);
        }
        seen.exchange(session, limits.exchanges_per_farm, now.instant);
        Ok(receiver)
    }
}
