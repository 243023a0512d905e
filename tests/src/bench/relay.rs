//! The broker's relay beside coturn: the same traffic by coturn's own test
//! client, and what each relay's processor and memory had to do for it.

mod crowd;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farm_broker::core::relay::credentials::{Account, Holder, Name, REALM, Secret, username};

use super::part::{Part, Repeat};
use super::peers::in_path;
use super::sample::Sample;
use super::scale::Scale;
use super::table::{Figure, Row, Unit};
use super::trouble::Trouble;
use super::usage::cpu;
use crate::harness::{HarnessError, Process, Usage, binary, free_port, run, until};

/// For a relay to start.
const START_WITHIN: Duration = Duration::from_secs(10);
/// For one round of traffic.
const ROUND_WITHIN: Duration = Duration::from_secs(60);
/// Clients of one round, each with an allocation.
const CLIENTS: u64 = 10;
/// Bytes of a message: about what SCTP puts into a packet.
const MESSAGE: u64 = 1000;
/// Both relays are given it.
const SECRET: &str = "a secret for benchmarks";
/// Processor time for the same bytes may be so many times coturn's: goal 0.9
/// times its bytes for the same time.
const MOST_WORK: f64 = 1.0 / 0.9;
/// Memory may be this share of coturn's.
const MOST_MEMORY: f64 = 0.25;

/// A relay that runs.
struct Relay {
    name: &'static str,
    program: Process,
    address: SocketAddr,
    /// Seconds of processor time for 1,000,000,000 bytes, by round.
    work: Sample,
    /// The most memory, in bytes.
    memory: u64,
}

pub(super) fn measure(dir: &Path, scale: &Scale, rows: &mut Part) -> Result<(), Trouble> {
    let client = needed("turnutils_uclient")?;
    let peer = free_port()?;
    let mut command = Command::new(needed("turnutils_peer")?);
    command.args(["-L", "127.0.0.1", "-p", &peer.port().to_string()]);
    let echo = Process::spawn("turnutils_peer", &mut command)?;
    let mut relays = [broker(dir)?, coturn(dir)?];
    let mut repeat = Repeat::new(scale.rounds, scale.share);
    while repeat.next() {
        for relay in &mut relays {
            round(&client, relay, peer, scale.relayed)?;
        }
    }
    let crowded = [crowded(&relays[0], peer)?, crowded(&relays[1], peer)?];
    drop(echo);
    let [ours, theirs] = &relays;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    for relay in &relays {
        let is_ours = std::ptr::eq(relay, ours);
        let mut row = Row::spread(format!("{}, work", relay.name), &relay.work, Unit::Work);
        let mut memory = Figure::new("memory", megabytes(relay.memory), Unit::Megabytes);
        if is_ours {
            row = row.at_most(theirs.work.median() * MOST_WORK);
            memory = memory.at_most(megabytes(theirs.memory) * MOST_MEMORY);
        }
        rows.push(row.remark(repeat.remark("rounds")));
        rows.push(Row::new(format!("{}, memory", relay.name), vec![memory]));
    }
    for (at, crowd) in crowd::CROWDS.into_iter().enumerate() {
        for (relay, memory) in relays.iter().zip(crowded) {
            let mut memory = Figure::new("memory", megabytes(memory[at]), Unit::Megabytes);
            if std::ptr::eq(relay, ours) {
                memory = memory.at_most(megabytes(crowded[1][at]) * MOST_MEMORY);
            }
            rows.push(Row::new(format!("{}, {crowd} allocations", relay.name), vec![memory]));
        }
    }
    let share = theirs.work.median() / ours.work.median();
    rows.push(Row::new(
        "bytes for the same work, ours to coturn's",
        vec![Figure::new("", share, Unit::Ratio)],
    ));
    Ok(())
}

/// A relay's memory with each of the crowds.
fn crowded(relay: &Relay, peer: SocketAddr) -> Result<[u64; crowd::CROWDS.len()], Trouble> {
    let mut clients = Vec::new();
    let mut memory = [0; crowd::CROWDS.len()];
    let mut here = 0;
    for (crowd, memory) in crowd::CROWDS.into_iter().zip(&mut memory) {
        clients.extend(crowd::gather(relay.name, relay.address, peer, here..crowd)?);
        here = crowd;
        *memory = relay.resident()?;
    }
    Ok(memory)
}

fn needed(name: &str) -> Result<std::path::PathBuf, Trouble> {
    in_path(name).ok_or_else(|| Trouble::Wrong(format!("{name} is not in $PATH: apt-get install coturn")))
}

