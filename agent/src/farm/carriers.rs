//! Sessions and their carriers: does what the lifecycle decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use farm_protocol::control::{Control, Farm as FarmInfo, GoodbyeReason, Hello, PairedPhone};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::SessionId;
use farm_protocol::keys::Nonce;
use farm_protocol::signal::{Content, OfferRefused};
use farm_tunnel::address_watch::carrier_addresses;
use farm_tunnel::carrier::{self, Carrier, CarrierId, Note};
use farm_tunnel::link;
use farm_tunnel::mux;
use farm_tunnel::peer::{KnownPath, Peer, PeerConfig, PeerError, PeerEvent};
use farm_tunnel::session::farm::{Action, Event};
use farm_tunnel::stream::Streams;

use super::Farm;
use crate::counters::Count;
use crate::forward;
use crate::state::PhoneRecord;

/// Candidates that came before their carrier was built.
const EARLY_CANDIDATES: usize = 64;

/// A session at work.
pub(super) struct SessionRuntime {
    pub(super) streams: Streams,
    pub(super) carriers: BTreeMap<Epoch, Slot>,
    pub(super) watched: bool,
    pub(super) known_path: KnownPath,
}

/// A carrier, from its offer on.
pub(super) enum Slot {
    /// The engine is at work on the answer; candidates wait.
    Building(Vec<String>),
    /// It answers, connects, or is open.
    Running { peer: Peer, carrier: Carrier },
}

/// An offer that is being handled.
pub(super) struct Offer {
    pub(super) nonce: Nonce,
    pub(super) sdp: String,
}

/// What an event brought along, for the actions that follow from it.
pub(super) enum Context {
    Offer(Offer),
    Hello(Hello),
}

/// An answer is ready, or the offer was of no use.
pub(super) struct Built {
    id: CarrierId,
    nonce: Nonce,
    result: Result<(Peer, async_channel::Receiver<PeerEvent>, String), PeerError>,
}

impl Farm {
    /// Does what the lifecycle wants after an event.
    pub(super) fn act(&mut self, context: Option<Context>) {
        let mut context = context;
        while let Some(action) = self.lifecycle.poll_action() {
            match action {
                Action::Refuse { session, epoch, reason, newest } => {
                    self.counters.add(match reason {
                        OfferRefused::Limit => Count::OffersOverLimit,
                        _ => Count::StaleOffers,
                    });
                    if let Some(Context::Offer(offer)) = &context {
                        let content =
                            Content::Refused { nonce: offer.nonce, reason, farm_boot: self.boot, newest };
                        self.say(session, epoch, content);
                    }
                }
                Action::Begin(session) => self.begin(session),
                Action::Connect(session, epoch) => {
                    if let Some(Context::Offer(offer)) = context.take() {
                        self.connect(CarrierId { session, epoch }, offer);
                    }
                }
                Action::Attach(session, epoch) => {
                    if let Some(Context::Hello(hello)) = context.take() {
                        self.attach(session, epoch, hello);
                    }
                }
                Action::Close(session, epoch, reason) => self.close(session, epoch, reason),
                Action::Park(session) => {
                    tracing::info!(%session, "parked: no carrier, its streams are kept for a while");
                }
                Action::End(session, reason) => {
                    tracing::info!(%session, reason = reason.explanation(), "session over");
                    if let Some(runtime) = self.sessions.remove(&session) {
                        runtime.streams.end(reason);
                        let carriers = runtime.carriers.into_iter();
                        self.closing.extend(carriers.map(|(epoch, slot)| ((session, epoch), slot)));
                    }
                    self.tidy.happened(Instant::now());
                }
            }
        }
    }

    fn begin(&mut self, session: SessionId) {
        tracing::info!(%session, "session begins");
        let (streams, incoming) = Streams::new(mux::Role::Farm);
        let serve = forward::serve(
            session,
            incoming,
            self.services.clone(),
            self.readings.clone(),
            self.counters.clone(),
        );
        farm_tunnel::executor::spawn(serve).detach();
        self.sessions.insert(
            session,
            SessionRuntime {
                streams,
                carriers: BTreeMap::new(),
                watched: true,
                known_path: KnownPath::default(),
            },
        );
    }

