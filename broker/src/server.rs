//! The server: everything around the core that does I/O.

mod accept;
mod actor;
mod address;
mod admission;
mod blocking;
mod datagrams;
mod desk;
mod digest;
mod herald;
pub mod http;
pub mod inherited;
pub mod listen;
pub mod metrics;
mod options;
mod origin;
pub mod outbox;
mod reactor;
mod redirect;
pub mod relay;
mod report;
mod scribe;
pub mod site;
mod socket;
mod stun;
mod tally;
mod thread;
pub mod tls;
mod together;
pub mod webhook;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use farm_store::Store;
use ring::rand::{SecureRandom, SystemRandom};
use smol::{Task, Timer};

use crate::core::counters::Counters;
use crate::core::relay::{Issuer, Reach, Secret};
use crate::core::{Core, Event, Limits, Settings};
use crate::register::Register;
use crate::store::{self, Records};
use accept::accept;
use actor::{Actor, Input};
use admission::Admission;
use datagrams::{Datagrams, Served, Watched};
use desk::Desk;
use digest::Digest;
use herald::{Ear, News};
use http::Front;
use listen::ListenError;
use metrics::Metrics;
use outbox::Waiting;
use reactor::Listener;
use redirect::Redirect;
use relay::{AddressError, Relay};
use report::{Report, reported};
use tally::Tally;
use thread::{Manners, Thread};
use tls::{Opened, Tls};

pub use options::{AlertOptions, Changes, Options, RelayChoice, StartError};

/// Devices get this long to take their farewell when the broker ends, and
/// whoever was accepted just before to get an answer: the sockets' own farewell
/// takes at most 2 s, see also `DRAIN` in `http`.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(3);

/// Sockets of collectors of figures.
const COLLECTORS: usize = 16;

/// A running broker. It runs on threads of its own, see [`thread`].
pub struct Server {
    address: SocketAddr,
    redirect: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    stun: Option<SocketAddr>,
    relay: Option<Arc<Relay>>,
    /// Asks for the certificate to be read again.
    renew: Option<Sender<()>>,
    admission: Admission,
    ear: Ear,
    inputs: Sender<Input>,
    ended: Receiver<Infallible>,
    store: Store,
    actor: Task<()>,
    scribe: Task<()>,
    /// Dropped when the broker ends: requests for pages end then.
    running: Sender<Infallible>,
    /// Who wants in, and who is in.
    threads: [Thread; 2],
    tasks: Vec<Task<()>>,
    datagrams: Datagrams,
    failures: Receiver<&'static str>,
}

