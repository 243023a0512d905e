//! The farm of the demo and what can be done to it, each step measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::board::{Board, Tone};
use super::network::Network;
use super::probe::{self, MEGABYTES};
use super::step::Step;
use super::tunnel::Tunnel;
use super::units::time;
use crate::harness::farm::{FARM, Farm, Forward, Layout, Watch, app_files};
use crate::harness::{HarnessError, free_port};

/// Everything that runs. Fields are dropped in this order: the phone's side,
/// the farm, its cable.
pub(super) struct World {
    forward: Forward,
    tunnel: Arc<Watch>,
    farm: Farm,
    network: Result<Network, String>,
    board: Arc<Board>,
    /// The port at which the broker serves the app, where it is built.
    app: Option<u16>,
}

/// Why a step did not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// A part failed.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// It makes no sense at the moment.
    #[error("{0}")]
    NotNow(&'static str),
    /// It worked, but not as promised.
    #[error("{0}")]
    Broken(String),
    /// It can't be done here.
    #[error("{0}")]
    Impossible(String),
}

impl World {
    /// Starts broker, agent and greenhouse with fresh state, enrolls, pairs,
    /// opens the forward and fetches the page.
    pub(super) fn start(board: Arc<Board>, loopback: bool) -> Result<Self, StepError> {
        let network = if loopback { Err("no other address on loopback".to_owned()) } else { Network::lay() };
        let mut layout = Layout::loopback()?;
        match &network {
            Ok(network) => {
                layout.farm = network.place();
                // Browsers keep keys on `localhost` only, the farm comes over its cable: on all addresses.
                let port = free_port()?.port();
                layout.broker_listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
                layout.broker_name = Some(network.ours().to_string());
            }
            Err(reason) => board.say(Tone::Plain, format!("all on loopback; {reason}")),
        }
        let start = Instant::now();
        let farm = Farm::unpaired(&layout)?;
        board.say(
            Tone::Good,
            format!("broker, greenhouse and agent started, farm enrolled, in {}", time(start.elapsed())),
        );
        {
            let mut facts = board.facts();
            facts.broker = farm.broker.url();
            facts.broker_up = true;
            facts.power = true;
            facts.address = address(&network);
        }
        let link = farm.agent.control.invite()?;
        let start = Instant::now();
        farm.phone.pair(&link)?;
        board.say(Tone::Good, format!("phone paired in {}", time(start.elapsed())));
        let app = app_files().join("index.html").is_file().then_some(layout.broker_listen.port());
        board.say(
            Tone::Plain,
            match app {
                Some(_) => "the phone app: press p, open its link in a browser on this machine".to_owned(),
                None => "the phone app is not built: make app".to_owned(),
            },
        );
        let forward = farm.forward()?;
        board.facts().forward = Some(forward.address);
        let tunnel = Arc::new(farm.phone.watch(FARM)?);
        let mut world = Self { forward, tunnel, farm, network, board, app };
        world.perform(Step::Fetch)?;
        Ok(world)
    }

    /// Does a step and says what happened.
    pub(super) fn perform(&mut self, step: Step) -> Result<(), StepError> {
        let said = match step {
            Step::Fetch => self.fetch(),
            Step::Throughput => self.throughput(),
            Step::Cut => self.cut(),
            Step::Restore => self.restore(),
            Step::Broker => self.restart_broker(),
            Step::Address => self.change_address(),
            Step::Pair => self.invite(),
            Step::Quit => self.stop(),
        }?;
        self.board.say(Tone::Good, said);
        Ok(())
    }

    /// The watch over the tunnel, for the screen.
    pub(super) fn tunnel(&self) -> Arc<Watch> {
        Arc::clone(&self.tunnel)
    }

    fn fetch(&mut self) -> Result<String, StepError> {
        let page = probe::page(self.forward.address, Step::Fetch.budget())?;
        Ok(format!("page through the tunnel in {}: {}", time(page.took), page.text))
    }

    fn throughput(&mut self) -> Result<String, StepError> {
        let board = Arc::clone(&self.board);
        let done = probe::transfer(self.forward.address, |transfer| {
            board.facts().transfer = Some(transfer);
        })?;
        if done.verdict != Some(true) {
            let text = format!("{MEGABYTES} MB arrived with a WRONG checksum ({} bytes)", done.bytes);
            return Err(StepError::Broken(text));
        }
        within(Step::Throughput, done.took)?;
        Ok(format!(
            "{MEGABYTES} MB in {}, {:.1} MB/s, longest gap {}, checksum right",
            time(done.took),
            done.rate(),
            time(done.longest_gap)
        ))
    }

    /// SIGKILL for everything at the farm, as when the power fails.
    fn cut(&mut self) -> Result<String, StepError> {
        if !self.board.facts().power {
            return Err(StepError::NotNow("the farm has no power already: press r"));
        }
        // Both die before the first is waited for: power fails at once.
        self.farm.agent.daemon.process()?.signal(Signal::SIGKILL)?;
        self.farm.greenhouse.process()?.signal(Signal::SIGKILL)?;
        let start = Instant::now();
        self.farm.agent.daemon.kill()?;
        self.farm.greenhouse.kill()?;
        self.board.facts().power = false;
        let down = |status: &Value| !Tunnel::of(status).is_up();
        let seen = self.tunnel.wait_for_new("a tunnel that is down", Step::Cut.budget(), down)?;
        // The status is printed once a second and says how long it has been so.
        let noticed = seen.at.saturating_duration_since(start).saturating_sub(Tunnel::of(&seen.status).since);
        Ok(format!("power cut; the phone noticed after {}", time(noticed)))
    }

