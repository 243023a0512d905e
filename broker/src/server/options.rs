//! What a broker is started with, what may be changed while it runs, and why it
//! may not start.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::desk::DeskError;
use super::inherited::Inherited;
use super::listen::{ListenError, StunListen};
use super::relay::{AddressError, RelayOptions};
use super::site::Site;
use super::tls::{CertificateSource, TlsError};
use super::webhook::Webhook;
use crate::core::Limits;
use crate::core::relay::{Reach, RelayLimits};
use crate::register::Engine;
use crate::store::RecordsError;

/// What the operator decides.
pub struct Options {
    /// Sockets that the service manager holds, for the addresses below.
    pub inherited: Inherited,
    /// Where to listen for HTTP and WebSockets. Port 0: any.
    pub listen: SocketAddr,
    /// With TLS, by a certificate from here.
    pub tls: Option<CertificateSource>,
    /// Where to send browsers on to `https`.
    pub redirect: Option<SocketAddr>,
    /// Where to show figures to Prometheus.
    pub metrics: Option<SocketAddr>,
    /// Host and port that browsers are sent to, if not where they came from.
    pub authority: Option<String>,
    /// Where to answer STUN.
    pub stun: StunListen,
    /// The state directory.
    pub state: PathBuf,
    /// Names by which devices may call this broker, see [`crate::core::Settings::names`].
    pub names: BTreeSet<String>,
    /// Origins of the app's pages besides the host that they call, see [`super::origin`].
    pub origins: BTreeSet<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// What devices may do.
    pub limits: Limits,
    /// Where devices may have their packets relayed.
    pub relay: RelayChoice,
    /// What joins it with other brokers.
    pub cluster: Option<Box<dyn Engine>>,
    /// Whom to tell of farms that are away or back.
    pub alerts: Option<AlertOptions>,
    /// What is served besides.
    pub site: Arc<dyn Site>,
}

/// Whom to tell of farms that are away or back.
#[derive(Debug, Clone)]
pub struct AlertOptions {
    /// How long a farm is away before it is told.
    pub after: Duration,
    /// To whom.
    pub webhook: Webhook,
}

/// What an operator may change while the broker runs.
#[derive(Debug, Clone)]
pub struct Changes {
    /// Of these, the sockets and connections altogether and per address.
    pub limits: Limits,
    /// The relay's, where the broker has one of its own.
    pub relay_limits: Option<RelayLimits>,
    /// Whom to tell.
    pub alerts: Option<AlertOptions>,
}

/// Which relay devices are told of.
pub enum RelayChoice {
    /// None.
    Off,
    /// The broker's own; its host, if devices don't reach it where they reach
    /// the broker.
    Embedded(RelayOptions, Option<String>),
    /// Another program's, and the secret that it was given.
    External(Reach, String),
}

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS can't be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The state directory can't be used.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The admin socket can't be had.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// The relay has no address.
    #[error(transparent)]
    Relay(#[from] AddressError),
    /// The store has no place for the relay's secret.
    #[error("the relay's secret can't be stored: {0}")]
    Secret(#[from] farm_store::Error),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Randomness,
    /// The operating system gives no means to wait for sockets.
    #[error("sockets can't be waited for: {0}; if files are short, raise LimitNOFILE")]
    Sockets(io::Error),
    /// The operating system gives no thread.
    #[error("no thread to work with: {0}")]
    Thread(io::Error),
}
