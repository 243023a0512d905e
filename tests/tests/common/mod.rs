//! What the end-to-end tests share: a farm under a scenario's name that shows
//! what its programs said last when a test fails.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub(crate) mod device;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use farm_tests::harness::farm::{AgentConfig, FARM, Farm, Layout, PATIENCE, Service};
use farm_tests::harness::http::{Response, get};
use farm_tests::harness::{Process, Source, until};
use serde_json::Value;

/// Programs that start, pages that load: seconds at worst on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// One farm at a time: several tests measure times.
static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other test of this program runs a farm.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A farm and what is tried on it.
pub(crate) struct Scene {
    scenario: &'static str,
    farm: Farm,
    // Last: the next test may begin when this farm is gone.
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Scene {
    type Target = Farm;
    fn deref(&self) -> &Farm {
        &self.farm
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Farm {
        &mut self.farm
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("=== failed: {}", self.scenario);
        for daemon in [&self.farm.broker.daemon, &self.farm.agent.daemon, &self.farm.greenhouse] {
            match daemon.process() {
                Ok(process) => show(process),
                Err(error) => eprintln!("--- {error}"),
            }
        }
        match self.farm.agent.control.status() {
            Ok(status) => eprintln!("--- the agent's status: {status}"),
            Err(error) => eprintln!("--- the agent's status: {error}"),
        }
    }
}

/// Prints a program's last lines.
fn show(process: &Process) {
    let state = if process.is_running() { "running" } else { "ended" };
    eprintln!("--- {} ({state}), its last lines:\n{}", process.name(), process.tail());
}

impl Scene {
    /// A farm with one paired phone.
    pub(crate) fn start(scenario: &'static str) -> Self {
        let scene = Self::unpaired(scenario);
        scene.phone.pair(&scene.agent.control.invite().unwrap()).unwrap();
        scene
    }

    /// A farm that no phone knows yet.
    pub(crate) fn unpaired(scenario: &'static str) -> Self {
        Self::laid_out(scenario, &Layout::loopback().unwrap())
    }

    /// The same, where the layout says.
    pub(crate) fn laid_out(scenario: &'static str, layout: &Layout) -> Self {
        let turn = turn();
        let farm = Farm::unpaired(layout);
        let farm = farm.unwrap_or_else(|error| panic!("{scenario}: the farm does not start: {error}"));
        // The agent is ready before it is enrolled.
        let scene = Self { scenario, farm, _turn: turn };
        scene.status("the broker lets the farm in", SOON, |s| s["broker"]["state"] == "online");
        scene
    }

    /// The config of the running agent with other services, without the token
    /// that is used up.
    pub(crate) fn config(&self, services: Vec<Service>) -> AgentConfig {
        AgentConfig { name: FARM.to_owned(), broker: self.broker.url(), enrollment_token: None, services }
    }

    /// Gives the running agent other services besides the greenhouse.
    pub(crate) fn add_services(&self, mut services: Vec<Service>) {
        services.push(self.greenhouse_service());
        let wanted = services.len();
        self.agent.configure(&self.config(services)).unwrap();
        self.agent.daemon.process().unwrap().signal(nix::sys::signal::Signal::SIGHUP).unwrap();
        self.status("the agent takes the new services", SOON, |s| {
            s["services"].as_array().is_some_and(|list| list.len() == wanted)
        });
    }

    /// The greenhouse as the config names it.
    pub(crate) fn greenhouse_service(&self) -> Service {
        let process = self.greenhouse.process().unwrap();
        let line = process.wait_for_line("its address", SOON, |l| l.text.contains("listening")).unwrap();
        let address = line.text.split("http://").nth(1).unwrap().trim_end_matches('/').to_owned();
        Service::http("greenhouse", &address)
    }

    /// Where the agent's files lie.
    pub(crate) fn agent_state(&self) -> PathBuf {
        self.dir().join("agent/state")
    }

    /// Waits until the agent's status is as wanted.
    pub(crate) fn status(&self, what: &str, within: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let result = until(what, within, || {
            let status = self.agent.control.status().ok();
            last.clone_from(&status);
            status.filter(&wanted)
        });
        match result {
            Ok((status, _)) => status,
            Err(error) => panic!("{}: {error}; the last status: {last:?}", self.scenario),
        }
    }

    /// One of the agent's counters.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.agent.control.status().unwrap()["counters"][name].as_u64().unwrap_or(0)
    }

    /// A running `farm-connect forward`.
    pub(crate) fn forward(&self, service: &str) -> Gate {
        Gate::open(&mut self.phone.command(["forward", FARM, service]).unwrap())
    }

    /// The resident memory of the agent, bytes.
    pub(crate) fn agent_memory(&self) -> u64 {
        self.agent.daemon.process().unwrap().usage().unwrap().rss_bytes
    }
}

/// A running forward that shows what it said when a test fails.
pub(crate) struct Gate {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Gate {
    /// Starts the command and waits until it listens.
    pub(crate) fn open(command: &mut Command) -> Self {
        let process = Process::spawn("farm-connect forward", command.env("FARM_LOG", "info")).unwrap();
        let line = process
            .wait_for_line("its address", PATIENCE, |l| {
                l.source == Source::Stdout && l.text.starts_with("forwarding ")
            })
            .unwrap();
        let address = line.text.split(' ').nth(1).unwrap().parse().unwrap();
        Self { process, address }
    }

    /// Fetches the page, which must be there.
    pub(crate) fn page(&self) -> Response {
        let page = get(self.address, "/").unwrap_or_else(|error| panic!("the page: {error}"));
        assert_eq!(page.status, 200);
        page
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(&self.process);
        }
    }
}

/// Runs a program that must fail with this exit code: what it complained of.
pub(crate) fn fails(name: &str, command: &mut Command, code: i32) -> String {
    let process = Process::spawn(name, command).unwrap();
    let status = process.wait(PATIENCE).unwrap();
    // Its end is also the end of its lines.
    let _ = process.wait_for_line("no such line", SOON, |_| false);
    let lines = process.lines();
    let text: String =
        lines.iter().filter(|l| l.source == Source::Stderr).map(|l| format!("{}\n", l.text)).collect();
    assert_eq!(status.code(), Some(code), "{name}: {text}");
    text
}

/// A TCP service that sends back what it gets. It serves until the test ends.
pub(crate) fn echo_service() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let mut buffer = [0; 16 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A connection through the tunnel with a deadline on everything.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, SOON).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A connection that must end in a reset, at whichever step it comes.
pub(crate) fn refused(gate: &Gate) {
    let ask = || -> io::Result<usize> {
        let mut stream = TcpStream::connect_timeout(&gate.address, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.read(&mut [0; 1])
    };
    match ask() {
        // A write after the reset was seen says "broken pipe".
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
        other => panic!("wanted a reset connection, got {other:?}"),
    }
}

/// Sends bytes and reads as many back.
pub(crate) fn echo(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<Duration> {
    let start = Instant::now();
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    assert_eq!(back, bytes, "an echo came back altered");
    Ok(start.elapsed())
}

/// The middle one of some durations.
pub(crate) fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

/// Milliseconds with their fraction.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A certificate or key as a PEM file has it.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
