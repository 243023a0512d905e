//! A tunnel to one farm: one loop that owns the session, the link to the
//! broker and the carriers, and does what the cores decide.

mod carriers;
mod pairing;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use farm_protocol::id::BootId;
use farm_protocol::keys::DeviceKey;
use farm_tunnel::address_watch::AddressWatch;
use farm_tunnel::broker_socket::{BrokerEvent, BrokerSocket, Dialer, Identity, Trust, TrustError};
use farm_tunnel::fault::{Fault, LONGEST};
use farm_tunnel::mux::{self, OpenError};
use farm_tunnel::progress::Beat;
use farm_tunnel::stream::{Stream, Streams};
use ring::rand::{SecureRandom, SystemRandom};

use crate::attention::Attention;
use crate::client::{Client, ClientError, FarmRecord};
use crate::slot::HeldSlot;
use crate::status::Status;

/// Commands that wait for the loop.
const COMMANDS: usize = 32;

/// Between two looks whether the tunnel is live, in [`Tunnel::wait_live`].
const LIVE_POLL: Duration = Duration::from_millis(2);

/// Why a tunnel can't start.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The device's state.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// TLS.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No randomness.
    #[error("the operating system gave no randomness")]
    NoRandomness,
}

pub(crate) enum Command {
    Status(async_channel::Sender<Status>),
    /// Fail on purpose.
    Fault(Fault, Duration),
    Stop,
}

/// A running tunnel. It keeps itself alive, for ever, until dropped or
/// stopped. Clones are handles of the same tunnel.
#[derive(Clone)]
pub struct Tunnel {
    streams: Streams,
    commands: async_channel::Sender<Command>,
    watchers: Arc<AtomicUsize>,
    attention: async_channel::Sender<()>,
    pairing: pairing::Pairing,
}

impl Tunnel {
    /// Starts connecting to a farm.
    ///
    /// # Errors
    /// [`TunnelError`]: only what no waiting can mend.
    pub fn start(client: &Client, farm: &FarmRecord) -> Result<Self, TunnelError> {
        let slot = HeldSlot::take(client.directory())?;
        let trust = trust()?;
        let random = SystemRandom::new();
        let (mut boot, mut seed) = ([0; BootId::LEN], [0; 8]);
        random
            .fill(&mut boot)
            .and_then(|()| random.fill(&mut seed))
            .map_err(|_| TunnelError::NoRandomness)?;
        let boot = BootId::from_bytes(boot);
        let seed = u64::from_be_bytes(seed);
        let dialer = Dialer::new(farm.broker.clone(), trust, client.broker_address(&farm.id()));
        let (broker, broker_events) = start_link(&dialer, client.key(), boot, &slot, seed);
        let watch = match AddressWatch::start(Beat::unwatched()) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, "addresses can't be watched: a change is noticed by missed pings only");
                None
            }
        };
        let (streams, _) = Streams::new(mux::Role::Phone);
        let (commands, commanded) = async_channel::bounded(COMMANDS);
        let (attention, attended) = async_channel::bounded(1);
        let watchers = Arc::new(AtomicUsize::new(0));
        let pairing = pairing::Pairing::new();
        let worker = worker::Worker::new(worker::Setup {
            farm: farm.clone(),
            client: client.clone(),
            key: client.key(),
            phone: client.id(),
            slot,
            boot,
            seed,
            dialer,
            broker,
            broker_events,
            streams: streams.clone(),
            watchers: watchers.clone(),
            pairing: pairing.clone(),
        });
        farm_tunnel::executor::spawn(worker.run(watch, commanded, attended)).detach();
        Ok(Self { streams, commands, watchers, attention, pairing })
    }

    /// Opens a stream to a service of the farm. It works at once, also while
    /// the farm is away: what is written waits.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, service: &str) -> Result<Stream, OpenError> {
        let stream = self.streams.open(service)?;
        // A resting tunnel is to wake up. Full: it will look anyway.
        let _ = self.attention.try_send(());
        Ok(stream)
    }

    /// Somebody looks, until the returned guard is dropped.
    pub fn attend(&self) -> Attention {
        Attention::new(self.watchers.clone(), self.attention.clone())
    }

    /// How the tunnel stands; `None` once it has stopped.
    pub async fn status(&self) -> Option<Status> {
        let (ask, answer) = async_channel::bounded(1);
        self.commands.send(Command::Status(ask)).await.ok()?;
        answer.recv().await.ok()
    }

    /// Waits until data flows, at most that long; says whether it does. It
    /// does not wait for a farm that no longer knows this device.
    pub async fn wait_live(&self, within: Duration) -> bool {
        let _attention = self.attend();
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            match self.status().await {
                Some(status) if status.state == "live" => return true,
                Some(status) if status.state == "not_paired" => return false,
                Some(_) => {
                    smol::Timer::after(LIVE_POLL).await;
                }
                None => return false,
            }
        }
        false
    }

    /// Returns when, or if already, the farm no longer knows this device:
    /// streams would wait in vain until it is paired again.
    pub async fn not_paired(&self) {
        self.pairing.over().await;
    }

    /// Whether the farm no longer knows this device.
    pub fn is_not_paired(&self) -> bool {
        self.pairing.is_over()
    }

    /// Fault injection, for demos and tests: this tunnel fails in the given
    /// way, for at most [`farm_tunnel::fault::LONGEST`].
    pub async fn inject(&self, fault: Fault, lasting: Duration) {
        // Closed: it has stopped.
        let _ = self.commands.send(Command::Fault(fault, lasting.min(LONGEST))).await;
    }

    /// Ends the session: the farm is told, and forgets it.
    pub async fn stop(&self) {
        // Closed: it has stopped already.
        let _ = self.commands.send(Command::Stop).await;
        self.commands.close();
    }

    /// How many look.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Acquire)
    }
}

/// Starts the link to the broker in a slot.
fn start_link(
    dialer: &Dialer,
    key: Arc<DeviceKey>,
    boot: BootId,
    slot: &HeldSlot,
    seed: u64,
) -> (BrokerSocket, async_channel::Receiver<BrokerEvent>) {
    let identity = Identity {
        key,
        role: farm_protocol::broker::Role::Phone,
        slot: slot.slot(),
        boot,
        name: None,
        enrollment_token: None,
    };
    BrokerSocket::start(dialer.clone(), identity, slot.start(), seed, Beat::unwatched())
}

/// The public authorities; or the one key that the environment variable
/// `FARM_BROKER_KEY` holds, or those of the PEM file that `FARM_BROKER_CA`
/// names.
pub(crate) fn trust() -> Result<Trust, TrustError> {
    if let Some(key) = std::env::var_os("FARM_BROKER_KEY") {
        return Trust::pinned(key.to_string_lossy().parse()?);
    }
    match std::env::var_os("FARM_BROKER_CA") {
        Some(path) => Trust::from_pem(path.as_ref()),
        None => Trust::public(),
    }
}
