//! `[relay]`: the broker's own relay, another one, or none.

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;

use crate::core::relay::credentials::MIN_SECRET;
use crate::core::relay::flow::Bandwidth;
use crate::core::relay::policy::Block;
use crate::core::relay::{Reach, RelayLimits};
use crate::server::relay::{PortRange, RelayOptions};

/// A relay, as the file says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Table")]
pub struct RelaySettings {
    /// Which.
    pub choice: Choice,
}

/// Which relay devices are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// None.
    Off,
    /// The broker's own.
    Embedded {
        /// Its host, if devices don't reach it where they reach the broker.
        host: Option<String>,
        /// The rest.
        table: Box<Table>,
    },
    /// Another program's, e.g. coturn with `use-auth-secret`.
    External {
        /// Where.
        reach: Reach,
        /// The secret that it was given, too.
        secret: String,
    },
}

impl Default for Choice {
    fn default() -> Self {
        Self::Embedded { host: None, table: Box::default() }
    }
}

/// The table of the file.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    enabled: Option<bool>,
    host: Option<String>,
    secret: Option<String>,
    addresses: Option<Vec<IpAddr>>,
    ports: Option<String>,
    allow_peers: Option<Vec<String>>,
    limits: Option<LimitTable>,
    external: Option<External>,
}

/// Without the secret.
impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("enabled", &self.enabled)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// The limits that an operator may want to change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitTable {
    allocations: Option<usize>,
    allocations_per_farm: Option<usize>,
    allocations_per_device: Option<usize>,
    bytes_per_second: Option<u64>,
    bytes_per_second_per_farm: Option<u64>,
    bytes_per_second_per_allocation: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct External {
    host: String,
    udp: Option<u16>,
    tcp: Option<u16>,
    tls: Option<u16>,
    secret: String,
}

/// Without the secret.
impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External").field("host", &self.host).finish_non_exhaustive()
    }
}

impl TryFrom<Table> for RelaySettings {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let Table { enabled, host, secret, addresses, ports, allow_peers, limits, external } = &table;
        if let Some(host) = host.as_ref().or(external.as_ref().map(|external| &external.host)) {
            check_host(host)?;
        }
        let embedded_only = [
            ("host", host.is_some()),
            ("secret", secret.is_some()),
            ("addresses", addresses.is_some()),
            ("ports", ports.is_some()),
            ("allow_peers", allow_peers.is_some()),
            ("limits", limits.is_some()),
        ];
        if let Some(external) = external {
            if let Some((name, _)) = embedded_only.iter().find(|(_, is_set)| *is_set) {
                return Err(format!(
                    "`{name}` is about the broker's own relay, which `external` replaces: leave one out"
                ));
            }
            if *enabled == Some(false) {
                return Err(
                    "`external` names a relay that `enabled = false` turns off: leave one out".to_owned()
                );
            }
            return Ok(Self { choice: external.choice()? });
        }
        // Before it is asked whether it is wanted: a mistake shows at once.
        options(&table)?;
        if *enabled == Some(false) {
            return Ok(Self { choice: Choice::Off });
        }
        Ok(Self { choice: Choice::Embedded { host: host.clone(), table: Box::new(table) } })
    }
}

impl External {
    fn choice(&self) -> Result<Choice, String> {
        let Self { host, udp, tcp, tls, secret } = self.clone();
        check_secret(&secret)?;
        if udp.is_none() && tcp.is_none() && tls.is_none() {
            return Err("`external` needs a port: `udp`, `tcp` or `tls`".to_owned());
        }
        if [udp, tcp, tls].contains(&Some(0)) {
            return Err("port 0 is nobody's".to_owned());
        }
        let reach = Reach { host: Some(host), udp, tcp, tls };
        Ok(Choice::External { reach, secret })
    }
}

fn check_secret(secret: &str) -> Result<(), String> {
    if secret.len() < MIN_SECRET {
        return Err(format!(
            "the relay's secret is shorter than {MIN_SECRET} characters: make one with `openssl rand -hex 20`"
        ));
    }
    Ok(())
}

fn check_host(host: &str) -> Result<(), String> {
    let fits = (1..=farm_protocol::relay::MAX_HOST).contains(&host.len())
        && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b':'));
    if fits { Ok(()) } else { Err(format!("{host:?} is no host: give a name or an address without a port")) }
}

impl RelaySettings {
    /// All but the limits, which may change while the broker runs.
    pub(super) fn without_limits(mut self) -> Self {
        if let Choice::Embedded { table, .. } = &mut self.choice {
            table.limits = None;
        }
        self
    }
}

