//! A phone: the loop of `connect/src/tunnel` on the virtual network.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use farm_protocol::broker::{Address, FromBroker, Role, Signal, ToBroker, Watch as WatchFarms};
use farm_protocol::codec;
use farm_protocol::control::{Attention, Control, GoodbyeReason, Hello};
use farm_protocol::epoch::Epoch;
use farm_protocol::frame::ResetReason;
use farm_protocol::id::{BootId, FarmId, PhoneId, SessionId, Slot};
use farm_protocol::keys::{Nonce, PublicKey};
use farm_protocol::signal::{Content, Expected, Payload, PeerSignal};
use farm_tunnel::address_watch::Told;
use farm_tunnel::broker_socket::BrokerEvent;
use farm_tunnel::carrier::{CarrierId, Note};
use farm_tunnel::ip_change::{self, Verdict};
use farm_tunnel::link;
use farm_tunnel::peer::PathKind;
use farm_tunnel::recovery::Ways;
use farm_tunnel::session::phone::{Action, Event, Network, Session, State};

use super::carrier::{CarrierEnd, PeerId};
use super::ctx::{self, Ctx};
use super::device::{BrokerLink, Identity, Watch};
use super::mutation::Mutation;
use super::peer;
use super::traffic::{SessionEnd, Side};

/// From one carrier to the next the old one's farewell may come before the new
/// one's hello, by what jitter sets apart: no loss of the connection.
const HAND_OVER: Duration = Duration::from_millis(100);

/// After the last watcher has gone the tunnel is watched on for this long.
const LINGER: Duration = Duration::from_secs(30);

/// Attempts that a watched session may begin within a minute: the ladder's
/// first six (7.4 s), then one in 4 s at the least, with room for network
/// changes and presence, each of which begins the ladder anew.
const MAX_ATTEMPTS_PER_MINUTE: usize = 120;

/// A carrier, from its decision on.
pub enum Held {
    /// The engine is at work on the offer.
    Building(PeerId, BootId),
    /// Offered, connecting, or open.
    Running(CarrierEnd, Nonce),
}

/// What the broker said last of the farm, and the farm signed.
pub type Presence = Option<(BootId, Epoch, bool)>;

/// A running program.
pub struct Process {
    identity: Identity,
    /// Its session's name.
    pub session_id: SessionId,
    farm: FarmId,
    farm_key: PublicKey,
    boot: BootId,
    /// Counts the runs.
    pub run: u64,
    start: Epoch,
    jumped: bool,
    /// The link to the broker.
    pub link: BrokerLink,
    /// The address watch.
    pub watch: Watch,
    /// The core.
    pub session: Session,
    /// Its streams.
    pub end: SessionEnd,
    /// Its carriers.
    pub carriers: BTreeMap<Epoch, Held>,
    /// Programs and people that look.
    pub watchers: usize,
    watched: bool,
    quiet_at: Option<Instant>,
    /// See [`Presence`].
    pub presence: Presence,
    /// When it last became live, or ceased to be.
    pub since: Instant,
    /// The former one, for a change that lasted no longer than [`HAND_OVER`].
    since_before: Instant,
    shown: Option<Epoch>,
    attempts: Vec<Instant>,
    newest_live: Option<Epoch>,
    /// Starts to be written to its state.
    pub count: Option<u64>,
}

impl Process {
    /// The program starts; the start was counted already.
    pub fn new(
        identity: Identity,
        starts: u64,
        (farm, farm_key): (FarmId, PublicKey),
        watchers: usize,
        ctx: &mut Ctx,
    ) -> Self {
        let run = ctx.number();
        let boot = BootId::from_bytes(ctx.rng.bytes());
        let start = Epoch::of_start(starts);
        let link = BrokerLink::new(identity.clone(), boot, run, start, ctx);
        let watch = Watch::new(&identity, run, ctx);
        let phone = PhoneId::of(&identity.key.public());
        let mut process = Self {
            session_id: SessionId { phone, slot: identity.slot },
            identity,
            farm,
            farm_key,
            boot,
            run,
            start,
            jumped: false,
            link,
            watch,
            session: Session::new(start, ctx.rng.draw(), ctx.now),
            end: SessionEnd::new(Side::Phone),
            carriers: BTreeMap::new(),
            watchers,
            watched: true,
            quiet_at: Some(ctx.now + LINGER),
            presence: None,
            since: ctx.now,
            since_before: ctx.now,
            shown: None,
            attempts: Vec::new(),
            newest_live: None,
            count: None,
        };
        let events = process.link.event(link::Event::Start, ctx);
        process.broker_events(events, ctx);
        process.session.handle(Event::Start, ctx.now);
        process.act(None, ctx);
        process
    }

