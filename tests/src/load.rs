//! `make load`: ten thousand devices at one broker, played by crews that speak
//! the real protocol over real TLS, and the same connections at others beside
//! it. Prints what each costs.

mod crew;
mod growth;
mod hand;
mod line;
mod mqtt;
mod server;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub use crew::{Orders, run as crew};
use hand::Hand;
pub use line::Kind;
use serde_json::Value;

use crate::bench::stop;
use crate::bench::trouble::Trouble;
use crate::device::Broker;
use crate::harness::{Process, Usage, end_all, ending, temp_dir};

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Devices at the broker.
    pub devices: u32,
    /// Signals a second.
    pub rate: u32,
    /// How long each thing is measured.
    pub each: Duration,
    /// Whether others are measured, too.
    pub yardsticks: bool,
    /// Whether goals that are missed are a failure.
    pub judge: bool,
}

/// The whole run ends by itself after this, whatever happens.
const BOUND: Duration = Duration::from_secs(900);

/// All devices must be in within this, whatever else the machine does.
const IN_WITHIN: Duration = Duration::from_secs(240);

/// Pairs of a farm and its phone among the devices.
const PAIRS: u32 = 250;

/// Let buffers and allocators come to rest.
const REST: Duration = Duration::from_secs(2);

/// Goals: what `make load` fails for.
mod goal {
    /// Resident bytes per connected device.
    pub(super) const BYTES: f64 = 10.0 * 1024.0;
    /// Handshakes per CPU second, times mosquitto's.
    pub(super) const TIMES_MOSQUITTO: f64 = 1.5;
    /// Signal latency, milliseconds at the 99th percentile.
    pub(super) const SIGNAL: f64 = 10.0;
    /// Presence latency, milliseconds at the 99th percentile.
    pub(super) const PRESENCE: f64 = 50.0;
    /// Seconds until all are back.
    pub(super) const BACK: f64 = 10.0;
    /// Percent of a core while nothing happens.
    pub(super) const IDLE: f64 = 1.0;
}

/// Prints results as they come and keeps the goals that were missed.
#[derive(Default)]
struct Results {
    missed: Vec<String>,
}

impl Results {
    fn say(&mut self, name: &str, measured: &str) {
        println!("{name:<42} {measured}");
    }

    /// With a goal, which `reached` says.
    fn judge(&mut self, name: &str, measured: &str, goal: &str, reached: bool) {
        let verdict = if reached { "ok" } else { "MISSED" };
        println!("{name:<42} {measured:<34} {goal:<16} {verdict}");
        if !reached {
            self.missed.push(name.to_owned());
        }
    }
}

