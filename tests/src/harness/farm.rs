//! A whole farm from the real programs: broker, agent, greenhouse and phone, each
//! of which can be killed, restarted and asked on its own. It speaks to them only
//! through what their users have: command lines, files and printed lines.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::{HarnessError, TempDir, free_port, temp_dir};

mod agent;
mod broker;
mod daemon;
mod phone;
mod place;
mod watch;

pub use agent::{Agent, AgentConfig, AgentControl, Service};
pub use broker::{Broker, app_files};
pub use daemon::{Daemon, Limits};
pub use phone::{Forward, Phone};
pub use place::{Place, cannot_reboot};
pub use watch::{Seen, Watch};

/// Time a program gets to start or a command to finish: generous, for debug
/// builds on a loaded machine; what is measured is reported apart.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The greenhouse's name among the farm's services.
pub const GREENHOUSE: &str = "greenhouse";
/// The farm's name.
pub const FARM: &str = "North field";

/// Where the parts of a farm run.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Agent and greenhouse.
    pub farm: Place,
    /// The broker.
    pub broker: Place,
    /// The phone.
    pub phone: Place,
    /// Where the broker listens, reachable from the others.
    pub broker_listen: SocketAddr,
    /// The name by which the others find the broker, where they have DNS.
    pub broker_name: Option<String>,
    /// The broker's config file, if it has one.
    pub broker_config: Option<String>,
    /// What the agent forwards to besides the greenhouse.
    pub services: Vec<Service>,
}

impl Layout {
    /// Everything on this machine's loopback.
    ///
    /// # Errors
    /// When no port is free.
    pub fn loopback() -> Result<Self, HarnessError> {
        Ok(Self {
            farm: Place::here(),
            broker: Place::here(),
            phone: Place::here(),
            broker_listen: free_port()?,
            broker_name: None,
            broker_config: None,
            services: Vec::new(),
        })
    }
}

/// Broker, agent, greenhouse and a phone with fresh state. Everything ends when
/// it is dropped, the phone's side first.
pub struct Farm {
    /// The phone.
    pub phone: Phone,
    /// The agent.
    pub agent: Agent,
    /// The greenhouse behind the agent.
    pub greenhouse: Daemon,
    /// The broker.
    pub broker: Broker,
    // Last, so that nobody writes into it any more when it is removed.
    dir: TempDir,
}

impl Farm {
    /// Starts and enrolls all of it on loopback, and pairs the phone.
    ///
    /// # Errors
    /// When any part does not do what the contract says in [`PATIENCE`].
    pub fn start() -> Result<Self, HarnessError> {
        let farm = Self::unpaired(&Layout::loopback()?)?;
        farm.phone.pair(&farm.agent.control.invite()?)?;
        Ok(farm)
    }

    /// Starts and enrolls all of it; the phone knows nobody yet.
    ///
    /// # Errors
    /// When any part does not do what the contract says in [`PATIENCE`].
    pub fn unpaired(layout: &Layout) -> Result<Self, HarnessError> {
        let dir = temp_dir()?;
        // The same address again after a power cut, as a real controller has.
        let address = free_port()?;
        let mut greenhouse = greenhouse(layout.farm.clone(), address);
        greenhouse.start()?;
        let state = dir.path().join("broker");
        let mut broker =
            Broker::new(layout.broker.clone(), &state, layout.broker_listen, layout.broker_name.as_deref())?;
        if let Some(text) = &layout.broker_config {
            broker.configure(&dir.path().join("farm-broker.toml"), text)?;
        }
        broker.daemon.start()?;
        let mut services = layout.services.clone();
        services.push(Service::http(GREENHOUSE, &address.to_string()));
        let config = AgentConfig {
            name: FARM.to_owned(),
            broker: broker.url(),
            enrollment_token: Some(broker.enroll()?),
            services,
        };
        let mut agent = Agent::new(layout.farm.clone(), &dir.path().join("agent"), &config)?;
        agent.daemon.start()?;
        let phone = Phone::new(layout.phone.clone(), &dir.path().join("phone"))?;
        Ok(Self { phone, agent, greenhouse, broker, dir })
    }

    /// Opens a forward from the phone to the greenhouse.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn forward(&self) -> Result<Forward, HarnessError> {
        self.phone.forward(FARM, GREENHOUSE)
    }

    /// Where all state lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A greenhouse, not running yet.
#[must_use]
pub fn greenhouse(place: Place, listen: SocketAddr) -> Daemon {
    let arguments = vec!["--listen".into(), listen.to_string().into()];
    Daemon::new(place, "greenhouse", arguments, |line| line.text.contains("listening"))
}

/// The socket address in a line of text.
fn address_in(line: &str) -> Option<SocketAddr> {
    line.split(|c: char| c.is_whitespace() || c == '/' || c == ',')
        .find_map(|word| word.trim_end_matches('.').parse().ok())
}

fn make_dir(path: &Path) -> Result<(), HarnessError> {
    std::fs::create_dir_all(path)
        .map_err(|source| HarnessError::Io { doing: format!("making {}", path.display()), source })
}

#[cfg(test)]
mod tests {
    use super::address_in;

    #[test]
    fn addresses_are_found_in_what_programs_print() {
        let address = "127.0.0.1:4711".parse().unwrap();
        for line in [
            "greenhouse listening on http://127.0.0.1:4711",
            "listening on 127.0.0.1:4711",
            "greenhouse of North field: http://127.0.0.1:4711/ (Ctrl-C ends it)",
            "127.0.0.1:4711",
            "ready at 127.0.0.1:4711.",
        ] {
            assert_eq!(address_in(line), Some(address), "{line}");
        }
        assert_eq!(address_in("12:00:01 waiting"), None);
        assert_eq!(address_in("x [::1]:80 y"), "[::1]:80".parse().ok());
    }
}
