//! A real agent, a real client, and bytes that go through their tunnel all the
//! time: hostile traffic at the broker must not touch it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::device::Broker;
use crate::harness::farm::{Agent, AgentConfig, FARM, Forward, PATIENCE, Phone, Place, Service};
use crate::harness::{HarnessError, run, until};

/// Between two echoes.
const EVERY: Duration = Duration::from_millis(50);

/// An echo that takes longer than this has met a tunnel that is gone.
const DEAD: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    echoes: AtomicU64,
    ended: AtomicBool,
    slowest: Mutex<Duration>,
    broken: Mutex<Option<String>>,
}

/// A tunnel in use. The programs end when it is dropped.
pub(super) struct Tunnel {
    state: Arc<State>,
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
        let stream = TcpStream::connect(forward.address).map_err(io)?;
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::Builder::new()
            .name("echoes".to_owned())
            .spawn(move || {
                if let Err(error) = echo(stream, &shared) {
                    let mut broken = shared.broken.lock().unwrap_or_else(PoisonError::into_inner);
                    *broken = Some(error.to_string());
                }
            })
            .map_err(io)?;
        until("the first echo", PATIENCE, || (state.echoes.load(Ordering::Relaxed) > 0).then_some(()))?;
        Ok(Self { state, _forward: forward, _agent: agent })
    }

    /// Echoes so far, the slowest since the last look, and what broke it.
    pub(super) fn look(&self) -> (u64, Duration, Option<String>) {
        let mut slowest = self.state.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        let broken = self.state.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.state.echoes.load(Ordering::Relaxed), std::mem::take(&mut slowest), broken)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
    }
}

/// Sends a number and waits until it is back, again and again.
fn echo(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEAD))?;
    let mut number = 0u64;
    while !state.ended.load(Ordering::Relaxed) {
        let start = Instant::now();
        stream.write_all(&number.to_be_bytes())?;
        let mut back = [0; 8];
        stream.read_exact(&mut back)?;
        if back != number.to_be_bytes() {
            return Err(std::io::Error::other("an echo came back altered"));
        }
        number += 1;
        {
            let mut slowest = state.slowest.lock().unwrap_or_else(PoisonError::into_inner);
            *slowest = (*slowest).max(start.elapsed());
        }
        state.echoes.store(number, Ordering::Relaxed);
        std::thread::sleep(EVERY);
    }
    Ok(())
}

/// A TCP service that sends back what it gets, until the process ends.
fn echo_service() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("echo service".to_owned()).spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    })?;
    Ok(address)
}
