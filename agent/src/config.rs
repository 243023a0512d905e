//! The agent's config file, written by an installer on the card.

mod card;
mod readings;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use farm_protocol::key_pin::{KeyPin, KeyPinError};
use farm_protocol::pairing::MAX_NAME;
use farm_protocol::service::{self, MAX_SERVICES, Service, ServiceKind};
use farm_tunnel::broker_socket::{AddressError, BrokerAddress, Brokers, MAX_BROKERS};
use serde::Deserialize;
use toml::Spanned;

pub use self::card::Wifi;
pub use self::readings::ReadingsConfig;

/// Largest config file that is read, in bytes.
pub const MAX_FILE: u64 = 64 * 1024;

/// A config that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What the farm's owner calls it.
    pub name: String,
    /// The broker, or those of one cluster.
    pub broker: Brokers,
    /// Only these certificate authorities vouch for the broker, if set.
    pub broker_ca: Option<PathBuf>,
    /// Only this key makes the broker, if set; then `broker_ca` is not.
    pub broker_key: Option<KeyPin>,
    /// One-time token for the first start.
    pub enrollment_token: Option<String>,
    /// Where the app is served; invitations link there.
    pub app: String,
    /// What phones may reach.
    pub services: Vec<ServiceConfig>,
    /// Keep only local addresses that match, for tests and odd networks.
    pub local_addresses: Vec<std::net::IpAddr>,
    /// How readings are taken and kept.
    pub readings: ReadingsConfig,
    /// `farm-agent debug fault` is allowed.
    pub fault_injection: bool,
    /// The Wi-Fi that the box joins, in the card's image.
    pub wifi: Option<Wifi>,
    /// Who may log in to the box by SSH, in the card's image.
    pub ssh_key: Option<String>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// As phones see it.
    pub service: Service,
    /// Where it listens, as seen from the agent: host and port.
    pub address: ServiceAddress,
}

/// Host and port of a service; the host is looked up at each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAddress {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What is wrong with a config, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a config.
    #[error("{path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong, and what is expected.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    broker: Spanned<FileBroker>,
    broker_ca: Option<PathBuf>,
    broker_key: Option<Spanned<String>>,
    enrollment_token: Option<Spanned<String>>,
    app: Option<Spanned<String>>,
    #[serde(default)]
    services: Vec<Spanned<FileService>>,
    #[serde(default)]
    local_addresses: Vec<std::net::IpAddr>,
    #[serde(default)]
    readings: readings::FileReadings,
    #[serde(default)]
    debug: FileDebug,
    wifi: Option<card::FileWifi>,
    #[serde(default, rename = "box")]
    device: card::FileBox,
}

/// One URL, or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "broker must be a URL, or a list of URLs: [\"wss://…\", …]")]
enum FileBroker {
    One(String),
    Several(Vec<String>),
}

