//! The loop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use farm_protocol::broker::{Address, FromBroker, Role, ToBroker, Watch, Welcome};
use farm_protocol::codec;
use farm_protocol::control::{Control, Farm as FarmInfo};
use farm_protocol::epoch::Epoch;
use farm_protocol::frame::ResetReason;
use farm_protocol::id::{BootId, FarmId, PhoneId, SessionId};
use farm_protocol::keys::DeviceKey;
use farm_protocol::signal::{Content, Expected, Payload, PeerSignal};
use farm_tunnel::address_watch::{AddressWatch, Told};
use farm_tunnel::aside::aside;
use farm_tunnel::broker_socket::{BrokerEvent, BrokerSocket, Dialer};
use farm_tunnel::carrier::{CarrierId, Note};
use farm_tunnel::fault::{Fault, Faults};
use farm_tunnel::history::Kind;
use farm_tunnel::ip_change::{Verdict, Witness};
use farm_tunnel::link;
use farm_tunnel::peer::{KnownPath, PathKind};
use farm_tunnel::recovery::Failure;
use farm_tunnel::session::phone::{Event, Network, REST_AFTER, Session, State};
use farm_tunnel::stream::Streams;
use ring::rand::SystemRandom;

use super::Command;
use super::carriers::{Built, Slot};
use super::pairing::Pairing;
use crate::client::{Client, FarmRecord};
use crate::recorder::Recorder;
use crate::slot::HeldSlot;
use crate::status::Status;

/// Carriers' reports that wait for the loop.
const NOTES: usize = 256;

/// After the last watcher has gone the tunnel is watched on for this long:
/// the next page or keystroke often follows.
const LINGER: Duration = Duration::from_secs(30);

/// What is told for as long as a program runs that another machine displaced.
const COPIED_KEY: &str =
    "another machine uses a copy of this device's key: better pair each machine by itself";

/// Both ends of a queue into the loop.
type Queue<T> = (async_channel::Sender<T>, async_channel::Receiver<T>);

pub(super) struct Setup {
    pub(super) farm: FarmRecord,
    pub(super) client: Client,
    pub(super) key: Arc<DeviceKey>,
    pub(super) phone: PhoneId,
    pub(super) slot: HeldSlot,
    pub(super) boot: BootId,
    pub(super) seed: u64,
    pub(super) dialer: Dialer,
    pub(super) broker: BrokerSocket,
    pub(super) broker_events: async_channel::Receiver<BrokerEvent>,
    pub(super) streams: Streams,
    pub(super) watchers: Arc<AtomicUsize>,
    pub(super) pairing: Pairing,
}

pub(super) struct Worker {
    pub(super) farm: FarmRecord,
    client: Client,
    pub(super) id: FarmId,
    pub(super) key: Arc<DeviceKey>,
    pub(super) session_id: SessionId,
    slot: HeldSlot,
    /// Slots that another machine with our key has taken from us: kept, so that
    /// no program of this one runs into the same.
    lost_slots: Vec<HeldSlot>,
    pub(super) boot: BootId,
    seed: u64,
    pub(super) dialer: Dialer,
    broker: BrokerSocket,
    broker_events: async_channel::Receiver<BrokerEvent>,
    pub(super) welcome: Option<Welcome>,
    pub(super) streams: Streams,
    pub(super) session: Session,
    pub(super) carriers: BTreeMap<Epoch, Slot>,
    pub(super) carriers_attached: u64,
    pub(super) watch: Option<AddressWatch>,
    watchers: Arc<AtomicUsize>,
    pub(super) pairing: Pairing,
    pub(super) watched: bool,
    quiet_at: Option<Instant>,
    pub(super) info: Option<FarmInfo>,
    pub(super) notes: Queue<(CarrierId, Note)>,
    pub(super) built: Queue<Built>,
    pub(super) random: SystemRandom,
    pub(super) faults: Faults,
    pub(super) known_path: KnownPath,
    pub(super) recorder: Recorder,
}