    /// Whether somebody looks.
    pub fn is_watched(&self) -> bool {
        self.watched
    }

    /// The next deadline.
    pub fn poll_timeout(&self, ctx: &Ctx) -> Option<Instant> {
        let session = self.session_due(ctx);
        let link = self.link.link.poll_timeout().map(|(at, _)| at);
        let link = link.filter(|_| !ctx.is_mutated(Mutation::LinkTimer));
        let watch = self.watch.detector.poll_timeout().map(|(at, _)| at);
        let carriers = self.carriers.values().filter_map(|slot| match slot {
            Held::Running(carrier, _) => carrier.poll_timeout(),
            Held::Building(..) => None,
        });
        let own = session.into_iter().chain(self.quiet_at).chain(link).chain(watch);
        own.chain(carriers).chain(self.end.poll_timeout(ctx.now)).min()
    }

    fn session_due(&self, ctx: &Ctx) -> Option<Instant> {
        self.session.poll_timeout().map(|(at, _)| at).filter(|_| !ctx.is_mutated(Mutation::PhoneTimer))
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
        let due = self.session_due(ctx).into_iter().chain(self.quiet_at).min();
        if due.is_some_and(|at| at <= ctx.now) {
            if !ctx.is_mutated(Mutation::PhoneTimer) {
                self.session.handle_timeout(ctx.now);
            }
            if self.session_due(ctx).is_some_and(|at| at <= ctx.now) {
                ctx.violate("deadlines", format!("the session of {:?} is still due", self.identity.node));
            }
            self.attention(ctx);
            self.act(None, ctx);
        }
        for epoch in self.epochs() {
            self.with(epoch, ctx, CarrierEnd::handle_timeout);
        }
        self.end.run(ctx);
        self.flow(ctx);
    }

    fn epochs(&self) -> Vec<Epoch> {
        self.carriers.keys().copied().collect()
    }

    /// Lets the carriers send what there is.
    pub fn flow(&mut self, ctx: &mut Ctx) {
        for epoch in self.epochs() {
            self.with(epoch, ctx, CarrierEnd::pump);
        }
    }

    /// Works on a carrier, and takes what it reports.
    pub fn with(
        &mut self,
        epoch: Epoch,
        ctx: &mut Ctx,
        work: impl FnOnce(&mut CarrierEnd, &mut SessionEnd, &mut Ctx),
    ) {
        let Some(Held::Running(carrier, _)) = self.carriers.get_mut(&epoch) else { return };
        work(carrier, &mut self.end, ctx);
        for note in carrier.take_notes() {
            self.note(epoch, note, ctx);
        }
    }

    /// Something came on a carrier: hands it over, and lets the streams go on.
    pub fn carry(
        &mut self,
        id: CarrierId,
        ctx: &mut Ctx,
        work: impl FnOnce(&mut CarrierEnd, &mut SessionEnd, &mut Ctx),
    ) {
        self.with(id.epoch, ctx, work);
        self.flow(ctx);
    }

