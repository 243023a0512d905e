//! A farm: the agent's loop (`agent/src/farm`) on the virtual network.

use std::collections::BTreeMap;
use std::time::Instant;

use farm_protocol::broker::{Access, Address, FromBroker, Role, Signal, ToBroker};
use farm_protocol::codec;
use farm_protocol::control::{Control, Farm as FarmInfo, GoodbyeReason, Hello};
use farm_protocol::epoch::Epoch;
use farm_protocol::frame::ResetReason;
use farm_protocol::id::{BootId, FarmId, PhoneId, SessionId};
use farm_protocol::keys::{Nonce, PublicKey};
use farm_protocol::signal::{Content, Expected, OfferRefused, Payload, PeerSignal, Signed};
use farm_tunnel::address_watch::Told;
use farm_tunnel::broker_socket::BrokerEvent;
use farm_tunnel::carrier::{CarrierId, Note};
use farm_tunnel::ip_change::{self, Verdict};
use farm_tunnel::link;
use farm_tunnel::session::farm::{Action, Due, Event, Lifecycle};

use super::carrier::{CarrierEnd, PeerId};
use super::ctx::{self, Ctx};
use super::device::{BrokerLink, Identity, Watch};
use super::mutation::Mutation;
use super::peer;
use super::traffic::{SessionEnd, Side};

/// Candidates that came before their carrier was built.
const EARLY_CANDIDATES: usize = 64;

/// A carrier, from its offer on.
pub enum Slot {
    /// The engine is at work on the answer; candidates wait.
    Building {
        /// Its engine.
        peer: PeerId,
        /// The offer's.
        nonce: Nonce,
        /// The offer's.
        sdp: String,
        /// Candidates.
        early: Vec<String>,
    },
    /// It answers, connects, or is open.
    Running(CarrierEnd),
}

/// A session at work.
pub struct Runtime {
    /// Its streams.
    pub end: SessionEnd,
    /// Its carriers.
    pub carriers: BTreeMap<Epoch, Slot>,
    watched: bool,
}

struct Offer {
    nonce: Nonce,
    sdp: String,
}

enum Context {
    Offer(Offer),
    Hello(Hello),
}

/// The card in the device: what survives.
#[derive(Debug, Clone)]
pub struct Card {
    /// Starts counted.
    pub starts: u64,
    /// Paired phones.
    pub phones: BTreeMap<PhoneId, PublicKey>,
}

/// A running agent.
pub struct Process {
    identity: Identity,
    id: FarmId,
    /// This run.
    pub boot: BootId,
    /// Counts the runs.
    pub run: u64,
    /// Its newest epoch.
    pub epoch: Epoch,
    start: Epoch,
    jumped: bool,
    phones: BTreeMap<PhoneId, PublicKey>,
    /// The link to the broker.
    pub link: BrokerLink,
    /// The address watch.
    pub watch: Watch,
    /// The core.
    pub lifecycle: Lifecycle,
    /// Sessions at work.
    pub sessions: BTreeMap<SessionId, Runtime>,
    closing: BTreeMap<(SessionId, Epoch), Slot>,
    /// The newest epoch that an accepted offer was signed with.
    accepted: BTreeMap<SessionId, Epoch>,
    /// Which phone of the world has a session, for the plans.
    who: BTreeMap<PhoneId, usize>,
    /// Starts to be written to the card.
    pub count: Option<u64>,
}

impl Process {
    /// The agent starts; the start was counted on the card already.
    pub fn new(identity: Identity, card: &Card, who: BTreeMap<PhoneId, usize>, ctx: &mut Ctx) -> Self {
        let run = ctx.number();
        let boot = BootId::from_bytes(ctx.rng.bytes());
        let epoch = Epoch::of_start(card.starts);
        let link = BrokerLink::new(identity.clone(), boot, run, epoch, ctx);
        let watch = Watch::new(&identity, run, ctx);
        let mut process = Self {
            id: FarmId::of(&identity.key.public()),
            identity,
            boot,
            run,
            epoch,
            start: epoch,
            jumped: false,
            phones: card.phones.clone(),
            link,
            watch,
            lifecycle: Lifecycle::new(boot),
            sessions: BTreeMap::new(),
            closing: BTreeMap::new(),
            accepted: BTreeMap::new(),
            who,
            count: None,
        };
        let events = process.link.event(link::Event::Start, ctx);
        process.broker_events(events, ctx);
        process
    }

