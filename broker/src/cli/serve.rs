//! `farm-broker serve`: from settings to a running broker, and its end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_signal::{Signal, Signals};
use futures_util::StreamExt;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;

use crate::app::App;
use crate::config::{Choice, ConfigError, Settings};
use crate::register::Engine;
use crate::server::inherited::Inherited;
use crate::server::site::{NoSite, Site};
use crate::server::tls::TlsError;
use crate::server::{AlertOptions, Changes, Options, RelayChoice, Server};

/// Files that are open besides the sockets: the store, the log, the rest.
const OTHER_FILES: u64 = 128;

/// Where the settings come from.
pub(super) struct Sources {
    /// The config file.
    pub(super) config: Option<PathBuf>,
    /// What the command line says; it wins.
    pub(super) said: Settings,
}

impl Sources {
    /// Reads all of it.
    fn read(&self) -> Result<Settings, ConfigError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?;
        Ok(self.said.clone().or(file.unwrap_or_default()))
    }
}

/// Runs until a signal ends it.
pub(super) fn run(sources: &Sources) -> Result<(), Box<dyn std::error::Error>> {
    let settings = &sources.read()?;
    super::log::start(settings.log_format.unwrap_or_default())?;
    // A connection that can't be accepted is worse than one that is turned
    // away: nothing is read or logged then, and the store needs files, too.
    let limits = settings.limits_within(make_room_for);
    let names = settings.public_url.as_ref().map(|url| url.names());
    let origins = settings.public_url.iter().map(|url| url.origin());
    let origins =
        origins.chain(settings.app_origins.iter().map(|origin| origin.to_ascii_lowercase())).collect();
    if names.is_none() {
        tracing::warn!(
            "no --public-url is given: devices may call this broker by any name, so a signature made for another broker is not told apart"
        );
    }
    let options = Options {
        // Before there are threads.
        inherited: Inherited::take().map_err(|error| {
            format!("a socket of the service manager can't be used: {error}; correct farm-broker.socket")
        })?,
        listen: settings.listen(),
        tls: settings.tls.as_ref().map(|tls| tls.source(&settings.state())),
        redirect: settings.tls.as_ref().and_then(|tls| tls.redirect),
        metrics: settings.metrics,
        authority: settings.public_url.as_ref().map(|url| url.authority()),
        stun: settings.stun.unwrap_or_default().0,
        state: settings.state(),
        names: names.unwrap_or_default(),
        origins,
        trusted_proxies: settings.trusted_proxy.clone(),
        limits,
        relay: relay(settings),
        cluster: cluster(settings)?,
        alerts: alerts(settings)?,
        site: site(settings)?,
    };
    // Not smol's: see `server::thread`.
    smol::future::block_on(async {
        // Before the start: a signal that comes meanwhile is not lost.
        let mut signals = Signals::new([Signal::Term, Signal::Int, Signal::Hup])?;
        let server = Server::start(options).await?;
        super::print(&format!("farm-broker listening on {}\n", server.address()))?;
        if settings.tls.is_none() && !server.address().ip().is_loopback() && settings.trusted_proxy.is_empty()
        {
            tracing::warn!("no [tls] in the config and no trusted proxy: strangers can watch who meets whom");
        }
        if let Some(address) = server.metrics_address() {
            tracing::info!(%address, "showing figures at /metrics");
            if !address.ip().is_loopback() {
                tracing::warn!("figures are shown to whoever reaches that address");
            }
        }
        if let Some(address) = server.redirect_address() {
            tracing::info!(%address, "sending browsers on to https");
        }
        match server.stun_address() {
            Some(address) => tracing::info!(%address, "answering STUN"),
            None => tracing::info!("not answering STUN"),
        }
        match &server.relay_addresses()[..] {
            [] => tracing::info!("no relay of its own"),
            addresses => {
                tracing::info!(?addresses, "relaying (TURN)");
                if addresses.iter().any(|ip| ip.is_loopback()) {
                    tracing::warn!(
                        "what is relayed comes from a loopback address: only devices that both use the relay reach each other by it"
                    );
                }
            }
        }
        notify(&[NotifyState::Ready]);
        let told = async {
            loop {
                match signals.next().await.transpose()? {
                    Some(Signal::Hup) => {
                        server.renew_certificate();
                        reload(&server, sources, settings).await;
                    }
                    signal => return Ok(signal.map_or("end", name_of)),
                }
            }
        };
        let failed = async {
            let part = server.failure().await;
            Err(io::Error::other(format!("the {part} ended by itself: a bug, see the log above")))
        };
        let fed = async {
            super::watchdog::feed(&server).await;
            Ok("end")
        };
        // After a failure the rest can't be trusted to end in order.
        let signal = smol::future::or(told, smol::future::or(failed, fed)).await?;
        tracing::info!(signal, "shutting down");
        notify(&[NotifyState::Stopping]);
        server.stop().await;
        Ok(())
    })
}