enum Step {
    Broker(BrokerEvent),
    Told(Told),
    Note(CarrierId, Note),
    Built(Built),
    Command(Option<Command>),
    Attention,
    Timeout,
}

/// The next item; waits for ever once the other end is gone.
async fn next<T>(channel: &async_channel::Receiver<T>) -> T {
    match channel.recv().await {
        Ok(item) => item,
        Err(_) => std::future::pending().await,
    }
}

impl Worker {
    pub(super) fn new(setup: Setup) -> Self {
        let now = Instant::now();
        let start = setup.slot.start();
        let recorder = Recorder::new(setup.slot.directory(), setup.farm.id(), now);
        Self {
            id: setup.farm.id(),
            farm: setup.farm,
            client: setup.client,
            key: setup.key,
            session_id: SessionId { phone: setup.phone, slot: setup.slot.slot() },
            slot: setup.slot,
            lost_slots: Vec::new(),
            boot: setup.boot,
            seed: setup.seed,
            dialer: setup.dialer,
            broker: setup.broker,
            broker_events: setup.broker_events,
            welcome: None,
            streams: setup.streams,
            session: Session::new(start, setup.seed, now).rests_after(REST_AFTER),
            carriers: BTreeMap::new(),
            carriers_attached: 0,
            watch: None,
            watchers: setup.watchers,
            pairing: setup.pairing,
            watched: true,
            quiet_at: Some(now + LINGER),
            info: None,
            notes: async_channel::bounded(NOTES),
            built: async_channel::bounded(NOTES),
            random: SystemRandom::new(),
            faults: Faults::default(),
            known_path: KnownPath::default(),
            recorder,
        }
    }

    pub(super) async fn run(
        mut self,
        watch: Option<(AddressWatch, async_channel::Receiver<Told>)>,
        commands: async_channel::Receiver<Command>,
        attention: async_channel::Receiver<()>,
    ) {
        let (watch, told) = watch.unzip();
        self.watch = watch;
        let (notes, built) = (self.notes.1.clone(), self.built.1.clone());
        self.session.handle(Event::Start, Instant::now());
        loop {
            self.act(None);
            self.record(Instant::now());
            let deadline = self.session.poll_timeout().map(|(when, _)| when);
            let deadline =
                deadline.into_iter().chain(self.quiet_at).chain(self.recorder.poll_timeout()).min();
            // Another one after a move to another slot.
            let broker_events = self.broker_events.clone();
            let broker = async { Step::Broker(next(&broker_events).await) };
            let told = async {
                match &told {
                    Some(told) => Step::Told(next(told).await),
                    None => std::future::pending().await,
                }
            };
            let note = async {
                let (carrier, note) = next(&notes).await;
                Step::Note(carrier, note)
            };
            let built = async { Step::Built(next(&built).await) };
            let command = async { Step::Command(commands.recv().await.ok()) };
            let attention = async {
                next(&attention).await;
                Step::Attention
            };
            let timer = async {
                match deadline {
                    Some(when) => {
                        smol::Timer::at(when).await;
                        Step::Timeout
                    }
                    None => std::future::pending().await,
                }
            };
            use smol::future::or;
            let step = or(or(or(command, attention), or(broker, told)), or(or(note, built), timer)).await;
            let now = Instant::now();
            match step {
                Step::Broker(event) => self.broker_event(event, now),
                Step::Told(told) => self.address(told, now),
                Step::Note(carrier, note) => self.note(carrier, note, now),
                Step::Built(built) => self.built(built, now),
                Step::Command(Some(Command::Status(reply))) => {
                    // Whoever asked may have gone.
                    let _ = reply.try_send(self.status(now));
                }
                Step::Command(Some(Command::Fault(fault, lasting))) => {
                    self.fault(fault, lasting);
                }
                Step::Command(Some(Command::Stop) | None) => return self.stop(now).await,
                Step::Attention => self.attention(now),
                Step::Timeout => {
                    self.session.handle_timeout(now);
                    self.recorder.handle_timeout(now);
                    self.attention(now);
                }
            }
        }
    }