/// Measures everything and prints it. Fails when devices could not get in or
/// come back, or a goal was missed.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    if let Err(error) = stop::on_signal(end_all) {
        eprintln!("load: signals can't be caught, Ctrl-C would leave programs behind: {error}");
        return ExitCode::FAILURE;
    }
    let bound = stop::Bound::set(BOUND);
    let mut results = Results::default();
    let done = measure(options, &mut results);
    let reached = bound.lift();
    if let Err(error) = done {
        eprintln!("load: {error}");
        return ExitCode::FAILURE;
    }
    if ending() || reached {
        eprintln!("load: stopped before the end");
        return ExitCode::FAILURE;
    }
    if options.judge && !results.missed.is_empty() {
        eprintln!("load: goals missed: {}", results.missed.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Resident memory and CPU time of a server.
fn look(process: &Process) -> Result<Usage, Trouble> {
    Ok(process.usage()?)
}

fn per_device(before: &Usage, after: &Usage, devices: u32) -> f64 {
    after.rss_bytes.saturating_sub(before.rss_bytes) as f64 / f64::from(devices)
}

/// Handshakes per second of the server's CPU time.
fn handshakes(before: &Usage, after: &Usage, devices: u32) -> f64 {
    f64::from(devices) / (after.cpu - before.cpu).as_secs_f64()
}

fn number(answer: &Value, name: &str) -> f64 {
    answer[name].as_f64().unwrap_or(f64::NAN)
}

fn latency(answer: &Value) -> String {
    format!(
        "p50 {:.2} ms, p99 {:.2}, max {:.1} ({} of {})",
        number(answer, "p50"),
        number(answer, "p99"),
        number(answer, "max"),
        answer["came"],
        answer["expected"],
    )
}

/// Crews for our broker: agents in two processes, pairs in a third.
struct Crews {
    hands: Vec<Hand>,
    most: [u32; 3],
}

impl Crews {
    fn start(broker: &Broker, devices: u32) -> Result<Self, Trouble> {
        let pairs = PAIRS.min(devices / 4) * 2;
        let agents = devices - pairs;
        let most = [pairs, agents / 2, agents - agents / 2];
        let kinds = [Kind::Pairs, Kind::Agents, Kind::Agents];
        let mut first = 0;
        let mut hands = Vec::new();
        for (n, (kind, count)) in kinds.into_iter().zip(most).enumerate() {
            let (address, certificate) = (broker.address, broker.certificate.der.clone());
            hands.push(Hand::start(&Orders { kind, first, count, address, certificate, net: 10 + n as u8 })?);
            first += count;
        }
        Ok(Self { hands, most })
    }

    /// So many of all, the pairs first.
    fn connect(&mut self, devices: u32) -> Result<(), Trouble> {
        let pairs = self.most[0].min(devices);
        let agents = devices - pairs;
        hand::connect(&mut self.hands, &[pairs, agents / 2, agents - agents / 2], IN_WITHIN)
    }

    fn pairs(&mut self) -> &mut Hand {
        &mut self.hands[0]
    }
}

/// Another server with crews of its own.
struct Beside {
    hands: [Hand; 2],
    server: server::Yardstick,
    most: u32,
}

impl Beside {
    fn start(options: &Options, server: server::Yardstick, certificate: &Path) -> Result<Self, Trouble> {
        let half = options.devices / 4 * 2;
        let start = |first, count, net| {
            let (kind, address, certificate) = (server.kind, server.address, certificate.to_owned());
            Hand::start(&Orders { kind, first, count, address, certificate, net })
        };
        let hands = [start(0, half, 20)?, start(half, options.devices - half, 21)?];
        Ok(Self { hands, server, most: half })
    }

    /// So many altogether.
    fn connect(&mut self, devices: u32) -> Result<(), Trouble> {
        let first = (devices / 2).min(self.most);
        hand::connect(&mut self.hands, &[first, devices - first], IN_WITHIN)
    }

    fn signals(&mut self, options: &Options, results: &mut Results) -> Result<(), Trouble> {
        let order = format!("signals {} {}", options.rate, options.each.as_secs());
        let signals = self.hands[0].ask(&order, options.each + Duration::from_secs(60))?;
        let name = format!("{}: signals, {} a second", self.server.name, options.rate);
        results.say(&name, &latency(&signals));
        Ok(())
    }
}

fn measure(options: &Options, results: &mut Results) -> Result<(), Trouble> {
    let dir = temp_dir()?;
    let limits = format!("[limits]\nconnections = {}\n", options.devices + 1000);
    let mut broker = Broker::new(dir.path(), &limits)?;
    // Even numbers of the pairs are farms; that the odd ones are enrolled as
    // well, and never come, does no harm.
    server::enroll(broker.state(), 0..options.devices)?;
    broker.daemon.start()?;
    let mut crews = Crews::start(&broker, options.devices)?;
    let certificate = broker.certificate.clone();
    let beside = if options.yardsticks {
        let mosquitto = server::mosquitto(dir.path(), &certificate)?;
        if mosquitto.is_none() {
            results.say("mosquitto", "is not installed: left out");
        }
        mosquitto.map(|one| Beside::start(options, one, &certificate.der)).transpose()?
    } else {
        None
    };
    let beside = growth::measure(options, &broker, &mut crews, beside, results)?;
    if let Some(mut beside) = beside {
        beside.signals(options, results)?;
    }
    stop::pause(REST)?;
    idle(options, &broker, results)?;
    talk(options, &mut crews, results)?;
    restart(options, &mut broker, &mut crews, results)?;
    drop(crews);
    drop(broker);
    if options.yardsticks {
        match server::node(dir.path(), &certificate)? {
            Some(node) => alone(options, node, &certificate.der, results)?,
            None => results.say("node ws", "is not installed: left out"),
        }
    }
    Ok(())
}

/// All are in and nothing happens but heartbeats.
fn idle(options: &Options, broker: &Broker, results: &mut Results) -> Result<(), Trouble> {
    let process = broker.daemon.process()?;
    let (before, start) = (look(process)?, Instant::now());
    // CPU time is counted in steps of 10 ms: a percent needs a while.
    stop::pause(options.each * 2)?;
    let cpu = (look(process)?.cpu - before.cpu).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    results.judge("idle, heartbeats only", &format!("{cpu:.2} % of a core"), "≤ 1 %", cpu <= goal::IDLE);
    Ok(())
}

/// Signals, and presence, with all devices in.
fn talk(options: &Options, crews: &mut Crews, results: &mut Results) -> Result<(), Trouble> {
    let seconds = options.each.as_secs();
    let within = options.each + Duration::from_secs(60);
    let signals = crews.pairs().ask(&format!("signals {} {seconds}", options.rate), within)?;
    let name = format!("signals, {} a second", options.rate);
    results.judge(&name, &latency(&signals), "p99 ≤ 10 ms", number(&signals, "p99") <= goal::SIGNAL);
    let presence = crews.pairs().ask(&format!("presence 100 {seconds}"), within)?;
    let reached = number(&presence, "p99") <= goal::PRESENCE;
    results.judge("presence to a watching phone", &latency(&presence), "p99 ≤ 50 ms", reached);
    let fan = crews.pairs().ask(&format!("fan {}", seconds.min(5)), within)?;
    let reached = number(&fan, "p99") <= goal::PRESENCE;
    results.judge("presence of one farm to all phones", &latency(&fan), "p99 ≤ 50 ms", reached);
    for (name, answer) in [("signals", &signals), ("presence", &presence), ("presence to all", &fan)] {
        if answer["came"] != answer["expected"] {
            results.missed.push(format!("{name} complete"));
        }
    }
    Ok(())
}

/// The broker goes and comes back: so do all devices.
fn restart(
    options: &Options,
    broker: &mut Broker,
    crews: &mut Crews,
    results: &mut Results,
) -> Result<(), Trouble> {
    for (name, kill) in [("all back after a restart", false), ("all back after kill -9", true)] {
        if kill {
            broker.daemon.kill()?;
        } else {
            broker.daemon.terminate()?;
        }
        let took = broker.daemon.start()?;
        let start = Instant::now();
        hand::everybody(&mut crews.hands, options.devices.into(), IN_WITHIN)?;
        let seconds = start.elapsed().as_secs_f64();
        let figures = broker.figures().map_err(|error| Trouble::Wrong(error.to_string()))?;
        let refused: f64 =
            figures.iter().filter(|(name, _)| name.starts_with("limit_")).map(|(_, value)| value).sum();
        let opened = figures.get("opened_total").copied().unwrap_or_default();
        let text = format!(
            "{seconds:.1} s (start {:.2} s), {:.2} tries each, {refused:.0} refused",
            took.as_secs_f64(),
            opened / f64::from(options.devices)
        );
        results.judge(name, &text, "≤ 10 s", seconds <= goal::BACK);
    }
    Ok(())
}

/// The same connections at another server, after ours.
fn alone(
    options: &Options,
    yardstick: server::Yardstick,
    certificate: &Path,
    results: &mut Results,
) -> Result<(), Trouble> {
    let mut beside = Beside::start(options, yardstick, certificate)?;
    let empty = look(&beside.server.process)?;
    beside.connect(options.devices)?;
    stop::pause(REST)?;
    let full = look(&beside.server.process)?;
    results.say(
        &format!("{}: {} devices", beside.server.name, options.devices),
        &format!(
            "{:.1} KiB each, {:.0} handshakes/CPU s",
            per_device(&empty, &full, options.devices) / 1024.0,
            handshakes(&empty, &full, options.devices)
        ),
    );
    beside.signals(options, results)
}