impl Server {
    /// Brings the broker up: when this returns, devices can connect.
    ///
    /// # Errors
    /// [`StartError`]; its text says what to do.
    pub async fn start(mut options: Options) -> Result<Self, StartError> {
        let (listener, stun_socket) = listen::bind(&mut options.inherited, options.listen, options.stun)?;
        let address = local(listener.local_addr(), options.listen)?;
        let redirect =
            listen::bind_plain(&mut options.inherited, options.redirect, "redirect in the config")?;
        let metrics = listen::bind_plain(&mut options.inherited, options.metrics, "metrics in the config")?;
        for address in options.inherited.unused() {
            tracing::warn!(%address, "a socket of the service manager is not used: the config names no such address");
        }
        let metrics_address = metrics.as_ref().and_then(|listener| listener.local_addr().ok());
        let redirect_address = redirect.as_ref().and_then(|listener| listener.local_addr().ok());
        let secured = options.tls.map(Tls::open).transpose()?;
        let stun = match &stun_socket {
            Some(socket) => Some(local(socket.local_addr(), options.listen)?),
            None => None,
        };
        let (store, records) = open(options.state.clone()).await?;
        // After the store: its lock says that no other broker lives here.
        let desk_listener = desk::open(&options.state)?;

        let strangers = Thread::start("strangers", Manners::GivesWay).map_err(StartError::Thread)?;
        let inside = Thread::start("devices", Manners::Equal).map_err(StartError::Thread)?;
        let (door, devices) = (strangers.door(), inside.door());
        let listening =
            [Some(address), redirect_address, metrics_address, stun].into_iter().flatten().collect();
        let watched = Arc::new(Watched::new().map_err(StartError::Sockets)?);
        let clients = stun_socket.map(Arc::new);
        let (relay, issuer) = match options.relay {
            RelayChoice::Off => (None, None),
            RelayChoice::External(reach, secret) => {
                (None, Some(Issuer { secret: Secret::new(secret.as_bytes()), reach }))
            }
            RelayChoice::Embedded(relay, host) => {
                let secret = match &relay.secret {
                    Some(secret) => Secret::new(secret.as_bytes()),
                    None => Secret::new(&store::relay_secret(&store, random()?).await?),
                };
                let tls = secured.is_some().then_some(address.port());
                // Without TLS here and with a proxy in front, TCP ends at the
                // proxy, which knows HTTP only.
                let plain = options.trusted_proxies.is_empty() || secured.is_some();
                let tcp = plain.then_some(address.port());
                let reach = Reach { host, udp: stun.map(|address| address.port()), tcp, tls };
                let spoken = reach.udp.or(reach.tcp).or(reach.tls);
                match Relay::new(
                    relay,
                    secret.clone(),
                    &random()?,
                    clients.clone(),
                    listening,
                    watched.clone(),
                    door.clone(),
                ) {
                    Ok(relay) => (Some(relay), spoken.map(|_| Issuer { secret, reach })),
                    // No network yet, say: the rest works without it.
                    Err(error @ AddressError::None) => {
                        tracing::warn!(%error, "starting without a relay");
                        (None, None)
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let (inputs, received) = async_channel::bounded(actor::QUEUE);
        let (alive, ended) = async_channel::bounded(1);
        let (running, stopping) = async_channel::bounded(1);
        let settings = Settings {
            names: options.names,
            stun_port: stun.map(|address| address.port()),
            relay: issuer,
            cluster: options.cluster.as_ref().map(|engine| engine.membership()),
            limits: options.limits,
            alert_after: options.alerts.as_ref().map(|alerts| alerts.after),
        };
        let limits = settings.limits.clone();
        let tally = Arc::new(Tally::default());
        let admission = Admission::new(&limits, tally.clone());
        let counted = admission.clone();
        let now = actor::now();
        let wire = options.cluster.as_ref().map(|engine| engine.wire());
        let register: Arc<dyn Register> = match &options.cluster {
            Some(engine) => engine.register(),
            None => Arc::new(store.clone()),
        };
        // A cluster's tokens are the engine's alone: what is here is old.
        let tokens = if options.cluster.is_some() { Vec::new() } else { records.tokens };
        let mut core = Core::new(settings, records.farms, tokens, now);
        if let Some(relay) = &relay {
            // Their credentials outlive a restart.
            records
                .revoked
                .iter()
                .filter_map(|(farm, _)| core.relay_account(*farm))
                .for_each(|account| relay.revoke(account));
        }
        core.keep_out(records.revoked);
        core.remember(records.past, now);
        core.watch_absences(records.told, now);
        let (notes, scribe) = scribe::hire(store.clone());
        let webhook = options.alerts.map(|alerts| Box::new(alerts.webhook));
        let (ear, herald) = herald::hire(webhook, notes.clone(), tally.clone());
        let actor = Actor {
            core,
            notes,
            register: register.clone(),
            wire,
            ear: ear.clone(),
            inputs: received,
            reports: inputs.clone(),
            outboxes: BTreeMap::new(),
            digest: Digest::new(Instant::now()),
            tally: tally.clone(),
            relay: relay.clone(),
            tasks: devices.clone(),
        };
        let held_by_redirect = alive.clone();
        let front = Arc::new(Front {
            inputs: inputs.clone(),
            site: options.site,
            origins: options.origins,
            requests: limits.requests,
            tally: tally.clone(),
            trusted_proxies: options.trusted_proxies,
            waiting: Waiting::default(),
            next_connection: AtomicU64::new(1),
            alive,
            stopping,
            relay: relay.clone(),
            devices: devices.clone(),
        });
        let desk = Desk { inputs: inputs.clone(), register, tasks: devices.clone() };
        let (failed, failures) = async_channel::bounded(1);
        let actor = devices.spawn(reported("core", &failed, actor.run()));
        let scribe = devices.spawn(scribe.run());
        let (tls, renewal, renew, expiry) = match secured {
            Some(Opened { tls, renewal, renew, expiry }) => {
                (Some(tls), Some(renewal), Some(renew), Some(expiry))
            }
            None => (None, None, None, None),
        };
        let proxies = front.trusted_proxies.clone();
        let welcome = move |stream, peer, ticket| front.clone().welcome(tls.clone(), stream, peer, ticket);
        let mut tasks = vec![
            door.spawn(reported(
                "listener",
                &failed,
                accept(Listener::new(listener), admission.clone(), proxies.clone(), door.clone(), welcome),
            )),
            devices.spawn(reported("admin socket", &failed, desk.serve(desk_listener))),
            devices.spawn(reported("herald", &failed, herald.run())),
        ];
        tasks.extend(options.cluster.map(|engine| {
            let (events, reported_events) = async_channel::bounded(actor::QUEUE);
            let (inputs, store) = (inputs.clone(), store.clone());
            let forwarded = async move {
                while let Ok(event) = reported_events.recv().await {
                    if inputs.send(Input::Event(event)).await.is_err() {
                        return;
                    }
                }
            };
            let run = async move {
                smol::future::zip(engine.run(events, store), forwarded).await;
            };
            devices.spawn(reported("engine", &failed, run))
        }));
        let clients = clients.map(|clients| (clients, stun::Desk::new(&limits, tally.clone())));
        let served = Served { clients, relay: relay.clone() };
        let report = Report("datagrams", failed.clone());
        let datagrams = Datagrams::start(watched, served, report).map_err(StartError::Thread)?;
        tasks.extend(relay.clone().map(|relay| door.spawn(reported("relay", &failed, relay.run()))));
        tasks.extend(
            renewal.map(|renewal| devices.spawn(reported("certificate renewal", &failed, renewal.run()))),
        );
        tasks.extend(redirect.map(|listener| {
            let (authority, port) = (options.authority, address.port());
            let redirect = Arc::new(Redirect { authority, port, _alive: held_by_redirect });
            let serve = move |stream, _peer, ticket| redirect.clone().serve(stream, ticket);
            door.spawn(reported(
                "redirect",
                &failed,
                accept(Listener::new(listener), admission.clone(), proxies, door.clone(), serve),
            ))
        }));
        tasks.extend(metrics.map(|listener| {
            let (inputs, admission) = (inputs.clone(), counted);
            let relay = relay.clone();
            let metrics = Arc::new(Metrics { inputs, admission, relay, started: Instant::now(), expiry });
            let serve = move |stream, _peer, ticket| metrics.clone().serve(stream, ticket);
            // Its own: figures are wanted most when everything else is full.
            let few = Limits { sockets: COLLECTORS, ..limits.clone() };
            let admission = Admission::new(&few, Arc::default());
            let served = accept(Listener::new(listener), admission, Vec::new(), door.clone(), serve);
            door.spawn(reported("metrics", &failed, served))
        }));
        Ok(Self {
            address,
            redirect: redirect_address,
            metrics: metrics_address,
            stun,
            relay,
            renew,
            admission,
            ear,
            inputs,
            ended,
            store,
            actor,
            scribe,
            running,
            threads: [strangers, inside],
            tasks,
            datagrams,
            failures,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it sends browsers on to `https`.
    pub fn redirect_address(&self) -> Option<SocketAddr> {
        self.redirect
    }

    /// Where it shows figures.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Puts changed settings in force; whoever is in stays in.
    pub async fn change(&self, changes: Changes) {
        let Changes { limits, relay_limits, alerts } = changes;
        self.admission.change(&limits);
        if let (Some(relay), Some(limits)) = (&self.relay, relay_limits) {
            relay.set_limits(limits);
        }
        let alert_after = alerts.as_ref().map(|alerts| alerts.after);
        // The webhook first: the core may have something to tell at once.
        self.ear.tell(News::Webhook(alerts.map(|alerts| Box::new(alerts.webhook))));
        let Limits { connections, connections_per_address, .. } = limits;
        let event = Event::Reconfigured { connections, connections_per_address, alert_after };
        // Refused only when the broker is ending.
        let _ended = self.inputs.send(Input::Event(event)).await;
    }

    /// Reads the certificate again; the log says how it went.
    pub fn renew_certificate(&self) {
        if let Some(renew) = &self.renew {
            // Full: it is about to be read.
            let _asked = renew.try_send(());
        }
    }

    /// Where it answers STUN.
    pub fn stun_address(&self) -> Option<SocketAddr> {
        self.stun
    }

    /// The addresses of what is relayed; empty without a relay of its own.
    pub fn relay_addresses(&self) -> Vec<IpAddr> {
        self.relay.as_ref().map(|relay| relay.addresses()).unwrap_or_default()
    }

    /// What happened so far; `None` once the core has ended.
    pub async fn counters(&self) -> Option<Counters> {
        let (answer, answered) = async_channel::bounded(1);
        self.inputs.send(Input::Counters(answer)).await.ok()?;
        answered.recv().await.ok()
    }

    /// Waits until a part of the server ends, which none does by itself: a
    /// bug. Gives its name. The process should end then and be started anew.
    pub async fn failure(&self) -> &'static str {
        self.failures.recv().await.unwrap_or("server")
    }

    /// Tells all devices to come back later, closes everything and lets go of
    /// the state directory.
    pub async fn stop(self) {
        for task in self.tasks {
            // Waits until its socket is closed: the port is free afterwards.
            task.cancel().await;
        }
        // Whoever was accepted before is still answered, see `http::DRAIN`.
        drop(self.running);
        let mut seed = [0; 8];
        if SystemRandom::new().fill(&mut seed).is_err() {
            tracing::warn!("no randomness: devices come back less spread");
        }
        let seed = u64::from_le_bytes(seed);
        // Refused only when the actor has ended already.
        let _ended = self.inputs.send(Input::ShutDown { seed }).await;
        let gone = async {
            // Nobody ever sends here: this returns when the last connection ends.
            let _closed = self.ended.recv().await;
        };
        smol::future::or(gone, async {
            Timer::after(SHUTDOWN_WITHIN).await;
        })
        .await;
        // Last, so that what is relayed is away for as short as can be.
        self.datagrams.stop().await;
        if let Some(relay) = &self.relay {
            relay.close();
        }
        let _ended = self.inputs.send(Input::End).await;
        self.actor.await;
        // The actor's last notes: a disk that hangs must not hold the end up.
        smol::future::or(self.scribe, async {
            Timer::after(SHUTDOWN_WITHIN).await;
        })
        .await;
        self.store.close().await;
        drop(self.threads);
    }
}

/// Bytes that nobody guesses.
fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StartError::Randomness)?;
    Ok(bytes)
}

/// Opens the store on a thread that ends with it: smol's pool for what blocks
/// keeps one that wakes twice a second ever after.
async fn open(state: PathBuf) -> Result<(Store, Records), StartError> {
    let (done, opened) = async_channel::bounded(1);
    let work = move || {
        // Nobody waits any more: the start was given up.
        let _ = done.try_send(store::open(&state));
    };
    std::thread::Builder::new().name("farm-open".to_owned()).spawn(work).map_err(StartError::Thread)?;
    let opened = opened
        .recv()
        .await
        .map_err(|_| StartError::Thread(io::Error::other("it broke off, see the log: please report it")))?;
    Ok(opened?)
}

fn local(address: io::Result<SocketAddr>, asked: SocketAddr) -> Result<SocketAddr, ListenError> {
    address.map_err(|source| ListenError { address: asked, transport: "TCP", option: "--listen", source })
}