    /// Keeps the event log. The first seconds of a start count for nothing,
    /// until something worked or failed.
    fn record(&mut self, now: Instant) {
        let shown = self.session.snapshot();
        let broker = self.broker.state().state == link::State::Online;
        let observed = match shown.state {
            State::Stopped | State::NotPaired => None,
            State::Live => Some((Kind::Up, None)),
            _ if !shown.network_up => Some((Kind::NoUplink, Some(Failure::PhoneOffline.name()))),
            // What counts is whether it could be used at once.
            State::Resting if !broker => Some((Kind::Outage, Some(Failure::BrokerLost.name()))),
            State::Resting if shown.farm_present == Some(false) => {
                Some((Kind::Outage, Some(Failure::FarmOffline.name())))
            }
            State::Resting => Some((Kind::Up, None)),
            State::Connecting | State::Waiting => {
                shown.failure.map(|failure| (Kind::Outage, Some(failure.name())))
            }
        };
        self.recorder.set(observed, now);
    }

    fn fault(&self, fault: Fault, lasting: Duration) {
        tracing::warn!(%fault, ?lasting, "a fault was injected");
        self.faults.begin(fault, lasting);
        match fault {
            Fault::AddressChange => {
                self.watch.iter().for_each(|watch| watch.pretend(Verdict::Changed(Witness::Local), None));
            }
            Fault::NetworkDown => {
                let then = Some((lasting + farm_tunnel::fault::NETWORK_FIRST, Verdict::Online));
                self.watch.iter().for_each(|watch| watch.pretend(Verdict::Offline, then));
                self.broker.break_for(lasting);
            }
            Fault::BrokerLost => self.broker.break_for(lasting),
            Fault::CloseCarrier => {
                for slot in self.carriers.values() {
                    if let Slot::Running { peer, .. } = slot {
                        let peer = peer.clone();
                        farm_tunnel::executor::spawn(async move { peer.close().await }).detach();
                    }
                }
            }
            Fault::Blackhole | Fault::LossOut | Fault::LossIn | Fault::NoPongs => {}
        }
    }

    fn broker_event(&mut self, event: BrokerEvent, now: Instant) {
        match event {
            BrokerEvent::State(state) => {
                tracing::debug!(state = state.name(), "broker link");
                if let Some(watch) = &self.watch {
                    watch.vouched(state == link::State::Online);
                }
                if state != link::State::Online {
                    self.session.handle(Event::BrokerLink(false), now);
                }
            }
            BrokerEvent::Online(welcome) => {
                self.broker.send(ToBroker::Watch(Watch { farms: vec![self.id] }));
                if let Some(watch) = &self.watch {
                    watch.probe_target(self.dialer.stun_address(&welcome));
                    if let Ok(observed) = welcome.observed.parse::<SocketAddr>() {
                        watch.broker_echo(observed.ip());
                    }
                }
                self.recorder.broker_time(welcome.time, now);
                self.welcome = Some(welcome);
                self.remember_broker_address();
                self.session.handle(Event::BrokerLink(true), now);
            }
            BrokerEvent::StaleEpoch(newest) => match self.slot.jump_past(newest) {
                Ok(epoch) => {
                    self.broker.set_epoch(epoch);
                    self.broker.event(link::Event::Start);
                }
                Err(error) => {
                    tracing::warn!(%error, "the broker says that another start is newer");
                    self.place_lost(now);
                }
            },
            BrokerEvent::Superseded => self.place_lost(now),
            BrokerEvent::Message(message) => self.broker_message(message, now),
        }
    }

    /// For a start without DNS.
    fn remember_broker_address(&self) {
        let Some(address) = self.dialer.to_be_stored() else { return };
        let (client, farm) = (self.client.clone(), self.id);
        let keep = move || {
            if client.broker_address(&farm) != Some(address)
                && let Err(error) = client.remember_broker_address(&farm, address)
            {
                tracing::warn!(%error, "the broker's address could not be kept");
            }
        };
        farm_tunnel::executor::spawn(async move {
            if let Err(error) = aside("farm-address", keep).await {
                tracing::warn!(%error, "the broker's address could not be kept");
            }
        })
        .detach();
    }

