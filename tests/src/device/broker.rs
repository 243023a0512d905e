//! A broker with TLS and figures, for devices that speak its protocol.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use farm_broker::admin::{self, Answer, Request};

use super::certificate::NAME;
use super::{Certificate, Target};
use crate::harness::farm::{Daemon, Place};
use crate::harness::http::{self, get};
use crate::harness::{HarnessError, free_port};

/// A broker's program, its files, and how to reach it.
pub struct Broker {
    /// The program.
    pub daemon: Daemon,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificate.
    pub certificate: Certificate,
    metrics: SocketAddr,
    config: PathBuf,
    state: PathBuf,
}

/// What a broker says of itself at `/metrics`, without `farm_broker_`.
pub type Figures = BTreeMap<String, f64>;

impl Broker {
    /// A broker whose files lie in `dir`, not running yet. `extra` goes into
    /// its config, last.
    ///
    /// # Errors
    /// When the files can't be written or no port is free.
    pub fn new(dir: &Path, extra: &str) -> Result<Self, HarnessError> {
        let io = |source| HarnessError::Io {
            doing: format!("writing files of a broker in {}", dir.display()),
            source,
        };
        let (address, metrics) = (free_port()?, free_port()?);
        let certificate = Certificate::make(dir).map_err(io)?;
        let (config, state) = (dir.join("farm-broker.toml"), dir.join("broker"));
        let text = format!(
            "listen = \"{address}\"\npublic_url = \"https://{NAME}:{}\"\nstate = {:?}\nmetrics = \"{metrics}\"\n\
             [tls]\ncertificate = {:?}\nkey = {:?}\n{extra}",
            address.port(),
            state,
            certificate.chain,
            certificate.key,
        );
        std::fs::write(&config, text).map_err(io)?;
        let arguments = vec!["serve".into(), "--config".into(), config.clone().into()];
        let daemon =
            Daemon::new(Place::here(), "farm-broker", arguments, |line| line.text.contains("listening"));
        Ok(Self { daemon, address, certificate, metrics, config, state })
    }

    /// Its config file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its state directory.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// `wss://NAME:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("wss://{NAME}:{}", self.address.port())
    }

    /// How devices find it.
    ///
    /// # Errors
    /// When the certificate can't be read.
    pub fn target(&self) -> Result<Target, HarnessError> {
        Target::new(self.address, &self.certificate.der).map_err(|source| HarnessError::Io {
            doing: "trusting the broker's certificate".to_owned(),
            source,
        })
    }

    /// A fresh enrollment token.
    ///
    /// # Errors
    /// When the broker gives none.
    pub fn token(&self) -> Result<String, HarnessError> {
        let request = Request::Enroll { name: None, valid_seconds: 3600 };
        match admin::ask(&self.state, &request) {
            Ok(Answer::Token(token)) => Ok(token),
            other => Err(HarnessError::Unexpected {
                name: "the broker's admin socket".to_owned(),
                expected: "a token",
                got: format!("{other:?}"),
            }),
        }
    }

    /// What it counts.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn figures(&self) -> Result<Figures, http::HttpError> {
        let page = get(self.metrics, "/metrics")?;
        let text = page.text();
        let samples = text.lines().filter_map(|line| line.strip_prefix("farm_broker_")?.split_once(' '));
        Ok(samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }
}