    fn restore(&mut self) -> Result<String, StepError> {
        if self.board.facts().power {
            return Err(StepError::NotNow("the farm has power: press c first"));
        }
        // The agent comes up beside the greenhouse, as at a real farm.
        let greenhouse = &mut self.farm.greenhouse;
        let agent = &mut self.farm.agent.daemon;
        let ready = std::thread::scope(|scope| {
            let page = scope.spawn(|| greenhouse.start());
            let ready = agent.start();
            page.join().map_err(|_| StepError::Broken("the greenhouse's thread died".to_owned()))??;
            Ok::<_, StepError>(ready?)
        })?;
        self.board.facts().power = true;
        let back = probe::until_answers(self.forward.address, Step::Restore.budget())?;
        Ok(format!("power is back; agent ready after {}, the page {} later", time(ready), time(back)))
    }

    /// Terminates the broker, shows that the tunnel does not care, starts it
    /// again and waits until the agent has found it.
    fn restart_broker(&mut self) -> Result<String, StepError> {
        let power = self.board.facts().power;
        self.farm.broker.daemon.terminate()?;
        self.board.facts().broker_up = false;
        let during = if power {
            let page = probe::page(self.forward.address, Step::Fetch.budget());
            match page {
                Ok(page) => format!("the tunnel went on without it (page in {})", time(page.took)),
                Err(error) => {
                    self.start_broker()?;
                    let text = format!("without the broker the tunnel gave no page: {error}");
                    return Err(StepError::Broken(text));
                }
            }
        } else {
            "the farm is without power".to_owned()
        };
        let start = Instant::now();
        let ready = self.start_broker()?;
        if !power {
            return Ok(format!("broker restarted in {}; {during}", time(ready)));
        }
        let back = self.until_linked(Step::Broker.budget())?;
        within(Step::Broker, start.elapsed())?;
        Ok(format!("broker restarted in {}; {during}; agent back after {}", time(ready), time(back)))
    }

    fn start_broker(&mut self) -> Result<Duration, StepError> {
        let ready = self.farm.broker.daemon.start()?;
        self.board.facts().broker_up = true;
        Ok(ready)
    }

    /// Waits until the agent says that it has the broker again.
    fn until_linked(&self, budget: Duration) -> Result<Duration, StepError> {
        let start = Instant::now();
        let watch = self.farm.agent.control.watch()?;
        watch.wait("a link to the broker", budget, broker_linked)?;
        Ok(start.elapsed())
    }

    fn change_address(&mut self) -> Result<String, StepError> {
        let network = match &mut self.network {
            Ok(network) => network,
            Err(reason) => return Err(StepError::Impossible(reason.clone())),
        };
        if !self.board.facts().power {
            return Err(StepError::NotNow("the farm has no power: press r first"));
        }
        let old = network.address();
        network.change()?;
        let new = network.address();
        self.board.facts().address = address(&self.network);
        let back = probe::until_answers(self.forward.address, Step::Address.budget())?;
        Ok(format!("farm's address {old} became {new}; the page answered after {}", time(back)))
    }

    fn invite(&mut self) -> Result<String, StepError> {
        if !self.board.facts().power {
            return Err(StepError::NotNow("the farm has no power: press r first"));
        }
        let link = self.farm.agent.control.invite()?;
        let link = self.app.map_or(link.clone(), |port| in_browser(&link, port));
        let said = format!("pairing link: {link}");
        self.board.facts().invitation = Some(link);
        Ok(said)
    }

    /// Ends all parts as their users do, the phone first. What does not end by
    /// itself is killed when it is dropped, and reported here.
    fn stop(&mut self) -> Result<String, StepError> {
        let patience = Step::Quit.budget();
        self.forward.process.terminate(patience)?;
        for daemon in [&mut self.farm.agent.daemon, &mut self.farm.greenhouse, &mut self.farm.broker.daemon] {
            if daemon.is_running() {
                daemon.terminate()?;
            }
        }
        Ok("everything ended by itself".to_owned())
    }

    /// Where the forward listens.
    pub(super) fn forward(&self) -> SocketAddr {
        self.forward.address
    }

    /// The farm, for the screen's own questions.
    pub(super) fn farm(&self) -> &Farm {
        &self.farm
    }
}

/// Whether an agent's status says that it has the broker.
pub(super) fn broker_linked(status: &Value) -> bool {
    status["broker"]["state"] == "online"
}

/// The invitation, opened under a name by which browsers keep keys.
fn in_browser(link: &str, port: u16) -> String {
    let fragment = link.split_once('#').map_or("", |(_, fragment)| fragment);
    format!("http://localhost:{port}/#{fragment}")
}

fn address(network: &Result<Network, String>) -> String {
    match network {
        Ok(network) => format!(" at {}", network.address()),
        Err(_) => " on loopback".to_owned(),
    }
}

fn within(step: Step, took: Duration) -> Result<(), StepError> {
    if took <= step.budget() {
        return Ok(());
    }
    let text = format!("{} took {}, more than {}", step.name(), time(took), time(step.budget()));
    Err(StepError::Broken(text))
}