    /// What the link tells.
    pub fn broker_events(&mut self, events: Vec<BrokerEvent>, ctx: &mut Ctx) {
        for event in events {
            self.broker_event(event, ctx);
            self.act(None, ctx);
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
                if state != link::State::Online {
                    self.session.handle(Event::BrokerLink(false), ctx.now);
                }
            }
            BrokerEvent::Online(welcome) => {
                self.link.send(ToBroker::Watch(WatchFarms { farms: vec![self.farm] }), ctx);
                let mut told = self.watch.probe_target(ctx);
                if let Ok(observed) = welcome.observed.parse::<std::net::SocketAddr>() {
                    told.extend(self.watch.event(ip_change::Event::BrokerEcho(observed.ip()), ctx));
                }
                self.session.handle(Event::BrokerLink(true), ctx.now);
                self.act(None, ctx);
                self.told(told, ctx);
            }
            BrokerEvent::StaleEpoch(newest) => {
                if std::mem::replace(&mut self.jumped, true) || newest.is_absurd_after(self.start) {
                    return self.place_lost(ctx);
                }
                let starts = newest.starts() + 1;
                self.count = Some(starts);
                self.start = Epoch::of_start(starts);
                let mut events = self.link.set_epoch(self.start, ctx);
                events.extend(self.link.event(link::Event::Start, ctx));
                self.broker_events(events, ctx);
            }
            BrokerEvent::Superseded => self.place_lost(ctx),
            BrokerEvent::Message(message) => self.broker_message(message, ctx),
        }
    }

    /// The broker gave our place to another program.
    fn place_lost(&mut self, ctx: &mut Ctx) {
        let node = self.identity.node;
        ctx.note(|| format!("{node:?}: its place is lost"));
        ctx.violate("own place", format!("{node:?}: no other program has this key, and its place is lost"));
        let events = self.link.event(link::Event::Stop, ctx);
        self.session.handle(Event::Superseded, ctx.now);
        self.broker_events(events, ctx);
    }

    /// Goes on in a slot that nobody has taken yet.
    fn take_another_slot(&mut self, ctx: &mut Ctx) {
        let events = self.link.event(link::Event::Stop, ctx);
        self.broker_events(events, ctx);
        let next = Slot::new(self.session_id.slot.number() + 1);
        let Some(slot) = next else { return self.session.handle(Event::NoSlot, ctx.now) };
        self.start = Epoch::of_start(self.session.epoch().starts() + 1);
        self.jumped = false;
        self.session_id.slot = slot;
        self.link = self.link.in_slot(slot, self.start, ctx);
        self.session.handle(Event::NewSlot(self.start), ctx.now);
        let events = self.link.event(link::Event::Start, ctx);
        self.broker_events(events, ctx);
    }

    fn broker_message(&mut self, message: FromBroker, ctx: &mut Ctx) {
        match message {
            FromBroker::Presence(presence) if presence.farm == self.farm => match presence.state {
                None => {
                    self.presence = None;
                    self.session.handle(Event::PresenceUnknown, ctx.now);
                }
                Some(state) if state.verify(&self.farm_key).is_ok() => {
                    self.presence = Some((state.boot, state.epoch, state.online));
                    let (boot, epoch, online) = (state.boot, state.epoch, state.online);
                    self.session.handle(Event::Presence { boot, epoch, online }, ctx.now);
                }
                Some(_) => ctx.stats.unbelieved += 1,
            },
            FromBroker::Undelivered(undelivered) if undelivered.peer == Address::Farm(self.farm) => {
                self.session.handle(Event::Undelivered, ctx.now);
            }
            FromBroker::Signal(signal) if signal.peer == Address::Farm(self.farm) => {
                let Ok(Payload::Signed(signed)) = codec::decode::<Payload>(&signal.payload) else {
                    ctx.stats.unbelieved += 1;
                    return;
                };
                let expected = Expected {
                    key: &self.farm_key,
                    from: Role::Farm,
                    farm: self.farm,
                    session: self.session_id,
                };
                match signed.open(expected) {
                    Ok(signal) => self.peer_signal(signal, ctx),
                    Err(_) => ctx.stats.unbelieved += 1,
                }
            }
            _ => {}
        }
    }

    /// What the address watch tells.
    pub fn told(&mut self, told: Vec<Told>, ctx: &mut Ctx) {
        for told in told {
            let (network, change) = match told {
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
                    let events = self.link.event(link::Event::PathBack, ctx);
                    self.session.handle(Event::PathBack, ctx.now);
                    self.act(None, ctx);
                    self.broker_events(events, ctx);
                    continue;
                }
                Told::Verdict(Verdict::Changed(_)) => (Network::Changed, link::NetworkChange::AddressChanged),
                Told::Verdict(Verdict::Online) => (Network::Up, link::NetworkChange::Up),
                Told::Verdict(Verdict::Offline) => (Network::Down, link::NetworkChange::Down),
            };
            let node = self.identity.node;
            ctx.note(|| format!("{node:?}: network {change:?}"));
            let events = self.link.event(link::Event::NetworkChanged(change), ctx);
            self.session.handle(Event::Network(network), ctx.now);
            self.act(None, ctx);
            self.broker_events(events, ctx);
        }
    }

    /// Looks whether somebody looks.
    pub fn attention(&mut self, ctx: &mut Ctx) {
        let looked_at = self.watchers > 0 || self.end.count() > 0;
        let watched = if looked_at {
            self.quiet_at = Some(ctx.now + LINGER);
            true
        } else if self.quiet_at.is_some_and(|at| ctx.now < at) {
            self.watched
        } else {
            self.quiet_at = None;
            false
        };
        if watched != self.watched {
            self.watched = watched;
            self.session.handle(Event::Attention { watched }, ctx.now);
            let events = self.link.event(link::Event::Attention { watched }, ctx);
            for epoch in self.epochs() {
                self.with(epoch, ctx, |carrier, end, ctx| {
                    carrier.set_watched(watched, end, ctx);
                    carrier.say(Control::Attention(Attention { watched }), ctx);
                });
            }
            self.broker_events(events, ctx);
        }
        self.act(None, ctx);
    }

    fn act(&mut self, hello: Option<Hello>, ctx: &mut Ctx) {
        let mut hello = hello;
        let mut suspect = false;
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Offer { epoch, farm_boot, ways } => self.offer(epoch, farm_boot, ways, ctx),
                Action::Attach(epoch) => {
                    if let Some(hello) = hello.take() {
                        ctx.stats.carriers += 1;
                        self.with(epoch, ctx, |c, end, ctx| c.attach(hello.streams, end, ctx));
                    }
                }
                Action::Close(epoch, reason) => {
                    let kept = ctx.is_mutated(Mutation::KeepOldCarrier) && self.session.live() > Some(epoch);
                    if !kept && let Some(slot) = self.carriers.remove(&epoch) {
                        self.close(slot, reason, ctx);
                    }
                }
                Action::Probe(epoch) => self.with(epoch, ctx, CarrierEnd::suspect),
                Action::Changed => {
                    let (shown, who) = (self.session.snapshot(), self.identity.node);
                    suspect |= shown.state != State::Live;
                    ctx.note(|| {
                        let failure = shown.failure.map_or("-", |f| f.name());
                        let strategy = shown.strategy.map_or("-", |s| s.name());
                        format!(
                            "{who:?}: {}, {failure}, {strategy}, attempt {}",
                            shown.state.name(),
                            shown.attempt
                        )
                    });
                }
                Action::TakeAnotherSlot => self.take_another_slot(ctx),
                Action::Ended => {}
            }
        }
        self.observe(ctx);
        if suspect {
            let told = self.watch.event(ip_change::Event::Suspect, ctx);
            self.told(told, ctx);
        }
    }

    /// Notes when the live carrier changes.
    fn observe(&mut self, ctx: &mut Ctx) {
        let (live, before) = (self.session.live(), self.since);
        if live == self.shown {
            return;
        }
        if live.is_none() != self.shown.is_none() {
            let at_once = live.is_some() && ctx.now - self.since <= HAND_OVER;
            self.since = if at_once { self.since_before } else { ctx.now };
            if live.is_none() {
                self.since_before = before;
            }
        }
        self.shown = live;
        let (node, id) = (self.identity.node, self.session_id);
        match live {
            Some(epoch) => ctx.note(|| format!("{node:?}: LIVE with carrier {epoch} of {id}")),
            None => ctx.note(|| format!("{node:?}: not live")),
        }
        if live.is_some() {
            if live < self.newest_live {
                let newest = self.newest_live;
                ctx.violate("epochs", format!("{node:?} went from carrier {newest:?} back to {live:?}"));
            }
            self.newest_live = live;
        }
    }

    fn close(&mut self, slot: Held, reason: GoodbyeReason, ctx: &mut Ctx) {
        match slot {
            Held::Running(mut carrier, _) => carrier.close(reason, Some(&mut self.end), ctx),
            Held::Building(peer, _) => ctx.close_peer(peer),
        }
    }

    fn offer(&mut self, epoch: Epoch, farm_boot: BootId, ways: Ways, ctx: &mut Ctx) {
        let (node, run, host) = (self.identity.node, self.run, self.identity.host);
        let id = CarrierId { session: self.session_id, epoch };
        let peer = ctx.new_peer(node, run, host, id);
        ctx.take_ways(peer, ways);
        ctx.stats.upgrades += u64::from(ways == Ways::DirectOnly);
        self.carriers.insert(epoch, Held::Building(peer, farm_boot));
        let takes = ctx.rng.ms(2, 30);
        ctx.schedule(ctx.now + takes, ctx::Event::Built(node, run, id));
        self.attempts.push(ctx.now);
        let minute = ctx.now.checked_sub(Duration::from_secs(60));
        self.attempts.retain(|at| minute.is_none_or(|minute| *at > minute));
        if self.attempts.len() > MAX_ATTEMPTS_PER_MINUTE {
            ctx.violate("bounded", format!("{node:?}: {} offers in a minute", self.attempts.len()));
        }
    }

    /// Whether the engine is still at work on the offer.
    pub fn is_building(&self, id: CarrierId) -> bool {
        matches!(self.carriers.get(&id.epoch), Some(Held::Building(..)))
    }

    /// The engine is ready to offer.
    pub fn built(&mut self, id: CarrierId, ctx: &mut Ctx) {
        let Some(Held::Building(peer, farm_boot)) = self.carriers.get(&id.epoch) else { return };
        let (peer, farm_boot) = (*peer, *farm_boot);
        let nonce = Nonce::from_bytes(ctx.rng.bytes());
        let carrier = CarrierEnd::new(id, peer, self.boot, self.watched);
        self.carriers.insert(id.epoch, Held::Running(carrier, nonce));
        let content = Content::Offer { nonce, phone_boot: self.boot, farm_boot, sdp: peer::sdp(peer) };
        self.say(id.epoch, content, ctx);
    }

    fn peer_signal(&mut self, signal: PeerSignal, ctx: &mut Ctx) {
        let epoch = signal.epoch;
        let Some(Held::Running(carrier, ours)) = self.carriers.get(&epoch) else { return };
        let (peer, ours) = (carrier.peer, *ours);
        match signal.content {
            Content::Answer { nonce, sdp } if nonce == ours => {
                if !ctx.describe(peer, &sdp) {
                    self.note(epoch, Note::Lost("the farm's answer".to_owned()), ctx);
                }
                self.session.handle(Event::Answered(epoch), ctx.now);
            }
            Content::Refused { nonce, reason, farm_boot, newest } if nonce == ours => {
                self.session.handle(Event::Refused { epoch, reason, farm_boot, newest }, ctx.now);
            }
            Content::Candidate { candidate } => ctx.candidate(peer, &candidate),
            Content::Goodbye {} => self.session.handle(Event::Lost(epoch), ctx.now),
            _ => {}
        }
        self.act(None, ctx);
    }

    /// A carrier reports.
    pub fn note(&mut self, epoch: Epoch, note: Note, ctx: &mut Ctx) {
        match note {
            Note::Candidate(candidate) => self.say(epoch, Content::Candidate { candidate }, ctx),
            Note::Opened => self.session.handle(Event::Opened(epoch), ctx.now),
            Note::Hello(hello) if hello.session == self.session_id && hello.epoch == epoch => {
                self.session.handle(Event::Hello(epoch), ctx.now);
                self.act(Some(hello), ctx);
            }
            Note::Hello(_) => {
                if let Some(slot) = self.carriers.remove(&epoch) {
                    self.close(slot, GoodbyeReason::ProtocolError, ctx);
                }
                self.session.handle(Event::Lost(epoch), ctx.now);
            }
            Note::Path(kind) => {
                let relayed = kind == PathKind::Relayed;
                self.session.handle(Event::Path { epoch, relayed }, ctx.now);
            }
            Note::Farm(_) | Note::Attention(_) => {}
            Note::Goodbye(reason) => self.session.handle(Event::Goodbye(epoch, reason), ctx.now),
            Note::Lost(why) => {
                if let Some(slot) = self.carriers.remove(&epoch) {
                    let node = self.identity.node;
                    ctx.note(|| format!("{node:?} loses carrier {epoch}: {why}"));
                    self.close(slot, GoodbyeReason::Superseded, ctx);
                }
                self.session.handle(Event::Lost(epoch), ctx.now);
            }
        }
        self.act(None, ctx);
    }

    /// The program is told to stop.
    pub fn stop(&mut self, ctx: &mut Ctx) {
        if let Some(epoch) = self.session.live() {
            self.say(epoch, Content::Goodbye {}, ctx);
        }
        self.end.streams.end(ResetReason::SessionEnded);
        self.end.run(ctx);
        self.flow(ctx);
        self.session.handle(Event::Stop, ctx.now);
        self.act(None, ctx);
        // Nobody is left to take what follows from it.
        let _ = self.link.event(link::Event::Stop, ctx);
    }

    fn say(&mut self, epoch: Epoch, content: Content, ctx: &mut Ctx) {
        let signal =
            PeerSignal { from: Role::Phone, farm: self.farm, session: self.session_id, epoch, content };
        let payload =
            signal.sign(&self.identity.key).and_then(|signed| codec::encode(&Payload::Signed(signed)));
        if let Ok(payload) = payload {
            self.link.send(ToBroker::Signal(Signal { peer: Address::Farm(self.farm), payload }), ctx);
        }
    }
}
