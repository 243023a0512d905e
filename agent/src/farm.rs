//! The farm at work: one loop that owns the state and the sessions, takes what
//! happens in turn, and does what the cores decide.

mod carriers;
mod fault;
mod history;
mod local;
mod signals;
mod tidy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farm_protocol::broker::{Access, FromBroker, ToBroker, Welcome};
use farm_protocol::codec;
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, SessionId};
use farm_protocol::keys::{DeviceKey, Nonce};
use farm_protocol::signal::{Content, Payload, PeerSignal};
use farm_tunnel::address_watch::{AddressWatch, Told};
use farm_tunnel::backoff::RateLimit;
use farm_tunnel::broker_socket::{BrokerEvent, BrokerSocket, Dialer};
use farm_tunnel::carrier::{CarrierId, Note};
use farm_tunnel::fault::Faults;
use farm_tunnel::history::History;
use farm_tunnel::ip_change::Verdict;
use farm_tunnel::link;
use farm_tunnel::progress::{Beat, Progress};
use farm_tunnel::session::farm::{Event, Lifecycle};
use ring::rand::SystemRandom;

use crate::config::Config;
use crate::control_socket::Asked;
use crate::counters::Counters;
use crate::forward::Services;
use crate::memory;
use crate::readings::handle::Readings;
use crate::state::{State, StateError};
use crate::watchdog;

use carriers::{Built, SessionRuntime};

/// Carriers' reports that wait for the loop.
const NOTES: usize = 256;

/// Answers to revoked phones in a burst, then one every [`FAREWELL_EVERY`]: a
/// household's phones at once; each answer is a signature and 300 bytes.
const FAREWELLS: u32 = 8;

/// See [`FAREWELLS`]. A revoked phone asks once a minute.
const FAREWELL_EVERY: Duration = Duration::from_secs(5);

/// Both ends of a queue into the loop.
type Queue<T> = (async_channel::Sender<T>, async_channel::Receiver<T>);

/// What the loop is made from.
pub struct Setup {
    /// The checked config.
    pub config: Config,
    /// The open state.
    pub state: State,
    /// What opening it found.
    pub alarms: Vec<String>,
    /// The log of readings, running.
    pub readings: Readings,
    /// How often the agent's own readings are taken; `None` for never.
    pub own_readings: async_channel::Sender<Option<std::time::Duration>>,
    /// This run.
    pub boot: BootId,
    /// Knows the broker's address.
    pub dialer: Dialer,
    /// The link to the broker.
    pub broker: BrokerSocket,
    /// What it tells.
    pub broker_events: async_channel::Receiver<BrokerEvent>,
    /// The address watch, where netlink works.
    pub watch: Option<(AddressWatch, async_channel::Receiver<Told>)>,
    /// Local commands.
    pub asked: async_channel::Receiver<Asked>,
    /// Who asks all loops for progress.
    pub progress: Progress,
    /// Says when to stop or to read the config again.
    pub orders: async_channel::Receiver<Order>,
}

/// What the operating system or an installer wants.
#[derive(Debug, Clone)]
pub enum Order {
    /// Stop in good order.
    Stop,
    /// Go on with another config, which has been checked.
    Reload(Box<Config>),
}

/// The farm.
pub struct Farm {
    config: Config,
    state: State,
    key: Arc<DeviceKey>,
    id: FarmId,
    boot: BootId,
    epoch: Epoch,
    started: Instant,
    alarms: Vec<String>,
    readings: Readings,
    own_readings: async_channel::Sender<Option<std::time::Duration>>,
    dialer: Dialer,
    broker: BrokerSocket,
    welcome: Option<Welcome>,
    watch: Option<AddressWatch>,
    public_address: Option<SocketAddr>,
    lifecycle: Lifecycle,
    sessions: BTreeMap<SessionId, SessionRuntime>,
    /// Carriers of ended sessions that are still to be closed.
    closing: BTreeMap<(SessionId, Epoch), carriers::Slot>,
    services: Services,
    counters: Counters,
    progress: Progress,
    notes: Queue<(CarrierId, Note)>,
    built: Queue<Built>,
    random: SystemRandom,
    /// Answers to phones that were revoked.
    farewells: RateLimit,
    faults: Faults,
    history: History,
    /// A start of the machine that the event log has heard of and the store has not.
    machine_start: Option<BootId>,
    tidy: tidy::Tidy,
    /// Netlink says that there is no address.
    offline: bool,
    /// The broker's clock agrees with ours.
    clock_trusted: bool,
}