impl Table {
    /// What the relay is started with.
    pub fn options(&self) -> RelayOptions {
        options(self).expect("it was checked when it was read")
    }
}

fn options(table: &Table) -> Result<RelayOptions, String> {
    table.secret.as_deref().map_or(Ok(()), check_secret)?;
    let limits = table.limits.unwrap_or_default();
    let default = RelayLimits::default();
    let bandwidth = |name: &str, set: Option<u64>, default: Bandwidth| match set {
        None => Ok(default),
        // Below, not even one handshake gets through in time.
        Some(bytes) if bytes < 1000 => Err(format!("`{name}` is below 1000 bytes a second")),
        Some(bytes) => Ok(Bandwidth::per_second(bytes)),
    };
    let allow_peers = table.allow_peers.iter().flatten();
    Ok(RelayOptions {
        secret: table.secret.clone(),
        addresses: table.addresses.clone().unwrap_or_default(),
        ports: table.ports.as_deref().map(str::parse::<PortRange>).transpose()?,
        allow_peers: allow_peers.map(|block| block.parse::<Block>()).collect::<Result<_, _>>()?,
        limits: RelayLimits {
            allocations: limits.allocations.unwrap_or(default.allocations),
            allocations_per_farm: limits.allocations_per_farm.unwrap_or(default.allocations_per_farm),
            allocations_per_device: limits.allocations_per_device.unwrap_or(default.allocations_per_device),
            total: bandwidth("bytes_per_second", limits.bytes_per_second, default.total)?,
            farm: bandwidth("bytes_per_second_per_farm", limits.bytes_per_second_per_farm, default.farm)?,
            allocation: bandwidth(
                "bytes_per_second_per_allocation",
                limits.bytes_per_second_per_allocation,
                default.allocation,
            )?,
            ..default
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn read(text: &str) -> Result<RelaySettings, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn on_unless_told_otherwise() {
        let on = |settings: &RelaySettings| matches!(settings.choice, Choice::Embedded { .. });
        assert!(on(&RelaySettings::default()) && on(&read("").unwrap()));
        assert_eq!(read("enabled = false").unwrap().choice, Choice::Off);
    }

    #[test]
    fn the_embedded_relay_is_set_up() {
        let text = r#"
            host = "turn.example.org"
            addresses = ["203.0.113.7", "2001:db8::7"]
            ports = "50000-50999"
            allow_peers = ["10.0.0.0/8"]
            [limits]
            allocations = 7
            bytes_per_second_per_farm = 1000000
        "#;
        let Choice::Embedded { host, table } = read(text).unwrap().choice else { panic!("not embedded") };
        assert_eq!(host.as_deref(), Some("turn.example.org"));
        let options = table.options();
        assert_eq!(
            (options.addresses.len(), options.allow_peers.len(), options.limits.allocations),
            (2, 1, 7)
        );
        assert_eq!(options.limits.farm.per_second, 1_000_000);
        assert!(
            crate::core::relay::flow::Flow::default()
                .after(options.limits.farm, 65_536, Instant::now())
                .is_some()
        );
    }

    #[test]
    fn another_relay_takes_its_place() {
        let text = "external = { host = \"turn.example.org\", udp = 3478, tls = 5349, secret = \"0123456789abcdef\" }";
        let Choice::External { reach, secret } = read(text).unwrap().choice else { panic!("not external") };
        assert_eq!((reach.udp, reach.tcp, reach.tls), (Some(3478), None, Some(5349)));
        assert_eq!(secret.len(), 16);
        let table: Table = toml::from_str(text).unwrap();
        assert!(!format!("{table:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("enabld = true", "enabld"),
            ("ports = \"1-2\"", "49152-65535"),
            ("allow_peers = [\"10.0.0.0\"]", "10.0.0.0/8"),
            ("host = \"a:b/c\"", "no host"),
            ("secret = \"short\"", "openssl"),
            ("limits = { bytes_per_second = 1 }", "bytes_per_second"),
            ("external = { host = \"h\", udp = 1, secret = \"short\" }", "openssl"),
            ("external = { host = \"h\", secret = \"0123456789abcdef\" }", "needs a port"),
            ("external = { host = \"h\", udp = 0, secret = \"0123456789abcdef\" }", "port 0"),
            ("external = { host = \"h/\", udp = 1, secret = \"0123456789abcdef\" }", "no host"),
            (
                "ports = \"2000-3000\"\nexternal = { host = \"h\", udp = 1, secret = \"0123456789abcdef\" }",
                "`ports`",
            ),
            (
                "enabled = false\nexternal = { host = \"h\", udp = 1, secret = \"0123456789abcdef\" }",
                "turns off",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
