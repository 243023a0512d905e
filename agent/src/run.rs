//! `farm-agent run`: puts the parts together and starts them.

use std::path::PathBuf;

use async_signal::{Signal, Signals};
use farm_protocol::broker::Role;
use farm_protocol::id::{BootId, Slot};
use farm_tunnel::address_watch::AddressWatch;
use farm_tunnel::broker_socket::{BrokerSocket, Dialer, Identity, Trust, TrustError};
use farm_tunnel::clock::Clock;
use farm_tunnel::progress::Progress;
use futures_util::StreamExt;
use ring::rand::{SecureRandom, SystemRandom};
use sd_notify::NotifyState;

use crate::config::{Config, ConfigError};
use crate::control_socket::{self, ControlError};
use crate::farm::{self, Order, Setup};
use crate::readings::builtin::Builtin;
use crate::readings::{socket, writer};
use crate::state::{State, StateError};
use crate::watchdog;

/// Local commands that wait for the farm's loop.
const COMMANDS: usize = 16;

/// What `run` is given.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The config file.
    pub config: PathBuf,
    /// The state directory.
    pub state: PathBuf,
}

/// Why the agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The certificate authorities.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Signals can't be caught.
    #[error("signals can't be caught: {0}")]
    Signals(std::io::Error),
    /// No randomness.
    #[error("the operating system gave no randomness")]
    NoRandomness,
}

/// Runs until SIGTERM or SIGINT; SIGHUP reads the config again.
///
/// # Errors
/// [`RunError`], only before the agent is ready: after that it never gives up.
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let panicked = farm_store::restart_on_panic();
    let config = Config::load(&options.config)?;
    let trust = match (&config.broker_key, &config.broker_ca) {
        (Some(pin), _) => Trust::pinned(*pin)?,
        (None, Some(path)) => Trust::from_pem(path)?,
        (None, None) => Trust::public()?,
    };
    let clock = Clock::new();
    let trust = trust.by(&clock);
    if config.broker.iter().any(|broker| !broker.secure) {
        tracing::warn!("the broker is reached without TLS (ws://): for labs, or a TLS proxy in front of it");
    }
    let (state, report) = State::open(&options.state, clock.now().time.as_secs())?;
    let log =
        writer::open(state.store(), &report, clock, config.readings.settings()).map_err(StateError::from)?;
    let mut alarms: Vec<String> = report.alarms.iter().map(ToString::to_string).collect();
    alarms.iter().for_each(|alarm| tracing::error!(alarm, "the stored state"));
    alarms.extend(panicked.map(|text| format!("the agent failed and was started anew: {text}")));
    let signals = Signals::new([Signal::Term, Signal::Int, Signal::Hup]).map_err(RunError::Signals)?;
    let listener = control_socket::listen(&options.state)?;
    let mut record_listeners = vec![socket::listen(&options.state.join(socket::SOCKET))?];
    record_listeners.extend(config.readings.socket.as_deref().map(socket::listen).transpose()?);

    let random = SystemRandom::new();
    let (mut boot, mut seed) = ([0; BootId::LEN], [0; 8]);
    random.fill(&mut boot).and_then(|()| random.fill(&mut seed)).map_err(|_| RunError::NoRandomness)?;
    let boot = BootId::from_bytes(boot);

    let progress = Progress::new();
    let dialer = Dialer::new(config.broker.clone(), trust, state.broker_address()?);
    let identity = Identity {
        key: state.key(),
        role: Role::Farm,
        slot: Slot::default(),
        boot,
        name: Some(config.name.clone()),
        enrollment_token: config.enrollment_token.clone(),
    };
    let (broker, broker_events) = BrokerSocket::start(
        dialer.clone(),
        identity,
        state.start(),
        u64::from_be_bytes(seed),
        progress.watch("broker link"),
    );
    let watch = match AddressWatch::start(progress.watch("address watch")) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::error!(%error, "addresses can't be watched: a change is noticed by missed pings only");
            None
        }
    };
    let (ask, asked) = async_channel::bounded(COMMANDS);
    let readings = log.readings.clone();
    farm_tunnel::executor::spawn(log.run(progress.watch("readings"))).detach();
    for listener in record_listeners {
        farm_tunnel::executor::spawn(socket::serve(listener, readings.clone())).detach();
    }
    let (own_readings, interval) = async_channel::bounded(1);
    // Empty and open: there is room.
    let _ = own_readings.try_send(config.readings.interval);
    let builtin =
        Builtin { readings: readings.clone(), interval, ask: ask.clone(), state: options.state.clone() };
    farm_tunnel::executor::spawn(builtin.run(progress.watch("own readings"))).detach();
    farm_tunnel::executor::spawn(control_socket::serve(listener, ask)).detach();
    farm_tunnel::executor::spawn(watchdog::feed(progress.clone())).detach();
    let (order, orders) = async_channel::bounded(1);
    farm_tunnel::executor::spawn(obey(signals, options.config, order)).detach();

    println!("farm-agent ready: farm {} ({})", state.farm(), config.name);
    watchdog::notify(&[NotifyState::Ready, NotifyState::Status("started; connecting to the broker")]);
    let setup = Setup {
        config,
        state,
        alarms,
        readings,
        own_readings,
        boot,
        dialer,
        broker,
        broker_events,
        watch,
        asked,
        progress,
        orders,
    };
    farm::run(setup).await;
    Ok(())
}

/// Turns signals into orders.
async fn obey(mut signals: Signals, config: PathBuf, order: async_channel::Sender<Order>) {
    while let Some(signal) = signals.next().await {
        let wanted = match signal {
            Ok(Signal::Hup) => match Config::load(&config) {
                Ok(config) => Order::Reload(Box::new(config)),
                Err(error) => {
                    tracing::error!(%error, "the last good config goes on");
                    continue;
                }
            },
            Ok(_) => Order::Stop,
            Err(error) => {
                tracing::warn!(%error, "a signal was lost");
                continue;
            }
        };
        if order.send(wanted).await.is_err() {
            return;
        }
    }
}