    /// The broker gave our place to another program. Fighting for it would go
    /// on for ever: the link rests, and the next carrier is made elsewhere.
    fn place_lost(&mut self, now: Instant) {
        self.broker.event(link::Event::Stop);
        self.session.handle(Event::Superseded, now);
    }

    /// Goes on in a slot that nobody has taken from us yet.
    pub(super) fn take_another_slot(&mut self, now: Instant) {
        match HeldSlot::take_after(self.slot.directory(), self.session.epoch()) {
            Ok(slot) => {
                tracing::warn!(
                    former = self.slot.slot().number(),
                    slot = slot.slot().number(),
                    "another machine uses this device's key and took its place: going on in another slot; better pair each machine by itself"
                );
                self.broker.event(link::Event::Stop);
                let (broker, events) =
                    super::start_link(&self.dialer, self.key.clone(), self.boot, &slot, self.seed);
                (self.broker, self.broker_events, self.welcome) = (broker, events, None);
                self.session_id.slot = slot.slot();
                self.lost_slots.push(std::mem::replace(&mut self.slot, slot));
                self.session.handle(Event::NewSlot(self.slot.start()), now);
            }
            Err(error) => {
                tracing::warn!(%error, "another machine uses this device's key, and no slot is left");
                self.broker.event(link::Event::Start);
                self.session.handle(Event::NoSlot, now);
            }
        }
    }

    fn broker_message(&mut self, message: FromBroker, now: Instant) {
        match message {
            FromBroker::Presence(presence) if presence.farm == self.id => match presence.state {
                None => self.session.handle(Event::PresenceUnknown, now),
                Some(state) if state.verify(&self.farm.key).is_ok() => {
                    let event =
                        Event::Presence { boot: state.boot, epoch: state.epoch, online: state.online };
                    self.session.handle(event, now);
                }
                Some(_) => tracing::warn!("the broker showed a presence that the farm did not sign"),
            },
            FromBroker::Undelivered(undelivered) if undelivered.peer == Address::Farm(self.id) => {
                self.session.handle(Event::Undelivered, now);
            }
            FromBroker::Signal(signal) if signal.peer == Address::Farm(self.id) => {
                match codec::decode::<Payload>(&signal.payload) {
                    Ok(Payload::Signed(signed)) => {
                        let expected = Expected {
                            key: &self.farm.key,
                            from: Role::Farm,
                            farm: self.id,
                            session: self.session_id,
                        };
                        match signed.open(expected) {
                            Ok(signal) => self.peer_signal(signal, now),
                            Err(error) => tracing::warn!(%error, "a signal was not believed"),
                        }
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "a signal could not be read"),
                }
            }
            _ => {}
        }
    }

    fn address(&mut self, told: Told, now: Instant) {
        let (network, change) = match told {
            Told::ProbeAnswered(_) => return self.broker.event(link::Event::ProbeAnswered),
            Told::Verdict(Verdict::ProbeLost) => return self.broker.event(link::Event::ProbeLost),
            Told::Verdict(Verdict::PathBack) => {
                tracing::info!("the path to the broker is back");
                self.broker.event(link::Event::PathBack);
                return self.session.handle(Event::PathBack, now);
            }
            Told::Verdict(Verdict::Changed(_)) => (Network::Changed, link::NetworkChange::AddressChanged),
            Told::Verdict(Verdict::Online) => (Network::Up, link::NetworkChange::Up),
            Told::Verdict(Verdict::Offline) => (Network::Down, link::NetworkChange::Down),
        };
        tracing::info!(?change, "the network changed");
        self.broker.event(link::Event::NetworkChanged(change));
        self.session.handle(Event::Network(network), now);
    }