    /// The next deadline.
    pub fn poll_timeout(&self, ctx: &Ctx) -> Option<Instant> {
        let lifecycle = self.lifecycle_due(ctx).map(|(at, _)| at);
        let link = self.link.link.poll_timeout().map(|(at, _)| at);
        let link = link.filter(|_| !ctx.is_mutated(Mutation::LinkTimer));
        let watch = self.watch.detector.poll_timeout().map(|(at, _)| at);
        let sessions = self.sessions.values().flat_map(|runtime| {
            let carriers = runtime.carriers.values().filter_map(|slot| match slot {
                Slot::Running(carrier) => carrier.poll_timeout(),
                Slot::Building { .. } => None,
            });
            carriers.chain(runtime.end.poll_timeout(ctx.now))
        });
        lifecycle.into_iter().chain(link).chain(watch).chain(sessions).min()
    }

    fn lifecycle_due(&self, ctx: &Ctx) -> Option<(Instant, Due)> {
        let due = self.lifecycle.poll_timeout();
        match ctx.mutation {
            Some(Mutation::FarmTimer) => None,
            Some(Mutation::NoExpiry) => due.filter(|(_, why)| *why != Due::Expiry),
            _ => due,
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, ctx: &mut Ctx) {
        if self.link.link.poll_timeout().is_some_and(|(at, _)| at <= ctx.now) {
            let events = self.link.handle_timeout(ctx);
            self.broker_events(events, ctx);
        }
        if self.watch.detector.poll_timeout().is_some_and(|(at, _)| at <= ctx.now) {
            let told = self.watch.handle_timeout(ctx);
            self.told(told, ctx);
        }
        if self.lifecycle_due(ctx).is_some_and(|(at, _)| at <= ctx.now) {
            self.lifecycle.handle_timeout(ctx.now);
            if self.lifecycle_due(ctx).is_some_and(|(at, _)| at <= ctx.now) {
                ctx.violate("deadlines", format!("the lifecycle of {:?} is still due", self.identity.node));
            }
            self.act(None, ctx);
        }
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in ids {
            for id in self.carrier_ids(session) {
                self.with(id, ctx, CarrierEnd::handle_timeout);
            }
            if let Some(runtime) = self.sessions.get_mut(&session) {
                runtime.end.run(ctx);
            }
            self.flow(session, ctx);
        }
    }

    fn carrier_ids(&self, session: SessionId) -> Vec<CarrierId> {
        let carriers = self.sessions.get(&session).into_iter().flat_map(|r| r.carriers.keys());
        carriers.map(|epoch| CarrierId { session, epoch: *epoch }).collect()
    }

    /// Lets a session's carriers send what there is.
    fn flow(&mut self, session: SessionId, ctx: &mut Ctx) {
        for id in self.carrier_ids(session) {
            self.with(id, ctx, CarrierEnd::pump);
        }
    }

    /// Works on a carrier, and takes what it reports.
    pub fn with(
        &mut self,
        id: CarrierId,
        ctx: &mut Ctx,
        work: impl FnOnce(&mut CarrierEnd, &mut SessionEnd, &mut Ctx),
    ) {
        let Some(runtime) = self.sessions.get_mut(&id.session) else { return };
        let Some(Slot::Running(carrier)) = runtime.carriers.get_mut(&id.epoch) else { return };
        work(carrier, &mut runtime.end, ctx);
        for note in carrier.take_notes() {
            self.note(id, note, ctx);
        }
    }

    /// Something came on a carrier: hands it over, and lets the streams go on.
    pub fn carry(
        &mut self,
        id: CarrierId,
        ctx: &mut Ctx,
        work: impl FnOnce(&mut CarrierEnd, &mut SessionEnd, &mut Ctx),
    ) {
        self.with(id, ctx, work);
        self.flow(id.session, ctx);
    }

    /// What the link tells.
    pub fn broker_events(&mut self, events: Vec<BrokerEvent>, ctx: &mut Ctx) {
        for event in events {
            self.broker_event(event, ctx);
        }
    }

    fn broker_event(&mut self, event: BrokerEvent, ctx: &mut Ctx) {
        match event {
            BrokerEvent::State(state) => {
                let node = self.identity.node;
                ctx.note(|| format!("{node:?}: link {}", state.name()));
                let vouched = ip_change::Event::Vouched(state == link::State::Online);
                let told = self.watch.event(vouched, ctx);
                self.told(told, ctx);
            }
            BrokerEvent::Online(welcome) => {
                self.tell_access(ctx);
                let mut told = self.watch.probe_target(ctx);
                if let Ok(observed) = welcome.observed.parse::<std::net::SocketAddr>() {
                    told.extend(self.watch.event(ip_change::Event::BrokerEcho(observed.ip()), ctx));
                }
                self.told(told, ctx);
            }
            BrokerEvent::Message(FromBroker::Signal(signal)) => {
                self.signal(signal.peer, &signal.payload, ctx)
            }
            BrokerEvent::Message(_) | BrokerEvent::Superseded => {}
            BrokerEvent::StaleEpoch(newest) => {
                if std::mem::replace(&mut self.jumped, true) || newest.is_absurd_after(self.start) {
                    return;
                }
                let starts = newest.starts() + 1;
                self.count = Some(starts);
                self.start = Epoch::of_start(starts);
                self.epoch = self.start;
                let mut events = self.link.set_epoch(self.epoch, ctx);
                events.extend(self.link.event(link::Event::Start, ctx));
                self.broker_events(events, ctx);
            }
        }
    }

    fn tell_access(&mut self, ctx: &mut Ctx) {
        let access = Access { phones: self.phones.keys().copied().collect(), ..Access::default() };
        self.link.send(ToBroker::Access(access), ctx);
    }

    /// What the address watch tells.
    pub fn told(&mut self, told: Vec<Told>, ctx: &mut Ctx) {
        for told in told {
            let change = match told {
                Told::ProbeAnswered(_) => {
                    let events = self.link.event(link::Event::ProbeAnswered, ctx);
                    self.broker_events(events, ctx);
                    continue;
                }
                Told::Verdict(Verdict::ProbeLost) => {
                    let events = self.link.event(link::Event::ProbeLost, ctx);
                    self.broker_events(events, ctx);
                    continue;
                }
                Told::Verdict(Verdict::PathBack) => {
                    if self.lifecycle.snapshot().iter().any(|session| session.live.is_none()) {
                        self.new_epoch(ctx);
                    }
                    let events = self.link.event(link::Event::PathBack, ctx);
                    self.broker_events(events, ctx);
                    continue;
                }
                Told::Verdict(Verdict::Changed(_)) => link::NetworkChange::AddressChanged,
                Told::Verdict(Verdict::Online) => link::NetworkChange::Up,
                Told::Verdict(Verdict::Offline) => link::NetworkChange::Down,
            };
            let node = self.identity.node;
            ctx.note(|| format!("{node:?}: network {change:?}"));
            if change != link::NetworkChange::Down {
                self.new_epoch(ctx);
            }
            let events = self.link.event(link::Event::NetworkChanged(change), ctx);
            self.broker_events(events, ctx);
            if change == link::NetworkChange::Down {
                self.suspect_carriers(ctx);
            }
        }
    }

    fn new_epoch(&mut self, ctx: &mut Ctx) {
        self.epoch = self.epoch.next();
        let events = self.link.set_epoch(self.epoch, ctx);
        self.broker_events(events, ctx);
        self.suspect_carriers(ctx);
    }

    fn suspect_carriers(&mut self, ctx: &mut Ctx) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            for id in self.carrier_ids(session) {
                self.with(id, ctx, CarrierEnd::suspect);
            }
        }
    }

    fn signal(&mut self, from: Address, payload: &[u8], ctx: &mut Ctx) {
        let Address::Phone(session) = from else { return };
        let Ok(Payload::Signed(signed)) = codec::decode::<Payload>(payload) else {
            ctx.stats.unbelieved += 1;
            return;
        };
        self.signed(session, &signed, ctx);
    }

    fn signed(&mut self, session: SessionId, signed: &Signed, ctx: &mut Ctx) {
        let Some(key) = self.phones.get(&session.phone) else { return };
        let expected = Expected { key, from: Role::Phone, farm: self.id, session };
        match signed.open(expected) {
            Ok(signal) => self.peer_signal(signal, ctx),
            Err(_) => ctx.stats.unbelieved += 1,
        }
    }

    fn peer_signal(&mut self, signal: PeerSignal, ctx: &mut Ctx) {
        let PeerSignal { session, epoch, content, .. } = signal;
        match content {
            Content::Offer { nonce, phone_boot, farm_boot, sdp } => {
                let mut taken_as = epoch;
                if ctx.is_mutated(Mutation::OldEpoch)
                    && let Some(known) = self.accepted.get(&session).filter(|known| epoch <= **known)
                {
                    taken_as = known.next();
                }
                let event = Event::Offer { session, epoch: taken_as, phone_boot, farm_boot };
                self.lifecycle.handle(event, ctx.now);
                let accepted = self.act(Some(Context::Offer(Offer { nonce, sdp })), ctx);
                if accepted {
                    let former = self.accepted.insert(session, epoch);
                    if former.is_some_and(|former| epoch <= former) {
                        ctx.violate("epochs", format!("the farm took epoch {epoch} after {former:?}"));
                    }
                }
            }
            Content::Candidate { candidate } => self.candidate(session, epoch, candidate, ctx),
            Content::Goodbye {} => {
                self.lifecycle.handle(Event::Ended(session, epoch), ctx.now);
                self.act(None, ctx);
            }
            Content::Answer { .. } | Content::Refused { .. } => {}
        }
    }

    fn candidate(&mut self, session: SessionId, epoch: Epoch, line: String, ctx: &mut Ctx) {
        match self.sessions.get_mut(&session).and_then(|s| s.carriers.get_mut(&epoch)) {
            Some(Slot::Building { early, .. }) if early.len() < EARLY_CANDIDATES => early.push(line),
            Some(Slot::Running(carrier)) => ctx.candidate(carrier.peer, &line),
            _ => {}
        }
    }

    /// Does what the lifecycle wants; says whether an offer was taken.
    fn act(&mut self, context: Option<Context>, ctx: &mut Ctx) -> bool {
        let mut context = context;
        let mut accepted = false;
        while let Some(action) = self.lifecycle.poll_action() {
            match action {
                Action::Refuse { session, epoch, reason, newest } => {
                    if let Some(Context::Offer(offer)) = &context {
                        let content =
                            Content::Refused { nonce: offer.nonce, reason, farm_boot: self.boot, newest };
                        self.say(session, epoch, content, ctx);
                    }
                }
                Action::Begin(session) => {
                    let runtime = Runtime {
                        end: SessionEnd::new(Side::Farm),
                        carriers: BTreeMap::new(),
                        watched: true,
                    };
                    self.sessions.insert(session, runtime);
                }
                Action::Connect(session, epoch) => {
                    if let Some(Context::Offer(offer)) = context.take() {
                        accepted = true;
                        self.connect(CarrierId { session, epoch }, offer, ctx);
                    }
                }
                Action::Attach(session, epoch) => {
                    if let Some(Context::Hello(hello)) = context.take() {
                        self.attach(session, epoch, hello, ctx);
                    }
                }
                Action::Close(session, epoch, reason) => {
                    if !(ctx.is_mutated(Mutation::KeepOldCarrier) && reason == GoodbyeReason::Superseded) {
                        self.close(session, epoch, reason, ctx);
                    }
                }
                Action::Park(session) => ctx.note(|| format!("farm parks {session}")),
                Action::End(session, reason) => self.end(session, reason, ctx),
            }
        }
        accepted
    }

    fn end(&mut self, session: SessionId, reason: ResetReason, ctx: &mut Ctx) {
        ctx.note(|| format!("farm ends {session}: {}", reason.explanation()));
        let Some(mut runtime) = self.sessions.remove(&session) else { return };
        if let Some(phone) = self.who.get(&session.phone) {
            ctx.bereave(|plan| plan.phone == *phone, reason);
        }
        runtime.end.streams.end(reason);
        runtime.end.run(ctx);
        for (epoch, slot) in runtime.carriers {
            let slot = match slot {
                Slot::Running(mut carrier) => {
                    carrier.tell_resets(GoodbyeReason::SessionEnded, &mut runtime.end, ctx);
                    Slot::Running(carrier)
                }
                building => building,
            };
            self.closing.insert((session, epoch), slot);
        }
    }

    fn connect(&mut self, id: CarrierId, offer: Offer, ctx: &mut Ctx) {
        let (node, run, host) = (self.identity.node, self.run, self.identity.host);
        let Some(runtime) = self.sessions.get_mut(&id.session) else { return };
        let peer = ctx.new_peer(node, run, host, id);
        let slot = Slot::Building { peer, nonce: offer.nonce, sdp: offer.sdp, early: Vec::new() };
        runtime.carriers.insert(id.epoch, slot);
        let takes = ctx.rng.ms(2, 30);
        ctx.schedule(ctx.now + takes, ctx::Event::Built(node, run, id));
    }

    /// Whether the engine is still at work on the answer.
    pub fn is_building(&self, id: CarrierId) -> bool {
        let slot = self.sessions.get(&id.session).and_then(|s| s.carriers.get(&id.epoch));
        matches!(slot, Some(Slot::Building { .. }))
    }

    /// The engine is ready to answer, or the offer was of no use.
    pub fn built(&mut self, id: CarrierId, ctx: &mut Ctx) {
        let Some(runtime) = self.sessions.get_mut(&id.session) else { return };
        let Some(Slot::Building { peer, nonce, sdp, early }) = runtime.carriers.remove(&id.epoch) else {
            return;
        };
        if ctx.describe(peer, &sdp) {
            let carrier = CarrierEnd::new(id, peer, self.boot, runtime.watched);
            early.iter().for_each(|line| ctx.candidate(peer, line));
            runtime.carriers.insert(id.epoch, Slot::Running(carrier));
            let content = Content::Answer { nonce, sdp: peer::sdp(peer) };
            self.say(id.session, id.epoch, content, ctx);
        } else {
            let content = Content::Refused {
                nonce,
                reason: OfferRefused::BadDescription,
                farm_boot: self.boot,
                newest: id.epoch,
            };
            self.say(id.session, id.epoch, content, ctx);
            self.lifecycle.handle(Event::Lost(id.session, id.epoch), ctx.now);
            self.act(None, ctx);
        }
    }

    /// A carrier reports.
    pub fn note(&mut self, id: CarrierId, note: Note, ctx: &mut Ctx) {
        let CarrierId { session, epoch } = id;
        match note {
            Note::Candidate(candidate) => self.say(session, epoch, Content::Candidate { candidate }, ctx),
            Note::Opened => {
                self.lifecycle.handle(Event::Opened(session, epoch), ctx.now);
                self.act(None, ctx);
            }
            Note::Hello(hello) if hello.session == session && hello.epoch == epoch => {
                self.lifecycle.handle(Event::Hello(session, epoch), ctx.now);
                self.act(Some(Context::Hello(hello)), ctx);
            }
            Note::Hello(_) => {
                self.close(session, epoch, GoodbyeReason::ProtocolError, ctx);
                self.lose(id, "its hello was for another carrier", ctx);
            }
            Note::Attention(watched) => {
                let Some(runtime) = self.sessions.get_mut(&session) else { return };
                runtime.watched = watched;
                for id in self.carrier_ids(session) {
                    self.with(id, ctx, |carrier, end, ctx| carrier.set_watched(watched, end, ctx));
                }
            }
            Note::Goodbye(GoodbyeReason::SessionEnded | GoodbyeReason::Stopping) => {
                self.lifecycle.handle(Event::Ended(session, epoch), ctx.now);
                self.act(None, ctx);
            }
            Note::Goodbye(_) => self.lose(id, "the phone left it", ctx),
            Note::Lost(why) => self.lose(id, &why, ctx),
            Note::Farm(_) | Note::Path(_) => {}
        }
    }

    fn lose(&mut self, id: CarrierId, why: &str, ctx: &mut Ctx) {
        if let Some(runtime) = self.sessions.get_mut(&id.session)
            && let Some(slot) = runtime.carriers.remove(&id.epoch)
        {
            ctx.note(|| format!("farm loses carrier {} of {}: {why}", id.epoch, id.session));
            dropped(slot, Some(&mut runtime.end), ctx);
            let told = self.watch.event(ip_change::Event::Suspect, ctx);
            self.told(told, ctx);
        }
        self.lifecycle.handle(Event::Lost(id.session, id.epoch), ctx.now);
        self.act(None, ctx);
    }

    fn attach(&mut self, session: SessionId, epoch: Epoch, hello: Hello, ctx: &mut Ctx) {
        let Some(runtime) = self.sessions.get_mut(&session) else { return };
        runtime.watched = hello.watched;
        ctx.note(|| format!("farm attaches carrier {epoch} of {session}"));
        let info = FarmInfo {
            name: "farm".to_owned(),
            services: Vec::new(),
            phones: Vec::new(),
            absences: Vec::new(),
        };
        self.with(CarrierId { session, epoch }, ctx, |carrier, end, ctx| {
            carrier.set_watched(hello.watched, end, ctx);
            carrier.attach(hello.streams, end, ctx);
            carrier.say(Control::Farm(info), ctx);
        });
    }

    fn close(&mut self, session: SessionId, epoch: Epoch, reason: GoodbyeReason, ctx: &mut Ctx) {
        let runtime = self.sessions.get_mut(&session);
        let (end, live) = match runtime {
            Some(runtime) => {
                let slot = runtime.carriers.remove(&epoch);
                (Some(&mut runtime.end), slot)
            }
            None => (None, None),
        };
        match live.or_else(|| self.closing.remove(&(session, epoch))) {
            Some(Slot::Running(mut carrier)) => carrier.close(reason, end, ctx),
            Some(building) => dropped(building, end, ctx),
            None => {}
        }
    }

    fn say(&mut self, session: SessionId, epoch: Epoch, content: Content, ctx: &mut Ctx) {
        let signal = PeerSignal { from: Role::Farm, farm: self.id, session, epoch, content };
        let payload =
            signal.sign(&self.identity.key).and_then(|signed| codec::encode(&Payload::Signed(signed)));
        if let Ok(payload) = payload {
            self.link.send(ToBroker::Signal(Signal { peer: Address::Phone(session), payload }), ctx);
        }
    }

    /// The agent is told to stop.
    pub fn stop(&mut self, ctx: &mut Ctx) {
        self.lifecycle.handle(Event::Stop, ctx.now);
        self.act(None, ctx);
        let events = self.link.event(link::Event::Stop, ctx);
        self.broker_events(events, ctx);
    }
}

/// A carrier whose handle is dropped closes without a word.
pub fn dropped(slot: Slot, end: Option<&mut SessionEnd>, ctx: &mut Ctx) {
    match slot {
        Slot::Running(mut carrier) => carrier.close(GoodbyeReason::Superseded, end, ctx),
        Slot::Building { peer, .. } => ctx.close_peer(peer),
    }
}