/// The broker with nothing but its relay to do.
fn broker(dir: &Path) -> Result<Relay, Trouble> {
    let address = free_port()?;
    let config = dir.join("relay.toml");
    let text = format!(
        "listen = \"{address}\"\nstate = {:?}\n[relay]\nsecret = \"{SECRET}\"\nallow_peers = [\"127.0.0.0/8\"]\n\
         [relay.limits]\nallocations = 5000\nbytes_per_second = 10000000000\nbytes_per_second_per_farm = 10000000000\n\
         bytes_per_second_per_allocation = 10000000000\n",
        dir.join("relay-broker")
    );
    std::fs::write(&config, text).map_err(Trouble::io("writing the relay's configuration"))?;
    let mut command = Command::new(binary("farm-broker")?);
    start("farm-broker", address, command.arg("serve").arg("--config").arg(config))
}

fn coturn(dir: &Path) -> Result<Relay, Trouble> {
    let address = free_port()?;
    let mut command = Command::new(needed("turnserver")?);
    command.args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--allow-loopback-peers", "--use-auth-secret"]);
    command.args(["--static-auth-secret", SECRET, "--realm", REALM, "-L", "127.0.0.1", "-E", "127.0.0.1"]);
    command.args(["-p", &address.port().to_string()]);
    for (option, file) in [("--log-file", "coturn.log"), ("--pidfile", "coturn.pid"), ("--db", "coturn.db")] {
        command.arg(option).arg(dir.join(file));
    }
    start("coturn", address, &mut command)
}

/// Waits until it answers STUN.
fn start(name: &'static str, address: SocketAddr, command: &mut Command) -> Result<Relay, Trouble> {
    let program = Process::spawn(name, command)?;
    let io = |doing| Trouble::io(doing);
    let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).map_err(io("opening a socket"))?;
    socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(io("setting a timeout"))?;
    let question = farm_protocol::stun::binding_request(&[7; 12]);
    let answers = || {
        if !program.is_running() {
            return Some(Err(program.failed("ended")));
        }
        // Refused until it listens.
        let _ = socket.send_to(&question, address);
        let mut answer = [0; 512];
        socket.recv(&mut answer).ok().map(|_| Ok(()))
    };
    let (up, _) = until("an answer to STUN", START_WITHIN, answers)?;
    up.map_err(|error: HarnessError| Trouble::from(error))?;
    Ok(Relay { name, program, address, work: Sample::default(), memory: 0 })
}

/// Messages to a peer that sends each back.
fn round(client: &Path, relay: &mut Relay, peer: SocketAddr, messages: u64) -> Result<(), Trouble> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let username = username(Name { account: Account(1), holder: Holder(1) }, since + 3600);
    let password = Secret::new(SECRET.as_bytes()).password(&username);
    let mut command = Command::new(client);
    command.args(["-c", "-z", "1", "-e", "127.0.0.1", "-r", &peer.port().to_string()]);
    command.args(["-m", &CLIENTS.to_string(), "-n", &messages.to_string(), "-l", &MESSAGE.to_string()]);
    command.args(["-p", &relay.address.port().to_string(), "-u", &username, "-w", &password, "127.0.0.1"]);
    let pid = [relay.program.pid()];
    let before = cpu(&pid);
    let finished = run("turnutils_uclient", &mut command, ROUND_WITHIN)?;
    let spent = cpu(&pid).saturating_sub(before);
    let received = received(&finished.stdout)
        .ok_or_else(|| Trouble::Wrong(format!("turnutils_uclient told nothing of {}", relay.name)))?;
    let sent = CLIENTS * messages * MESSAGE;
    // Lost on a busy machine: a few. More means that something else was measured.
    if received * 10 < sent * 9 {
        return Err(Trouble::Wrong(format!("{}: {received} of {sent} bytes came back", relay.name)));
    }
    relay.work.push(spent.as_secs_f64() * 1e9 / (sent + received) as f64);
    relay.memory = relay.memory.max(relay.resident()?);
    Ok(())
}

impl Relay {
    /// Its memory now, in bytes.
    fn resident(&self) -> Result<u64, Trouble> {
        let usage = Usage::of(self.program.pid()).map_err(Trouble::io("reading what a relay uses"))?;
        Ok(usage.rss_bytes)
    }
}

/// What came back in all, by the client's last word on it.
fn received(output: &str) -> Option<u64> {
    let last = output.lines().rfind(|line| line.contains("tot_recv_bytes"))?;
    last.split_once("tot_recv_bytes ~ ")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let output = "1: : start_mclient: msz=10, tot_send_msgs=1, tot_recv_msgs=1, tot_send_bytes ~ 5, tot_recv_bytes ~ 4\n\
                      9: : start_mclient: tot_send_bytes ~ 30000000, tot_recv_bytes ~ 29999000\n\
                      9: : Total transmit time is 9\n";
        assert_eq!(received(output), Some(29_999_000));
        assert_eq!(received("0: : error 420 ()"), None);
    }
}
