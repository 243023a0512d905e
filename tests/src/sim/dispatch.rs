//! Hands every event to whom it is for.

use std::time::Duration;

use farm_tunnel::ip_change;

use super::carrier::CarrierEnd;
use super::ctx::{Ctx, Event, NodeId};
use super::pipe::{Parcel, Sink, Tick};
use super::world::World;

/// Every so many events the device that had one is looked at.
const CHECK_EVERY: u64 = 4;

impl World {
    /// Hands an event to whom it is for.
    pub fn handle(&mut self, event: Event) {
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
            Event::Netlink(_, address, up) => {
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
            Event::PeerOpen(peer) => self.peer_opens(peer),
            Event::Reflexive(peer) => self.reflexive(peer),
            Event::Consent(peer) => self.consent(peer),
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

    fn peer_opens(&mut self, peer: u64) {
        if self.ctx.peer_opens(peer) {
            self.carry(peer, CarrierEnd::opened);
        }
    }

    fn reflexive(&mut self, peer: u64) {
        if self.ctx.learns_reflexive(peer) && !self.candidate(peer) {
            // Told once the description has left.
            self.ctx.schedule(self.ctx.now + Duration::from_millis(5), Event::Reflexive(peer));
        }
    }

    fn consent(&mut self, peer: u64) {
        if self.ctx.consent(peer) {
            self.carry(peer, |c, end, ctx| c.lost("unreachable".to_owned(), end, ctx));
        }
    }

    fn wake_broker(&mut self) {
        if self.broker_wake == Some(self.ctx.now) {
            self.broker_wake = None;
            self.broker.handle_timeout(&mut self.ctx);
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
            Event::BrokerWake => self.wake_broker(),
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
}