/// Reads the config again. One that can't be used changes nothing.
async fn reload(server: &Server, sources: &Sources, started: &Settings) {
    let read = sources.read().map_err(|error| error.to_string());
    let read = read.and_then(|settings| match alerts(&settings) {
        Ok(alerts) => Ok((settings, alerts)),
        Err(error) => Err(error.to_string()),
    });
    let (settings, alerts) = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::error!(%error, "the config was not taken over: the settings before stay in force");
            notify(&[NotifyState::Status(
                "the config can't be used, see the log: the settings before stay in force",
            )]);
            return;
        }
    };
    let limits = settings.limits_within(make_room_for);
    server.change(Changes { limits, relay_limits: settings.relay_limits(), alerts }).await;
    notify(&[NotifyState::Status("")]);
    tracing::info!("limits and alerts are as the config says now");
    let later = settings.needs_restart(started);
    if !later.is_empty() {
        tracing::warn!(
            keys = later.join(", "),
            "changes to these take effect when the broker is started again"
        );
    }
}

fn alerts(settings: &Settings) -> Result<Option<AlertOptions>, TlsError> {
    let Some(alerts) = &settings.alerts else { return Ok(None) };
    if !alerts.url.is_secure() {
        tracing::warn!(
            host = alerts.url.host(),
            "alerts are sent without TLS: whoever is on the way reads them"
        );
    }
    alerts.options().map(Some)
}

fn relay(settings: &Settings) -> RelayChoice {
    match settings.relay.clone().unwrap_or_default().choice {
        Choice::Off => RelayChoice::Off,
        Choice::Embedded { host, table } => RelayChoice::Embedded(table.options(), host),
        Choice::External { reach, secret } => RelayChoice::External(reach, secret),
    }
}

#[cfg(feature = "cluster")]
fn cluster(settings: &Settings) -> Result<Option<Box<dyn Engine>>, Box<dyn std::error::Error>> {
    let listen = settings.listen().to_string();
    settings.cluster.as_ref().map(|cluster| super::cluster::engine(cluster, &listen)).transpose()
}

#[cfg(not(feature = "cluster"))]
fn cluster(settings: &Settings) -> Result<Option<Box<dyn Engine>>, Box<dyn std::error::Error>> {
    match &settings.cluster {
        None => Ok(None),
        Some(_) => Err("[cluster] in the config: this farm-broker is built without it, build one with \
                        `cargo build --release --features farm-broker/cluster`"
            .into()),
    }
}

/// The phone app, where there is one. One that was asked for must be there.
fn site(settings: &Settings) -> Result<Arc<dyn Site>, Box<dyn std::error::Error>> {
    let Some(directory) = settings.app.clone().or_else(App::found) else {
        tracing::info!("not serving the phone app: there is none beside this program and no --app");
        return Ok(Arc::new(NoSite));
    };
    let mut views = settings.views.clone().unwrap_or_default();
    if let Some(url) = &settings.public_url {
        views = views.framed_by(url.origin());
    }
    let app = App::load(&directory, views)?;
    tracing::info!(directory = %directory.display(), "serving the phone app");
    Ok(Arc::new(app))
}

fn name_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Term => "SIGTERM",
        Signal::Int => "SIGINT",
        _ => "another",
    }
}

pub(super) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Each socket holds a file: asks for as many as the system allows, and gives
/// how many sockets there may be.
fn make_room_for(sockets: usize) -> usize {
    let wanted = sockets as u64 + OTHER_FILES;
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let target = wanted.min(hard).max(soft);
        setrlimit(Resource::RLIMIT_NOFILE, target, hard)?;
        Ok(target)
    });
    match raised {
        Ok(files) if files < wanted => {
            tracing::warn!(
                files,
                wanted,
                "fewer files may be open than sockets are allowed, the rest is turned away: raise LimitNOFILE"
            );
            usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(sockets).max(1)
        }
        Ok(_) => sockets,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            sockets
        }
    }
}