    fn connect(&mut self, id: CarrierId, offer: Offer) {
        let Some(runtime) = self.sessions.get_mut(&id.session) else { return };
        runtime.carriers.insert(id.epoch, Slot::Building(Vec::new()));
        let config = PeerConfig {
            ice_servers: self.dialer.ice_servers(self.welcome.as_ref()),
            relay: self.dialer.relay(),
            local_addresses: carrier_addresses(
                &self.config.local_addresses,
                self.dialer.remembered().map(|a| a.ip()),
            ),
            // Our own pings judge the carrier; ICE's consent checks are only the
            // last resort, and at their watched pace they would wake an idle
            // connection many times a second for as long as it lives.
            watched: false,
            known_path: runtime.known_path.clone(),
            ..PeerConfig::default()
        };
        let built = self.built.0.clone();
        farm_tunnel::executor::spawn(async move {
            let result = Peer::answer(config, &offer.sdp).await;
            // The agent is stopping: the peer is dropped and so closed.
            let _ = built.send(Built { id, nonce: offer.nonce, result }).await;
        })
        .detach();
    }

    pub(super) fn built(&mut self, built: Built) {
        let Built { id, nonce, result } = built;
        let Some(runtime) = self.sessions.get_mut(&id.session) else { return };
        let Some(Slot::Building(early)) = runtime.carriers.remove(&id.epoch) else { return };
        match result {
            Ok((peer, events, sdp)) => {
                let carrier = Carrier::start(carrier::Setup {
                    id,
                    boot: self.boot,
                    watched: runtime.watched,
                    streams: runtime.streams.clone(),
                    peer: self.faults.wrap(Arc::new(peer.clone())),
                    events,
                    notes: self.notes.0.clone(),
                    beat: self.progress.watch("carrier"),
                });
                early.into_iter().for_each(|line| add_candidate(&peer, line));
                runtime.carriers.insert(id.epoch, Slot::Running { peer, carrier });
                self.say(id.session, id.epoch, Content::Answer { nonce, sdp });
            }
            Err(error) => {
                self.counters.add(Count::BadDescriptions);
                tracing::info!(session = %id.session, %error, "an offer could not be answered");
                let content = Content::Refused {
                    nonce,
                    reason: OfferRefused::BadDescription,
                    farm_boot: self.boot,
                    newest: id.epoch,
                };
                self.say(id.session, id.epoch, content);
                self.lifecycle.handle(Event::Lost(id.session, id.epoch), Instant::now());
                self.act(None);
            }
        }
    }

    pub(super) fn candidate(&mut self, session: SessionId, epoch: Epoch, line: String) {
        match self.sessions.get_mut(&session).and_then(|s| s.carriers.get_mut(&epoch)) {
            Some(Slot::Building(early)) if early.len() < EARLY_CANDIDATES => early.push(line),
            Some(Slot::Running { peer, .. }) => add_candidate(peer, line),
            // Of a carrier that is over, or one too many.
            _ => {}
        }
    }

