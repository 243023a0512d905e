//! A real agent, a real client, and bytes that go through their tunnel all the
//! time: hostile traffic at the broker must not touch it.

use std::path::Path;
use std::time::Duration;

use crate::device::Broker;
use crate::harness::farm::{Agent, AgentConfig, FARM, Forward, PATIENCE, Phone, Place, Service};
use crate::harness::{Echoes, HarnessError, echo_service, run, until};

/// A tunnel in use. The programs end when it is dropped.
pub(super) struct Tunnel {
    echoes: Echoes,
    _forward: Forward,
    _agent: Agent,
}

impl Tunnel {
    /// Enrolls an agent at the broker, pairs a client and opens one stream.
    pub(super) fn open(broker: &Broker, dir: &Path) -> Result<Self, HarnessError> {
        let io = |source| HarnessError::Io { doing: "setting up a tunnel".to_owned(), source };
        let service = echo_service().map_err(io)?;
        let config = AgentConfig {
            name: FARM.to_owned(),
            broker: broker.url(),
            enrollment_token: Some(broker.token()?),
            services: vec![Service::tcp("echo", &service.to_string())],
        };
        let mut agent = Agent::new(Place::here(), &dir.join("agent"), &config)?;
        let path = dir.join("agent/farm-agent.toml");
        let text = std::fs::read_to_string(&path).map_err(io)?;
        std::fs::write(&path, format!("broker_ca = {:?}\n{text}", broker.certificate.chain)).map_err(io)?;
        agent.daemon.start()?;
        until("the agent to be online", PATIENCE, || {
            (agent.control.status().ok()?["broker"]["state"] == "online").then_some(())
        })?;
        let phone = Phone::new(Place::here(), &dir.join("phone"))?;
        let link = agent.control.invite()?;
        let mut pair = phone.command(["pair", &link])?;
        run("farm-connect pair", pair.env("FARM_BROKER_CA", &broker.certificate.chain), PATIENCE)?;
        let mut command = phone.command(["forward", FARM, "echo", "--listen", "127.0.0.1:0"])?;
        let forward = Forward::start(command.env("FARM_BROKER_CA", &broker.certificate.chain))?;
        let echoes = Echoes::through(forward.address)?;
        Ok(Self { echoes, _forward: forward, _agent: agent })
    }

    /// Echoes so far, the slowest since the last look, and what broke it.
    pub(super) fn look(&self) -> (u64, Duration, Option<String>) {
        self.echoes.look()
    }
}