    fn attention(&mut self, now: Instant) {
        let looked_at = self.watchers.load(Ordering::Acquire) > 0 || self.streams.count() > 0;
        let watched = if looked_at {
            // Looked at again later, since streams end without a word.
            self.quiet_at = Some(now + LINGER);
            true
        } else if self.quiet_at.is_some_and(|at| now < at) {
            self.watched
        } else {
            self.quiet_at = None;
            false
        };
        if watched != self.watched {
            self.watched = watched;
            self.session.handle(Event::Attention { watched }, now);
            self.broker.event(link::Event::Attention { watched });
            for slot in self.carriers.values() {
                if let Slot::Running { carrier, .. } = slot {
                    carrier.set_watched(watched);
                    carrier.send(Control::Attention(farm_protocol::control::Attention { watched }));
                }
            }
        }
    }

    /// Signs a signal for the farm and hands it to the broker.
    pub(super) fn say(&self, epoch: Epoch, content: Content) {
        let signal =
            PeerSignal { from: Role::Phone, farm: self.id, session: self.session_id, epoch, content };
        let payload = signal.sign(&self.key).and_then(|signed| codec::encode(&Payload::Signed(signed)));
        match payload {
            Ok(payload) => {
                let peer = Address::Farm(self.id);
                self.broker.send(ToBroker::Signal(farm_protocol::broker::Signal { peer, payload }));
            }
            Err(error) => tracing::error!(%error, "a signal could not be encoded"),
        }
    }

    fn status(&self, now: Instant) -> Status {
        let snapshot = self.session.snapshot();
        let broker = self.broker.state();
        let online = broker.state == link::State::Online;
        let live = self.session.live().and_then(|epoch| self.carriers.get(&epoch));
        let condition = match live {
            Some(Slot::Running { carrier, .. }) => carrier.condition(),
            _ => None,
        };
        let milliseconds = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        let health = condition.as_ref().map(|c| c.health).filter(|h| h.rtt.is_some());
        Status {
            name: self.info.as_ref().map_or_else(|| self.farm.name.clone(), |info| info.name.clone()),
            farm: self.id.to_string(),
            state: snapshot.state.name().to_owned(),
            since_seconds: now.saturating_duration_since(snapshot.since).as_secs_f64(),
            failure: snapshot.failure.map(|f| f.name().to_owned()),
            reason: snapshot.failure.map(|f| f.explanation().to_owned()),
            doing: snapshot.strategy.map(|s| s.explanation().to_owned()),
            strategy: snapshot.strategy.map(|s| s.name().to_owned()),
            attempt: snapshot.attempt,
            next_attempt_seconds: snapshot
                .next_attempt
                .map(|at| at.saturating_duration_since(now).as_secs_f64()),
            farm_present: snapshot.farm_present,
            broker: broker.state.name().to_owned(),
            broker_reason: (!online).then(|| broker.reason.to_string()),
            broker_since_seconds: now.saturating_duration_since(broker.since).as_secs_f64(),
            broker_next_attempt_seconds: broker
                .next_attempt
                .map(|at| at.saturating_duration_since(now).as_secs_f64()),
            path: condition.as_ref().and_then(|c| c.path).map(|p| match p.kind {
                PathKind::Direct => "direct".to_owned(),
                PathKind::Relayed => "relayed".to_owned(),
            }),
            rtt_ms: health.and_then(|h| h.rtt).map(milliseconds),
            jitter_ms: health.map(|h| milliseconds(h.jitter)),
            loss: health.map(|h| h.loss),
            grade: health.and_then(|h| h.grade).map(|g| g.name().to_owned()),
            services: self
                .info
                .iter()
                .flat_map(|info| info.services.iter().map(|s| s.name.clone()))
                .collect(),
            streams: self.streams.count(),
            buffered_bytes: self.streams.buffered_bytes(),
            carriers: self.carriers_attached,
            slot: self.slot.slot().number(),
            notice: (!self.lost_slots.is_empty()).then(|| COPIED_KEY.to_owned()),
        }
    }

    async fn stop(mut self, now: Instant) {
        if let Some(epoch) = self.session.live() {
            // Also through the broker, should the carrier be dead.
            self.say(epoch, Content::Goodbye {});
        }
        self.recorder.stop(now);
        self.streams.end(ResetReason::SessionEnded);
        self.session.handle(Event::Stop, now);
        self.act(None);
        self.broker.event(link::Event::Stop);
    }
}
