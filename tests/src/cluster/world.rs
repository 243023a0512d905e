//! Three nodes of NATS, three brokers, devices at them, and a tunnel in use.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::farm::{
    Agent, AgentConfig, Broker, Daemon, FARM, Forward, PATIENCE, Phone, Place, Service,
};
use crate::harness::{Echoes, HarnessError, TempDir, echo_service, ending, free_port, temp_dir, until};

use super::crew::{Crew, from};
use super::engine::{Node, nodes};
use super::enrolling::{Enrolling, token};

/// Brokers of the cluster.
pub(super) const BROKERS: usize = 3;

/// Farms, each with a phone: every combination of brokers several times.
const PAIRS: usize = 27;

/// Presence has to be right again within this time after any kill.
pub(super) const RIGHT_WITHIN: Duration = Duration::from_secs(10);

/// It is right when it has stayed so for this long: longer than what a broker
/// that died is given before all its devices are taken for gone.
const STAYS_RIGHT: Duration = Duration::from_millis(5500);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// All of it. Ends when dropped, those who use it first.
pub(super) struct World {
    pub(super) enrolling: Option<Enrolling>,
    pub(super) crew: Crew,
    pub(super) echoes: Echoes,
    forward: Forward,
    pub(super) agent: Agent,
    pub(super) brokers: Vec<Broker>,
    pub(super) states: Vec<PathBuf>,
    pub(super) nodes: Vec<Node>,
    _dir: TempDir,
}

fn io(doing: &str, source: std::io::Error) -> HarnessError {
    HarnessError::Io { doing: doing.to_owned(), source }
}

impl World {
    pub(super) fn start() -> Result<Self, HarnessError> {
        let dir = temp_dir()?;
        let mut nodes = nodes(dir.path())?;
        nodes.iter_mut().try_for_each(Node::start)?;
        for node in &nodes {
            node.wait_until_whole()?;
        }
        let states: Vec<PathBuf> = (0..BROKERS).map(|n| dir.path().join(format!("broker-{n}"))).collect();
        let mut brokers = Vec::with_capacity(BROKERS);
        for (number, state) in states.iter().enumerate() {
            let mut broker = Broker::new(Place::here(), state, free_port()?, None)?;
            let file = dir.path().join(format!("broker-{number}.toml"));
            broker.configure(&file, &config(number, &nodes))?;
            broker.daemon.start()?;
            brokers.push(broker);
        }
        let urls: Vec<String> = brokers.iter().map(Broker::url).collect();
        let give = |state: &PathBuf| until("a token", PATIENCE, || token(state).ok()).map(|(token, _)| token);
        let tokens = (0..PAIRS).map(|n| give(&states[n % BROKERS])).collect::<Result<Vec<_>, _>>()?;
        let crew = Crew::start(&urls, tokens)?;
        let (agent, forward, echoes) = tunnel(dir.path(), &urls, give(&states[0])?)?;
        Ok(Self { enrolling: None, crew, echoes, forward, agent, brokers, states, nodes, _dir: dir })
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.brokers.iter().map(Broker::url).collect()
    }

    /// Waits until all is right and stays so: how long it took, counted from
    /// `since`; what was wrong last, where it takes too long.
    pub(super) fn right_again(
        &self,
        dead: Option<&str>,
        since: Instant,
        within: Duration,
    ) -> Result<Result<Duration, String>, HarnessError> {
        let (mut last_wrong, mut what) = (None, String::new());
        loop {
            if ending() {
                return Err(HarnessError::Ending);
            }
            let now = Instant::now();
            if let Some(wrong) = self.crew.wrong(dead, since) {
                (last_wrong, what) = (Some(now), wrong);
            }
            let right_since = last_wrong.unwrap_or(since);
            if now >= right_since + STAYS_RIGHT {
                return Ok(Ok(right_since.duration_since(since)));
            }
            if last_wrong.is_some_and(|wrong| wrong > since + within) {
                return Ok(Err(what));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Spreads the devices over the brokers again, all of which run: they do not
    /// go back by themselves.
    pub(super) fn spread(&self) -> Result<(), HarnessError> {
        while !self.crew.go_on_towards_home() {
            // The broken links first have to be known for broken.
            let since = Instant::now();
            until("all devices to be at a broker", PATIENCE, || {
                self.crew.wrong(None, since).is_none().then_some(())
            })?;
        }
        self.crew.longest_gap();
        Ok(())
    }

    /// What the tunnel noticed since the last look: the slowest echo.
    pub(super) fn tunnel(&self) -> Result<Duration, String> {
        if !self.forward.process.is_running() {
            return Err("farm-connect ended".to_owned());
        }
        let (_, slowest, broken) = self.echoes.look();
        broken.map_or(Ok(slowest), |why| Err(format!("the stream broke: {why}")))
    }

    pub(super) fn broker(&mut self, number: usize) -> &mut Daemon {
        &mut self.brokers[number].daemon
    }
}

fn config(number: usize, nodes: &[Node]) -> String {
    let urls: Vec<String> = nodes.iter().map(|node| format!("{:?}", node.url())).collect();
    // Each broker begins at another node.
    let mut urls = urls;
    let by = number % urls.len();
    urls.rotate_left(by);
    format!(
        "stun = \"off\"\n[relay]\nenabled = false\n[limits]\nconnections_per_address = 4000\n\
         [cluster]\nname = \"b{}\"\nnats = [{}]\n",
        number + 1,
        urls.join(", ")
    )
}

/// An agent at the first broker, a client paired at the second, and one stream.
fn tunnel(dir: &Path, urls: &[String], token: String) -> Result<(Agent, Forward, Echoes), HarnessError> {
    let service = echo_service().map_err(|source| io("starting a service", source))?;
    let config = AgentConfig {
        name: FARM.to_owned(),
        broker: from(urls, 0),
        enrollment_token: Some(token),
        services: vec![Service::tcp("echo", &service.to_string())],
    };
    let mut agent = Agent::new(Place::here(), &dir.join("agent"), &config)?;
    agent.daemon.start()?;
    until("the agent to be online", PATIENCE, || {
        (agent.control.status().ok()?["broker"]["state"] == "online").then_some(())
    })?;
    let phone = Phone::new(Place::here(), &dir.join("phone"))?;
    let link = agent.control.invite()?.replace(&from(urls, 0), &from(urls, 1));
    phone.pair(&link)?;
    let forward = phone.forward(FARM, "echo")?;
    let echoes = Echoes::through(forward.address)?;
    Ok((agent, forward, echoes))
}