    pub(super) fn note(&mut self, id: CarrierId, note: Note) {
        let CarrierId { session, epoch } = id;
        let now = Instant::now();
        match note {
            Note::Candidate(candidate) => self.say(session, epoch, Content::Candidate { candidate }),
            Note::Opened => {
                self.lifecycle.handle(Event::Opened(session, epoch), now);
                self.act(None);
            }
            Note::Hello(hello) if hello.session == session && hello.epoch == epoch => {
                self.lifecycle.handle(Event::Hello(session, epoch), now);
                self.act(Some(Context::Hello(hello)));
            }
            Note::Hello(_) => {
                self.counters.add(Count::WrongHellos);
                self.close(session, epoch, GoodbyeReason::ProtocolError);
                self.lose(id, "its hello was for another carrier");
            }
            Note::Attention(watched) => {
                if let Some(runtime) = self.sessions.get_mut(&session) {
                    runtime.watched = watched;
                    for slot in runtime.carriers.values() {
                        if let Slot::Running { carrier, .. } = slot {
                            carrier.set_watched(watched);
                        }
                    }
                }
            }
            Note::Goodbye(GoodbyeReason::SessionEnded | GoodbyeReason::Stopping) => {
                self.lifecycle.handle(Event::Ended(session, epoch), now);
                self.act(None);
            }
            Note::Goodbye(_) => self.lose(id, "the phone left it"),
            Note::Lost(why) => {
                // The probe may have no former address to tell the new one from (two changes
                // within a second): the link to the broker must show that it lives, too.
                self.broker.event(link::Event::AddressChanged);
                self.lose(id, &why);
            }
            // The phone looks after it.
            Note::Path(kind) => tracing::info!(%session, %epoch, ?kind, "the carrier's path"),
            // Only farms say this.
            Note::Farm(_) => {}
        }
    }

    fn lose(&mut self, id: CarrierId, why: &str) {
        if let Some(runtime) = self.sessions.get_mut(&id.session)
            && runtime.carriers.remove(&id.epoch).is_some()
        {
            self.counters.add(Count::CarriersLost);
            if let Some(watch) = &self.watch {
                // Perhaps it is our path that is lost, or another one by now.
                watch.suspect();
            }
            tracing::info!(session = %id.session, epoch = %id.epoch, why, "carrier lost");
        }
        let now = Instant::now();
        self.tidy.happened(now);
        self.lifecycle.handle(Event::Lost(id.session, id.epoch), now);
        self.act(None);
    }

    fn attach(&mut self, session: SessionId, epoch: Epoch, hello: Hello) {
        let info = self.info();
        let Some(runtime) = self.sessions.get_mut(&session) else { return };
        runtime.watched = hello.watched;
        let Some(Slot::Running { carrier, .. }) = runtime.carriers.get(&epoch) else { return };
        self.counters.add(Count::CarriersAttached);
        tracing::info!(%session, %epoch, streams = hello.streams.len(), "carrier attached");
        carrier.set_watched(hello.watched);
        carrier.attach(hello.streams);
        carrier.send(Control::Farm(info));
        self.tidy.happened(Instant::now());
    }

    fn info(&self) -> FarmInfo {
        FarmInfo {
            name: self.config.name.clone(),
            services: self.config.services.iter().map(|s| s.service.clone()).collect(),
            phones: self.state.phones().map_or_else(
                |error| {
                    tracing::error!(%error, "the phones could not be read");
                    Vec::new()
                },
                |phones| {
                    let told = |(id, record): (_, PhoneRecord)| PairedPhone { id, name: record.name };
                    phones.into_iter().map(told).collect()
                },
            ),
            absences: self.absences(),
        }
    }

    /// Name, services and phones are other ones: all who are connected hear it.
    pub(super) fn tell_info(&self) {
        for runtime in self.sessions.values() {
            for slot in runtime.carriers.values() {
                if let Slot::Running { carrier, .. } = slot {
                    carrier.send(Control::Farm(self.info()));
                }
            }
        }
    }

    fn close(&mut self, session: SessionId, epoch: Epoch, reason: GoodbyeReason) {
        let live = self.sessions.get_mut(&session).and_then(|s| s.carriers.remove(&epoch));
        if let Some(Slot::Running { carrier, .. }) = live.or_else(|| self.closing.remove(&(session, epoch))) {
            carrier.close(reason);
        }
    }

    pub(super) fn suspect_carriers(&self) {
        for runtime in self.sessions.values() {
            for slot in runtime.carriers.values() {
                if let Slot::Running { carrier, .. } = slot {
                    carrier.suspect();
                }
            }
        }
    }
}

fn add_candidate(peer: &Peer, line: String) {
    let peer = peer.clone();
    farm_tunnel::executor::spawn(async move {
        if let Err(error) = peer.add_candidate(&line).await {
            tracing::debug!(%error, "a candidate is of no use");
        }
    })
    .detach();
}
