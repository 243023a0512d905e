//! A whole farm from the real programs: broker, agent, greenhouse and phone, each
//! of which can be killed, restarted and asked on its own. It speaks to them only
//! through what their users have: command lines, files and printed lines.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{HarnessError, Process, TempDir, free_port, temp_dir};

mod agent;
mod broker;
mod daemon;
mod phone;
mod place;
mod watch;

pub use agent::{Agent, AgentConfig, Service};
pub use broker::Broker;
pub use daemon::Daemon;
pub use phone::{Forward, Phone};
pub use place::Place;
pub use watch::Watch;

/// Time a program gets to start or a command to finish: generous, for debug
/// builds on a loaded machine; what is measured is reported apart.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The greenhouse's name among the farm's services.
pub const GREENHOUSE: &str = "greenhouse";
/// The farm's name.
pub const FARM: &str = "North field";

/// Broker, agent, greenhouse and a paired phone on loopback with fresh state.
/// Everything ends when it is dropped, the phone first.
pub struct Farm {
    /// The phone.
    pub phone: Phone,
    /// The agent.
    pub agent: Agent,
    /// The broker.
    pub broker: Broker,
    /// The greenhouse behind the agent.
    pub greenhouse: Process,
    // Last, so that nobody writes into it any more when it is removed.
    dir: TempDir,
}

impl Farm {
    /// Starts and enrolls all of it, and pairs the phone.
    ///
    /// # Errors
    /// When any part does not do what the contract says in [`PATIENCE`].
    pub fn start() -> Result<Self, HarnessError> {
        let mut farm = Self::unpaired()?;
        let link = farm.agent.invite()?;
        farm.phone.pair(&link)?;
        Ok(farm)
    }

    /// The same without pairing.
    ///
    /// # Errors
    /// When any part does not do what the contract says in [`PATIENCE`].
    pub fn unpaired() -> Result<Self, HarnessError> {
        let dir = temp_dir()?;
        let here = Place::here();
        let greenhouse = start_greenhouse(&here)?;
        let mut broker = Broker::new(here.clone(), &dir.path().join("broker"), free_port()?)?;
        broker.start()?;
        let config = AgentConfig {
            name: FARM.to_owned(),
            broker: broker.url(),
            enrollment_token: Some(broker.enroll()?),
            services: vec![Service::http(GREENHOUSE, &address_of(&greenhouse)?)],
        };
        let mut agent = Agent::new(here.clone(), &dir.path().join("agent"), &config)?;
        agent.start()?;
        let phone = Phone::new(here, &dir.path().join("phone"))?;
        Ok(Self {
            phone,
            agent,
            broker,
            greenhouse,
            dir,
        })
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

/// Starts a greenhouse on a free port of a place's loopback.
///
/// # Errors
/// When it does not listen in time.
pub fn start_greenhouse(place: &Place) -> Result<Process, HarnessError> {
    let mut command: Command = place.command("greenhouse")?;
    let process = Process::spawn("greenhouse", &mut command)?;
    process.wait_for_line("its address", PATIENCE, |line| line.text.contains("listening"))?;
    Ok(process)
}

/// The `ADDRESS:PORT` a greenhouse (or forward) printed.
fn address_of(process: &Process) -> Result<String, HarnessError> {
    let line = process.newest_line(|line| address_in(&line.text).is_some());
    line.and_then(|line| address_in(&line.text).map(|found| found.to_string()))
        .ok_or_else(|| process.failed("printed no address"))
}

/// The socket address in a line of text.
fn address_in(line: &str) -> Option<std::net::SocketAddr> {
    line.split(|c: char| c.is_whitespace() || c == '/' || c == ',')
        .find_map(|word| word.trim_end_matches('.').parse().ok())
}

fn make_dir(path: &Path) -> Result<(), HarnessError> {
    std::fs::create_dir_all(path).map_err(|source| HarnessError::Io {
        doing: format!("making {}", path.display()),
        source,
    })
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
