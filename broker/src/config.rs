//! The broker's configuration: a TOML file, and what the command line says
//! instead.

mod alerts;
mod changes;
mod cluster;
mod log;
mod public_url;
mod relay;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use alerts::AlertSettings;
pub use cluster::ClusterSettings;
pub use log::LogFormat;
pub use public_url::{PublicUrl, PublicUrlError};
pub use relay::{Choice, RelaySettings};
pub use tls::TlsSettings;

use crate::app::Views;
use crate::core::Limits;
use crate::core::limits::SPARE_SOCKETS;
use crate::server::listen::StunListen;

/// Where the broker listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8443";

/// Where its state is unless told otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/farm-broker";

/// Largest configuration file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the config {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something wrong; the text shows the line.
    #[error("in the config {}: {text}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong where.
        text: String,
    },
}

/// What the file or the command line says; nothing is required.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to listen.
    pub listen: Option<SocketAddr>,
    /// The state directory.
    pub state: Option<PathBuf>,
    /// The URL by which devices call this broker.
    pub public_url: Option<PublicUrl>,
    /// Proxies whose `X-Forwarded-For` is believed.
    #[serde(default)]
    pub trusted_proxy: Vec<IpAddr>,
    /// Where to answer STUN.
    pub stun: Option<Stun>,
    /// Origins of the app besides this broker's own, e.g.
    /// `https://app.example.net`; `*` stands for every page.
    #[serde(default)]
    pub app_origins: Vec<String>,
    /// The directory of the phone app.
    pub app: Option<PathBuf>,
    /// Where the app shows farm pages.
    pub views: Option<Views>,
    /// Where to show figures to Prometheus, e.g. `127.0.0.1:9464`.
    pub metrics: Option<SocketAddr>,
    /// TLS; without it a proxy in front has to do it.
    pub tls: Option<TlsSettings>,
    /// The relay; without it, the broker's own with its defaults.
    pub relay: Option<RelaySettings>,
    /// Whom to tell of farms that are away.
    pub alerts: Option<AlertSettings>,
    /// How log lines are written.
    pub log_format: Option<LogFormat>,
    /// Other brokers; without it this one is alone.
    pub cluster: Option<ClusterSettings>,
    /// Changes to the limits.
    #[serde(default)]
    pub limits: LimitSettings,
}

/// The limits that an operator may want to change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// See [`Limits::connections`].
    pub connections: Option<usize>,
    /// See [`Limits::connections_per_address`].
    pub connections_per_address: Option<usize>,
}

/// `off`, or an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Stun(pub StunListen);

impl std::str::FromStr for Stun {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(StunListen::Off));
        }
        let address = text.parse().map(|address| Self(StunListen::At(address)));
        address.map_err(|_| format!("{text:?} is neither an address with a port nor `off`"))
    }
}

impl TryFrom<String> for Stun {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with the line of what is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > MAX_FILE {
            let too_large = format!("{size} bytes are more than a config has");
            return Err(read(std::io::Error::other(too_large)));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), text: explain(&text, &error) })
    }

    /// These settings, with `other` where they say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let trusted_proxy =
            if self.trusted_proxy.is_empty() { other.trusted_proxy } else { self.trusted_proxy };
        Self {
            listen: self.listen.or(other.listen),
            state: self.state.or(other.state),
            public_url: self.public_url.or(other.public_url),
            trusted_proxy,
            stun: self.stun.or(other.stun),
            app: self.app.or(other.app),
            app_origins: if self.app_origins.is_empty() { other.app_origins } else { self.app_origins },
            views: self.views.or(other.views),
            metrics: self.metrics.or(other.metrics),
            tls: self.tls.or(other.tls),
            relay: self.relay.or(other.relay),
            alerts: self.alerts.or(other.alerts),
            log_format: self.log_format.or(other.log_format),
            cluster: self.cluster.or(other.cluster),
            limits: LimitSettings {
                connections: self.limits.connections.or(other.limits.connections),
                connections_per_address: self
                    .limits
                    .connections_per_address
                    .or(other.limits.connections_per_address),
            },
        }
    }

    /// Where to listen.
    pub fn listen(&self) -> SocketAddr {
        let default = || DEFAULT_LISTEN.parse().expect("the default is an address");
        self.listen.unwrap_or_else(default)
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| DEFAULT_STATE.into())
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        let connections = self.limits.connections.unwrap_or(default.connections);
        Limits {
            connections,
            sockets: connections + SPARE_SOCKETS,
            connections_per_address: self
                .limits
                .connections_per_address
                .unwrap_or(default.connections_per_address),
            ..default
        }
    }
}

/// What is wrong in which line, without the line itself: it may hold a secret,
/// and this is logged.
fn explain(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
    let line = line.map_or_else(String::new, |line| format!("line {line}: "));
    format!("{line}{}", error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Settings::read(file.path())
    }

    #[test]
    fn a_file_says_what_the_command_line_can() {
        let settings = read(
            r#"
            listen = "[::]:443"
            state = "/srv/broker"
            public_url = "https://broker.example.org"
            trusted_proxy = ["127.0.0.1", "::1"]
            stun = "0.0.0.0:3478"
            metrics = "127.0.0.1:9464"
            app_origins = ["https://app.example.net"]
            [tls]
            certificate = "/etc/letsencrypt/live/b/fullchain.pem"
            key = "/etc/letsencrypt/live/b/privkey.pem"
            redirect = "[::]:80"
            [limits]
            connections_per_address = 500
            "#,
        )
        .unwrap();
        assert_eq!(settings.listen().port(), 443);
        assert_eq!(settings.trusted_proxy.len(), 2);
        assert_eq!(settings.metrics.unwrap().port(), 9464);
        assert_eq!(settings.limits().connections_per_address, 500);
        assert_eq!(settings.app_origins, ["https://app.example.net"]);
        assert_eq!(settings.tls.as_ref().unwrap().redirect.unwrap().port(), 80);
        let command_line = Settings { listen: Some("127.0.0.1:0".parse().unwrap()), ..Settings::default() };
        let both = command_line.or(settings);
        assert_eq!(both.listen().port(), 0);
        assert_eq!(both.state(), Path::new("/srv/broker"));
        assert_eq!(Settings::default().listen().to_string(), DEFAULT_LISTEN);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, expected) in [
            ("\nlisten = \"127.0.0.1:1\"\nlissten = 1\n", ["line 3", "lissten"]),
            ("listen = \"nowhere\"", ["line 1", "socket address"]),
            ("public_url = \"ftp://x\"", ["line 1", "ftp://x"]),
            ("stun = \"on\"", ["line 1", "neither"]),
            ("[limits]\nconections = 1", ["line 2", "conections"]),
            ("[tls]\ncertificate = \"/c.pem\"", ["line 1", "key"]),
            ("[relay]\nports = \"1-2\"", ["line 1", "49152-65535"]),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        }
        let error = Settings::read(Path::new("/nonexistent/farm-broker.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/farm-broker.toml"));
    }
}
