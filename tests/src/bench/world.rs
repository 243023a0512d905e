//! The farm that is measured: the real programs on loopback with fresh state,
//! and two services, the greenhouse and one for round trips.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::service::Service as RoundTrips;
use super::trouble::Trouble;
use crate::harness::farm::{
    Agent, AgentConfig, Broker, Daemon, FARM, Forward, GREENHOUSE, PATIENCE, Phone, Place, Service,
    greenhouse,
};
use crate::harness::{Process, TempDir, free_port, temp_dir};

/// The round-trip service's name.
const ROUND_TRIPS: &str = "round-trips";

/// Broker, agent, services and a phone. Everything ends when it is dropped.
pub(super) struct World {
    pub(super) phone: Phone,
    /// Where the phone's state lies, for tunnels in this process.
    pub(super) phone_state: PathBuf,
    pub(super) agent: Agent,
    greenhouse: Daemon,
    pub(super) greenhouse_address: SocketAddr,
    pub(super) broker: Broker,
    pub(super) service: RoundTrips,
    // Last, so that nobody writes into it any more when it is removed.
    dir: TempDir,
}

impl World {
    /// Starts and enrolls all of it; the phone is not paired yet.
    pub(super) fn start() -> Result<Self, Trouble> {
        let dir = temp_dir()?;
        let here = Place::here();
        let greenhouse_address = free_port()?;
        let mut greenhouse = greenhouse(here.clone(), greenhouse_address);
        greenhouse.start()?;
        let service = RoundTrips::start().map_err(Trouble::io("starting the round-trip service"))?;
        let mut broker = Broker::new(here.clone(), &dir.path().join("broker"), free_port()?, None)?;
        broker.daemon.start()?;
        let config = AgentConfig {
            name: FARM.to_owned(),
            broker: broker.url(),
            enrollment_token: Some(broker.enroll()?),
            services: vec![
                Service::http(GREENHOUSE, &greenhouse_address.to_string()),
                Service::tcp(ROUND_TRIPS, &service.address().to_string()),
            ],
        };
        let mut agent = Agent::new(here.clone(), &dir.path().join("agent"), &config)?;
        agent.daemon.start()?;
        let phone_state = dir.path().join("phone");
        let phone = Phone::new(here, &phone_state)?;
        Ok(Self { phone, phone_state, agent, greenhouse, greenhouse_address, broker, service, dir })
    }

    /// Pairs the phone.
    pub(super) fn pair(&self) -> Result<(), Trouble> {
        Ok(self.phone.pair(&self.agent.control.invite()?)?)
    }

    /// The phone's program, leading to the greenhouse.
    pub(super) fn to_greenhouse(&self) -> Result<Forward, Trouble> {
        Ok(self.phone.forward(FARM, GREENHOUSE)?)
    }

    /// The phone's program, leading to the round-trip service.
    pub(super) fn to_service(&self) -> Result<Forward, Trouble> {
        Ok(self.phone.forward(FARM, ROUND_TRIPS)?)
    }

    pub(super) fn agent(&self) -> Result<&Process, Trouble> {
        Ok(self.agent.daemon.process()?)
    }

    pub(super) fn broker(&self) -> Result<&Process, Trouble> {
        Ok(self.broker.daemon.process()?)
    }

    /// A directory for files, removed at the end.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends all programs as their users do.
    pub(super) fn end(mut self) -> Result<(), Trouble> {
        for daemon in [&mut self.agent.daemon, &mut self.greenhouse, &mut self.broker.daemon] {
            if daemon.is_running() {
                daemon.terminate()?;
            }
        }
        Ok(())
    }
}

/// Ends the phone's program as its user does, so that the farm is told.
pub(super) fn end(forward: &Forward) -> Result<(), Trouble> {
    forward.process.terminate(PATIENCE)?;
    Ok(())
}
