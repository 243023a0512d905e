//! The programs of a lab in their network, with a paired phone and two open
//! forwards.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::echo::Echo;
use super::network::{BROKER_NAME, End, Network};
use super::traffic::{Download, Session};
use super::{LabError, Topology};
use crate::harness::farm::{FARM, Farm, Forward, GREENHOUSE, Layout, Service};
use crate::harness::{Line, until};

/// The echo service's name at the farm.
pub(super) const ECHO: &str = "echo";
/// For things that take moments: generous, for a loaded machine.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Everything. Fields are dropped in this order: programs before their network.
pub(super) struct World {
    /// The phone's way to the echo service; the measured session.
    pub(super) echo_forward: Forward,
    /// The phone's way to the greenhouse.
    pub(super) page_forward: Forward,
    /// The phones' programs that were killed: what they said still counts.
    pub(super) former_lines: Vec<(&'static str, Vec<Line>)>,
    pub(super) farm: Farm,
    _echo: Echo,
    pub(super) network: Network,
}

/// The programs with a paired phone that has no tunnel yet.
pub(super) struct Paired {
    pub(super) farm: Farm,
    echo: Echo,
    pub(super) network: Network,
}

impl Paired {
    /// Lays the network, starts the programs, and pairs.
    pub(super) fn start(topology: &Topology) -> Result<Self, LabError> {
        let network = Network::lay(topology)?;
        let echo = Echo::start(network.host(End::Farm))?;
        let layout = Layout {
            farm: network.host(End::Farm).place().with("FARM_LOG", "info"),
            broker: network.internet().place(),
            phone: network.host(End::Phone).place().with("FARM_LOG", "debug"),
            broker_listen: network.broker(),
            broker_name: Some(BROKER_NAME.to_owned()),
            broker_config: Some(network.broker_config()),
            services: vec![Service::tcp(ECHO, &echo.address().to_string())],
        };
        let farm = Farm::unpaired(&layout)?;
        let online = |status: Value| (status["broker"]["state"] == "online").then_some(());
        until("the farm is at the broker", SOON, || farm.agent.control.status().ok().and_then(online))?;
        farm.phone.pair(&farm.agent.control.invite()?)?;
        Ok(Self { farm, echo, network })
    }
}

impl World {
    /// Lays the network, starts the programs, pairs, and waits until data flows.
    pub(super) fn start(topology: &Topology) -> Result<Self, LabError> {
        let Paired { farm, echo, network } = Paired::start(topology)?;
        let echo_forward = farm.phone.forward(FARM, ECHO)?;
        let page_forward = farm.phone.forward(FARM, GREENHOUSE)?;
        let world = Self { echo_forward, page_forward, former_lines: Vec::new(), farm, _echo: echo, network };
        // The tunnels are up, and no connect time is in what is measured.
        drop(world.session()?);
        world.download(1, 100_000_000)?.finish(SOON)?;
        Ok(world)
    }

    /// An idle session.
    pub(super) fn session(&self) -> Result<Session, LabError> {
        Session::open(self.network.host(End::Phone), self.echo_forward.address)
    }

    /// A download at this rate (bytes a second).
    pub(super) fn download(&self, megabytes: u32, rate: u64) -> Result<Download, LabError> {
        let phone = self.network.host(End::Phone).handle();
        Download::start(phone, self.page_forward.address, megabytes, rate)
    }

    /// Kills both forwards, as a phone's system does, and starts them on the
    /// same ports: when the last is ready.
    pub(super) fn restart_client(&mut self) -> Result<Instant, LabError> {
        for forward in [&self.echo_forward, &self.page_forward] {
            forward.process.kill()?;
        }
        let echo = self.farm.phone.forward_on(FARM, ECHO, &self.echo_forward.address.to_string())?;
        let page = self.farm.phone.forward_on(FARM, GREENHOUSE, &self.page_forward.address.to_string())?;
        let ready = Instant::now();
        for former in
            [std::mem::replace(&mut self.echo_forward, echo), std::mem::replace(&mut self.page_forward, page)]
        {
            self.former_lines.push(("phone", former.process.lines()));
        }
        Ok(ready)
    }

    /// Kills the agent, as a power cut does.
    pub(super) fn kill_agent(&mut self) -> Result<(), LabError> {
        let lines = self.farm.agent.daemon.process()?.lines();
        self.farm.agent.daemon.kill()?;
        self.former_lines.push(("farm", lines));
        Ok(())
    }

    /// Ends the agent, as `systemctl stop` does.
    pub(super) fn stop_agent(&mut self) -> Result<(), LabError> {
        self.farm.agent.daemon.process()?.signal(nix::sys::signal::Signal::SIGTERM)?;
        self.farm.agent.daemon.process()?.wait(SOON)?;
        self.kill_agent()
    }

    /// Where pings go to.
    pub(super) fn echo_address(&self) -> SocketAddr {
        self.echo_forward.address
    }

    /// What the agent says of itself.
    pub(super) fn agent_status(&self) -> Result<Value, LabError> {
        Ok(self.farm.agent.control.status()?)
    }
}