impl FileBroker {
    fn check(&self) -> Result<Brokers, String> {
        match self {
            // As an invitation names them: several with commas between them.
            Self::One(urls) => urls.parse().map_err(|e: AddressError| e.to_string()),
            Self::Several(urls) => {
                let brokers = urls.iter().map(|url| url.trim().parse::<BrokerAddress>());
                let brokers = brokers.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
                Brokers::new(brokers)
                    .ok_or_else(|| format!("broker must be a list of 1 to {MAX_BROKERS} URLs"))
            }
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDebug {
    #[serde(default)]
    fault_injection: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileService {
    name: Spanned<String>,
    kind: ServiceKind,
    address: Spanned<String>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > MAX_FILE {
            return Err(read(std::io::Error::other(format!("it has {size} bytes, {MAX_FILE} are allowed"))));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::from_text(&text, path)
    }

    /// Checks a text; `path` is where errors say that it is.
    ///
    /// # Errors
    /// [`ConfigError::Line`].
    pub fn from_text(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::parse(text).map_err(|(at, problem)| ConfigError::Line {
            path: path.to_owned(),
            line: text[..at.min(text.len())].matches('\n').count() + 1,
            problem,
        })
    }

    /// The text as an editor on any laptop leaves it: a byte order mark and
    /// Windows line ends are no mistake.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mark = '\u{feff}';
        let offset = if text.starts_with(mark) { mark.len_utf8() } else { 0 };
        let file: File = toml::from_str(&text[offset..])
            .map_err(|e| (offset + e.span().map_or(0, |s| s.start), e.message().to_owned()))?;
        let at = |span: std::ops::Range<usize>| offset + span.start;

        let name = file.name.get_ref().trim().to_owned();
        if name.is_empty() || name.len() > MAX_NAME {
            return Err((at(file.name.span()), format!("name must have 1 to {MAX_NAME} bytes")));
        }
        let broker = file.broker.get_ref().check().map_err(|problem| (at(file.broker.span()), problem))?;
        let enrollment_token = match file.enrollment_token {
            Some(token) if token.get_ref().len() > farm_protocol::broker::MAX_TEXT => {
                return Err((at(token.span()), "enrollment_token is too long: copy one token".to_owned()));
            }
            Some(token) => Some(token.into_inner().trim().to_owned()).filter(|t| !t.is_empty()),
            None => None,
        };
        let app = match file.app {
            Some(app) if !app.get_ref().starts_with("https://") && !app.get_ref().starts_with("http://") => {
                return Err((at(app.span()), "app must be a URL: https://…".to_owned()));
            }
            Some(app) => app.into_inner(),
            None => {
                let first = broker.first();
                let scheme = if first.secure { "https" } else { "http" };
                format!("{scheme}://{}/", first.authority())
            }
        };
        if file.services.len() > MAX_SERVICES {
            let span = file.services[MAX_SERVICES].span();
            return Err((at(span), format!("more than {MAX_SERVICES} services")));
        }
        let mut services: Vec<ServiceConfig> = Vec::with_capacity(file.services.len());
        for entry in file.services {
            let entry = entry.into_inner();
            let name = entry.name.get_ref().clone();
            service::check_name(&name).map_err(|e| (at(entry.name.span()), e.to_string()))?;
            if services.iter().any(|s| s.service.name == name) {
                return Err((at(entry.name.span()), format!("service {name:?} is there twice")));
            }
            let address = parse_address(entry.address.get_ref()).ok_or_else(|| {
                (
                    at(entry.address.span()),
                    format!(
                        "{:?} is not an address: HOST:PORT is expected, as in 127.0.0.1:8080",
                        entry.address.get_ref()
                    ),
                )
            })?;
            services.push(ServiceConfig { service: Service { name, kind: entry.kind }, address });
        }
        let broker_ca = file.broker_ca;
        let broker_key = match file.broker_key {
            Some(key) if broker_ca.is_some() => {
                return Err((
                    at(key.span()),
                    "broker_key and broker_ca: only one of them can decide".to_owned(),
                ));
            }
            Some(key) => {
                Some(key.get_ref().parse().map_err(|e: KeyPinError| (at(key.span()), e.to_string()))?)
            }
            None => None,
        };
        let readings = file.readings.check().map_err(|(span, problem)| (at(span), problem))?;
        let wifi = file.wifi.map(card::FileWifi::check).transpose();
        let wifi = wifi.map_err(|(span, problem)| (at(span), problem))?;
        let ssh_key = file.device.check().map_err(|(span, problem)| (at(span), problem))?;
        Ok(Self {
            name,
            broker,
            broker_ca,
            broker_key,
            enrollment_token,
            app,
            services,
            local_addresses: file.local_addresses,
            readings,
            fault_injection: file.debug.fault_injection,
            wifi,
            ssh_key,
        })
    }
}

fn parse_address(text: &str) -> Option<ServiceAddress> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0)
            .then(|| ServiceAddress { host: address.ip().to_string(), port: address.port() });
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|p| *p != 0)?;
    let is_name = (1..=253).contains(&host.len())
        && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_'));
    is_name.then(|| ServiceAddress { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "North field"
broker = "wss://broker.example.org"
[[services]]
name = "greenhouse"
kind = "http"
address = "127.0.0.1:8080"
"#;

    fn line_of(text: &str) -> (usize, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("farm-agent.toml");
        std::fs::write(&path, text).unwrap();
        match Config::load(&path).unwrap_err() {
            ConfigError::Line { line, problem, .. } => (line, problem),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_good_config_is_read() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.services[0].address.to_string(), "127.0.0.1:8080");
        assert_eq!(config.app, "https://broker.example.org/");
        assert!(!config.fault_injection, "off by default");
        let config = Config::parse(&format!("{GOOD}[debug]\nfault_injection = true\n")).unwrap();
        assert!(config.fault_injection);
    }

    #[test]
    fn several_brokers_may_be_named() {
        let urls = "[\"wss://b1.example.org\", \"wss://b2.example.org\"]";
        let several = GOOD.replace("\"wss://broker.example.org\"", urls);
        let config = Config::parse(&several).unwrap();
        assert_eq!(config.broker.to_string(), "wss://b1.example.org,wss://b2.example.org");
        assert_eq!(config.app, "https://b1.example.org/", "where invitations lead unless `app` says so");
    }

    #[test]
    fn what_a_windows_editor_leaves_is_fine() {
        let text = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
        assert_eq!(Config::parse(&text).unwrap(), Config::parse(GOOD).unwrap());
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        for (from, to, line, part) in [
            ("name = \"North", "nmae = \"North", 2, "nmae"),
            ("wss://broker", "https://broker", 3, "wss://"),
            ("\"wss://broker.example.org\"", "[\"wss://a\",\n \"http://b\"]", 3, "wss://"),
            ("\"wss://broker.example.org\"", "[]", 3, "1 to 8"),
            ("\"wss://broker.example.org\"", "7", 3, "list of URLs"),
            ("\"greenhouse\"", "\"Green House\"", 5, "Green House"),
            ("\"http\"", "\"htttp\"", 6, "htttp"),
            ("[[services]]", "broker_key = \"sha256/AA\"\n[[services]]", 4, "44 characters"),
            ("127.0.0.1:8080", "127.0.0.1", 7, "HOST:PORT"),
            ("127.0.0.1:8080", "127.0.0.1:99999", 7, "HOST:PORT"),
            ("[[services]]", "[wifi]\nname = \"a\"\ncountry = \"Germany\"\n[[services]]", 6, "two letters"),
            (
                "[[services]]",
                "[wifi]\nname = \"a\"\ncountry = \"DE\"\npassword = \"short\"\n[[services]]",
                7,
                "8 to 63",
            ),
            ("[[services]]", "[box]\nssh_key = \"my key\"\n[[services]]", 5, "id_ed25519.pub"),
            ("[[services]]", "[readings]\nmax_megabytes = 0\n[[services]]", 5, "max_megabytes"),
            ("[[services]]", "[readings]\ninterval_seconds = 1\n[[services]]", 5, "interval_seconds"),
            ("[[services]]", "[readings]\nsocket = \"here\"\n[[services]]", 5, "absolute"),
        ] {
            let (at, problem) = line_of(&GOOD.replacen(from, to, 1));
            assert!(problem.contains(part), "{problem}");
            assert_eq!(at, line, "{problem}");
        }
        let twice = format!("{GOOD}{}", &GOOD[GOOD.find("[[").unwrap()..]);
        assert!(line_of(&twice).1.contains("twice"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("/nonexistent/farm-agent.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/farm-agent.toml"), "{error}");
    }
}