enum Step {
    Broker(Option<BrokerEvent>),
    Told(Told),
    WatchGone,
    Note(CarrierId, Note),
    Built(Built),
    Local(Asked),
    Order(Option<Order>),
    Timeout,
    Asked,
}

/// The next item; waits for ever once the other end is gone.
async fn next<T>(channel: &async_channel::Receiver<T>) -> T {
    match channel.recv().await {
        Ok(item) => item,
        Err(_) => std::future::pending().await,
    }
}

/// Seconds since 1970 by the device's clock.
pub fn wall_time() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Runs until told to stop.
pub async fn run(setup: Setup) {
    let beat = setup.progress.watch("farm");
    let (watch, told) = setup.watch.unzip();
    let key = setup.state.key();
    let history = history::open(&setup.state, Instant::now());
    let mut farm = Farm {
        id: setup.state.farm(),
        epoch: setup.state.start(),
        boot: setup.boot,
        started: Instant::now(),
        lifecycle: Lifecycle::new(setup.boot),
        services: Services::new(&setup.config.services),
        config: setup.config,
        state: setup.state,
        key,
        alarms: setup.alarms,
        readings: setup.readings,
        own_readings: setup.own_readings,
        dialer: setup.dialer,
        broker: setup.broker,
        welcome: None,
        watch,
        public_address: None,
        sessions: BTreeMap::new(),
        closing: BTreeMap::new(),
        counters: Counters::default(),
        progress: setup.progress,
        notes: async_channel::bounded(NOTES),
        built: async_channel::bounded(NOTES),
        random: SystemRandom::new(),
        farewells: RateLimit::new(FAREWELLS, FAREWELL_EVERY),
        faults: Faults::default(),
        history,
        machine_start: None,
        tidy: tidy::Tidy::default(),
        offline: false,
        clock_trusted: false,
    };
    let (notes, built) = (farm.notes.1.clone(), farm.built.1.clone());
    loop {
        beat.pass().await;
        farm.observe(Instant::now()).await;
        let deadline = farm.lifecycle.poll_timeout().map(|(when, _)| when);
        let deadline =
            deadline.into_iter().chain(farm.history.poll_timeout()).chain(farm.tidy.poll_timeout()).min();
        let step = step(
            &setup.broker_events,
            told.as_ref(),
            &notes,
            &built,
            &setup.asked,
            &setup.orders,
            deadline,
            &beat,
        );
        match step.await {
            Step::Broker(Some(event)) => farm.broker_event(event).await,
            Step::Broker(None) | Step::Asked => {}
            Step::Told(told) => farm.address(told),
            Step::WatchGone => tracing::error!("the address watch has ended"),
            Step::Note(carrier, note) => farm.note(carrier, note),
            Step::Built(built) => farm.built(built),
            Step::Local(asked) => farm.local(asked).await,
            Step::Order(Some(Order::Reload(config))) => farm.reload(*config).await,
            Step::Order(Some(Order::Stop) | None) => return farm.stop().await,
            Step::Timeout => {
                let now = Instant::now();
                if farm.tidy.take(now) {
                    memory::give_back();
                }
                farm.lifecycle.handle_timeout(now);
                farm.act(None);
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "each is one thing to wait for")]
async fn step(
    broker: &async_channel::Receiver<BrokerEvent>,
    told: Option<&async_channel::Receiver<Told>>,
    notes: &async_channel::Receiver<(CarrierId, Note)>,
    built: &async_channel::Receiver<Built>,
    asked: &async_channel::Receiver<Asked>,
    orders: &async_channel::Receiver<Order>,
    deadline: Option<Instant>,
    beat: &Beat,
) -> Step {
    let broker = async { Step::Broker(Some(next(broker).await)) };
    let told = async {
        match told {
            Some(told) => told.recv().await.map_or(Step::WatchGone, Step::Told),
            None => std::future::pending().await,
        }
    };
    let note = async {
        let (carrier, note) = next(notes).await;
        Step::Note(carrier, note)
    };
    let built = async { Step::Built(next(built).await) };
    let local = async { Step::Local(next(asked).await) };
    let order = async { Step::Order(orders.recv().await.ok()) };
    let timer = async {
        match deadline {
            Some(when) => {
                smol::Timer::at(when).await;
                Step::Timeout
            }
            None => std::future::pending().await,
        }
    };
    let beat = async {
        beat.asked().await;
        Step::Asked
    };
    use smol::future::or;
    or(or(or(order, beat), or(broker, told)), or(or(note, built), or(local, timer))).await
}

impl Farm {
    async fn broker_event(&mut self, event: BrokerEvent) {
        match event {
            BrokerEvent::State(state) => self.link_changed(&state),
            BrokerEvent::Online(welcome) => self.online(welcome).await,
            BrokerEvent::Message(FromBroker::Signal(signal)) => {
                self.signal(signal.peer, &signal.payload).await;
            }
            // A farm asks for nothing that has these answers.
            BrokerEvent::Message(message) => tracing::debug!(?message, "from the broker"),
            BrokerEvent::Superseded => {
                tracing::error!(
                    "another connection with this farm's key took this one's place: is a copy of this card in use?"
                );
            }
            BrokerEvent::StaleEpoch(newest) => match self.state.jump_past(newest).await {
                Ok(epoch) => {
                    tracing::warn!("the broker knows a newer start of this farm: counting on from there");
                    self.epoch = epoch;
                    self.broker.set_epoch(epoch);
                    self.broker.event(link::Event::Start);
                }
                Err(error) => tracing::error!(%error, "the broker says that another start is newer"),
            },
        }
    }

    fn link_changed(&self, state: &link::State) {
        if let Some(watch) = &self.watch {
            watch.vouched(*state == link::State::Online);
        }
        match state {
            link::State::Online => tracing::info!("online at the broker"),
            link::State::Offline { reason, attempt, .. }
                if *attempt <= 1 && *reason != link::Reason::Started =>
            {
                tracing::info!(%reason, "offline: not connected to the broker; tunnels go on, reconnecting for ever");
            }
            other => tracing::debug!(state = other.name(), "broker link"),
        }
        let text = format!("broker {}, {} sessions", state.name(), self.sessions.len());
        watchdog::notify(&[sd_notify::NotifyState::Status(&text)]);
    }

    async fn online(&mut self, welcome: Welcome) {
        self.tell_access();
        let address = self.dialer.to_be_stored();
        if let Some(address) = address
            && !matches!(self.state.broker_address(), Ok(Some(known)) if known == address)
            && let Err(error) = self.state.remember_broker_address(address).await
        {
            tracing::error!(%error, "the broker's address could not be stored");
        }
        if let Some(watch) = &self.watch {
            watch.probe_target(self.dialer.stun_address(&welcome));
            if let Ok(observed) = welcome.observed.parse::<SocketAddr>() {
                watch.broker_echo(observed.ip());
            }
        }
        self.readings.clock().told(std::time::Duration::from_secs(welcome.time));
        self.readings.clock_changed();
        self.broker_time(welcome.time, Instant::now()).await;
        self.welcome = Some(welcome);
        self.tidy.happened(Instant::now());
    }

    /// Who may come: told anew after each welcome and each change.
    fn tell_access(&self) {
        let access = || -> Result<Access, StateError> {
            let phones = self.state.phones()?.into_iter().map(|(id, _)| id).collect();
            let now = wall_time();
            let invitations = (self.state.invitations()?.into_iter())
                .filter(|(_, record)| record.open.expires > now)
                .map(|(id, _)| id)
                .collect();
            let former = self.state.revoked()?.into_iter().map(|(id, _)| id).collect();
            Ok(Access { phones, invitations, former })
        };
        match access() {
            Ok(access) => {
                self.broker.send(ToBroker::Access(access));
            }
            Err(error) => tracing::error!(%error, "the paired phones can't be read"),
        }
    }

    fn address(&mut self, told: Told) {
        match told {
            Told::ProbeAnswered(address) => {
                self.public_address = Some(address);
                self.broker.event(link::Event::ProbeAnswered);
            }
            Told::Verdict(Verdict::Changed(witness)) => {
                self.offline = false;
                tracing::info!(witness = witness.name(), "the address changed");
                // The epoch first: a connection that is made anew says it at once.
                self.new_epoch();
                self.broker.event(link::Event::NetworkChanged(link::NetworkChange::AddressChanged));
            }
            Told::Verdict(Verdict::Online) => {
                self.offline = false;
                tracing::info!("the network is back");
                self.new_epoch();
                self.broker.event(link::Event::NetworkChanged(link::NetworkChange::Up));
            }
            Told::Verdict(Verdict::Offline) => {
                self.offline = true;
                tracing::info!("the network is gone");
                self.broker.event(link::Event::NetworkChanged(link::NetworkChange::Down));
                self.suspect_carriers();
            }
            Told::Verdict(Verdict::ProbeLost) => self.broker.event(link::Event::ProbeLost),
            Told::Verdict(Verdict::PathBack) => {
                tracing::info!("the path to the broker is back");
                // Offers of phones without a carrier may have been lost with it;
                // the others need not hear of it.
                if self.lifecycle.snapshot().iter().any(|session| session.live.is_none()) {
                    self.new_epoch();
                }
                self.broker.event(link::Event::PathBack);
            }
        }
    }

    /// Everybody is told that the address is another one, phones through the
    /// broker's presence; and every carrier must show that it still works.
    fn new_epoch(&mut self) {
        self.epoch = self.epoch.next();
        self.broker.set_epoch(self.epoch);
        self.suspect_carriers();
    }

    async fn reload(&mut self, config: Config) {
        let broker = |config: &Config| (config.broker.clone(), config.broker_ca.clone(), config.broker_key);
        if broker(&config) != broker(&self.config) {
            tracing::warn!("the broker in the config changed: restart the agent to use the new one");
        }
        self.services.replace(&config.services);
        if config.readings != self.config.readings {
            self.readings.configure(config.readings.settings()).await;
            // Full: the one before was not taken up yet; the next reload tells.
            let _ = self.own_readings.try_send(config.readings.interval);
        }
        self.config = config;
        self.tell_info();
        tracing::info!(services = self.config.services.len(), "the config was read again");
    }

    /// Signs a signal for a phone and hands it to the broker.
    fn say(&self, session: SessionId, epoch: Epoch, content: Content) {
        let signal =
            PeerSignal { from: farm_protocol::broker::Role::Farm, farm: self.id, session, epoch, content };
        match signal.sign(&self.key) {
            Ok(signed) => self.send_payload(session, &Payload::Signed(signed)),
            Err(error) => tracing::error!(%error, "a signal could not be encoded"),
        }
    }

    fn send_payload(&self, session: SessionId, payload: &Payload) {
        match codec::encode(payload) {
            Ok(payload) => {
                let peer = farm_protocol::broker::Address::Phone(session);
                self.broker.send(ToBroker::Signal(farm_protocol::broker::Signal { peer, payload }));
            }
            Err(error) => tracing::error!(%error, "a signal could not be encoded"),
        }
    }

    fn nonce(&self) -> Option<Nonce> {
        Nonce::generate(&self.random).inspect_err(|error| tracing::error!(%error, "no nonce")).ok()
    }

    async fn stop(mut self) {
        watchdog::notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("stopping");
        self.lifecycle.handle(Event::Stop, Instant::now());
        self.act(None);
        self.broker.event(link::Event::Stop);
        // For the goodbyes to leave; nobody waits for an answer.
        smol::Timer::after(std::time::Duration::from_millis(100)).await;
        self.readings.stop().await;
        self.close_history(Instant::now()).await;
        self.state.close().await
    }
}
