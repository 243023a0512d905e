//! Carriers: does what the session decides.

use std::sync::Arc;
use std::time::Instant;

use farm_protocol::control::{GoodbyeReason, Hello};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, SessionId};
use farm_protocol::keys::Nonce;
use farm_protocol::signal::{Content, PeerSignal};
use farm_tunnel::address_watch::carrier_addresses;
use farm_tunnel::carrier::{self, Carrier, CarrierId, Note};
use farm_tunnel::peer::{PathKind, Peer, PeerConfig, PeerError, PeerEvent};
use farm_tunnel::progress::Beat;
use farm_tunnel::recovery::Ways;
use farm_tunnel::session::phone::{Action, Event, State};

use super::worker::Worker;

/// A carrier, from its decision on.
pub(super) enum Slot {
    /// The engine is at work on the offer.
    Building,
    /// Offered, connecting, or open.
    Running { peer: Peer, carrier: Carrier, nonce: Nonce },
}

/// An offer is ready, or could not be made.
pub(super) struct Built {
    session: SessionId,
    epoch: Epoch,
    farm_boot: BootId,
    result: Result<(Peer, async_channel::Receiver<PeerEvent>, String), PeerError>,
}

impl Worker {
    /// Does what the session wants after an event; `hello` is what it was about.
    pub(super) fn act(&mut self, hello: Option<Hello>) {
        let mut hello = hello;
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Offer { epoch, farm_boot, ways } => self.offer(epoch, farm_boot, ways),
                Action::Attach(epoch) => {
                    if let (Some(Slot::Running { carrier, .. }), Some(hello)) =
                        (self.carriers.get(&epoch), hello.take())
                    {
                        tracing::info!(%epoch, streams = hello.streams.len(), "carrier attached");
                        carrier.attach(hello.streams);
                        self.carriers_attached += 1;
                    }
                }
                Action::Close(epoch, reason) => {
                    if let Some(Slot::Running { carrier, .. }) = self.carriers.remove(&epoch) {
                        carrier.close(reason);
                    }
                }
                Action::Probe(epoch) => {
                    if let Some(Slot::Running { carrier, .. }) = self.carriers.get(&epoch) {
                        carrier.suspect();
                    }
                }
                Action::Changed => {
                    let shown = self.session.snapshot();
                    self.pairing.session(shown.state);
                    if let Some(watch) = self.watch.as_ref().filter(|_| shown.state != State::Live) {
                        // Perhaps it is our path that is lost: who waits for the
                        // farm must know at once when it is back.
                        watch.suspect();
                    }
                    tracing::info!(
                        state = shown.state.name(),
                        failure = shown.failure.map(|f| f.name()),
                        strategy = shown.strategy.map(|s| s.name()),
                        attempt = shown.attempt,
                        "session"
                    );
                }
                Action::TakeAnotherSlot => self.take_another_slot(Instant::now()),
                Action::Ended => {}
            }
        }
    }

    fn offer(&mut self, epoch: Epoch, farm_boot: BootId, ways: Ways) {
        tracing::debug!(%epoch, ways = ways.name(), "offering a carrier");
        self.carriers.insert(epoch, Slot::Building);
        let config = PeerConfig {
            ice_servers: self.dialer.ice_servers(self.welcome.as_ref()),
            relay: self.dialer.relay(),
            ways,
            local_addresses: carrier_addresses(&[], self.dialer.remembered().map(|a| a.ip())),
            // Our own pings judge the carrier; ICE's consent checks are only the
            // last resort, and at their watched pace they would wake an idle
            // connection many times a second for as long as it lives.
            watched: false,
            known_path: self.known_path.clone(),
            ..PeerConfig::default()
        };
        let (built, session) = (self.built.0.clone(), self.session_id);
        farm_tunnel::executor::spawn(async move {
            let result = Peer::offer(config).await;
            // The tunnel has stopped: the peer is dropped and so closed.
            let _ = built.send(Built { session, epoch, farm_boot, result }).await;
        })
        .detach();
    }

    pub(super) fn built(&mut self, built: Built, now: Instant) {
        let Built { session, epoch, farm_boot, result } = built;
        if session != self.session_id || !matches!(self.carriers.get(&epoch), Some(Slot::Building)) {
            return;
        }
        let made = result.map_err(|e| e.to_string()).and_then(|made| {
            Nonce::generate(&self.random).map(|nonce| (made, nonce)).map_err(|e| e.to_string())
        });
        match made {
            Ok(((peer, events, sdp), nonce)) => {
                let carrier = Carrier::start(carrier::Setup {
                    id: CarrierId { session: self.session_id, epoch },
                    boot: self.boot,
                    watched: self.watched,
                    streams: self.streams.clone(),
                    peer: self.faults.wrap(Arc::new(peer.clone())),
                    events,
                    notes: self.notes.0.clone(),
                    beat: Beat::unwatched(),
                });
                self.carriers.insert(epoch, Slot::Running { peer, carrier, nonce });
                self.say(epoch, Content::Offer { nonce, phone_boot: self.boot, farm_boot, sdp });
            }
            Err(error) => {
                tracing::warn!(error, "no offer could be made");
                self.carriers.remove(&epoch);
                self.session.handle(Event::Lost(epoch), now);
            }
        }
    }

    /// A verified signal of the farm's.
    pub(super) fn peer_signal(&mut self, signal: PeerSignal, now: Instant) {
        let epoch = signal.epoch;
        let Some(Slot::Running { peer, nonce: ours, .. }) = self.carriers.get(&epoch) else { return };
        match signal.content {
            Content::Answer { nonce, sdp } if nonce == *ours => {
                let peer = peer.clone();
                let (notes, id) = (self.notes.0.clone(), CarrierId { session: self.session_id, epoch });
                farm_tunnel::executor::spawn(async move {
                    if let Err(error) = peer.accept_answer(&sdp).await {
                        // The tunnel may have stopped.
                        let _ = notes.send((id, Note::Lost(format!("the farm's answer: {error}")))).await;
                    }
                })
                .detach();
                self.session.handle(Event::Answered(epoch), now);
            }
            Content::Refused { nonce, reason, farm_boot, newest } if nonce == *ours => {
                tracing::info!(reason = reason.explanation(), "the farm refused an offer");
                self.session.handle(Event::Refused { epoch, reason, farm_boot, newest }, now);
            }
            Content::Candidate { candidate } => {
                let peer = peer.clone();
                farm_tunnel::executor::spawn(async move {
                    if let Err(error) = peer.add_candidate(&candidate).await {
                        tracing::debug!(%error, "a candidate is of no use");
                    }
                })
                .detach();
            }
            Content::Goodbye {} => self.session.handle(Event::Lost(epoch), now),
            // An answer to another question, or what only phones say.
            _ => {}
        }
    }

    pub(super) fn note(&mut self, id: CarrierId, note: Note, now: Instant) {
        if id.session != self.session_id {
            // Of the session that another device took over.
            return;
        }
        let epoch = id.epoch;
        match note {
            Note::Candidate(candidate) => self.say(epoch, Content::Candidate { candidate }),
            Note::Opened => self.session.handle(Event::Opened(epoch), now),
            Note::Hello(hello) if hello.session == self.session_id && hello.epoch == epoch => {
                self.session.handle(Event::Hello(epoch), now);
                self.act(Some(hello));
            }
            Note::Hello(_) => {
                if let Some(Slot::Running { carrier, .. }) = self.carriers.remove(&epoch) {
                    carrier.close(GoodbyeReason::ProtocolError);
                }
                self.session.handle(Event::Lost(epoch), now);
            }
            Note::Farm(info) => {
                self.recorder.farm_was_away(&info.absences, now);
                self.info = Some(info);
            }
            Note::Goodbye(reason) => self.session.handle(Event::Goodbye(epoch, reason), now),
            Note::Lost(why) => {
                if self.carriers.remove(&epoch).is_some() {
                    tracing::info!(%epoch, why, "carrier lost");
                }
                self.session.handle(Event::Lost(epoch), now);
            }
            Note::Path(kind) => {
                tracing::info!(%epoch, ?kind, "the carrier's path");
                self.session.handle(Event::Path { epoch, relayed: kind == PathKind::Relayed }, now);
            }
            // Only phones say this.
            Note::Attention(_) => {}
        }
    }
}
