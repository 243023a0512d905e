//! The shell around [`crate::ip_change`]: netlink, and STUN probes to the broker.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use async_io::Async;
use farm_protocol::stun;
use futures_util::StreamExt;
use if_watch::IfEvent;
use if_watch::smol::IfWatcher;
use ring::rand::{SecureRandom, SystemRandom};

use crate::ip_change::{Action, Detector, Event, Verdict, is_usable};
use crate::progress::Beat;

/// Before a netlink socket that failed is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Verdicts that wait for the owner.
const QUEUE: usize = 32;

/// Addresses that one carrier binds to. A device has one or two networks with
/// a few IPv6 addresses each; every pair costs connectivity checks.
const MAX_ADDRESSES: usize = 8;

/// Probes that may be answered: a slow path answers one long after the next
/// was sent (eight quick ones: 2 s).
const ANSWERABLE: usize = 8;

/// A running watch. It ends when this is dropped.
pub struct AddressWatch {
    commands: async_channel::Sender<Command>,
}

/// What the owner is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The detector's verdict.
    Verdict(Verdict),
    /// A probe was answered: the path to the broker works.
    ProbeAnswered(SocketAddr),
}

enum Command {
    Target(Option<SocketAddr>),
    Echo(IpAddr),
    Suspect,
    Vouched(bool),
    Pretend(Verdict),
}

impl AddressWatch {
    /// Starts watching the device's addresses.
    ///
    /// # Errors
    /// Where the netlink socket can't be opened.
    pub fn start(beat: Beat) -> io::Result<(Self, async_channel::Receiver<Told>)> {
        let watcher = IfWatcher::new()?;
        let (commands, commanded) = async_channel::bounded(QUEUE);
        let (tell, told) = async_channel::bounded(QUEUE);
        let runner = Runner {
            detector: Detector::starting(Instant::now()),
            watcher: Some(watcher),
            prober: None,
            random: SystemRandom::new(),
            tell,
        };
        crate::executor::spawn(runner.run(commanded, beat)).detach();
        Ok((Self { commands }, told))
    }

    /// Where the broker answers STUN; `None` where it doesn't.
    pub fn probe_target(&self, target: Option<SocketAddr>) {
        self.command(Command::Target(target));
    }

    /// The address that the broker saw on a new connection.
    pub fn broker_echo(&self, address: IpAddr) {
        self.command(Command::Echo(address));
    }

    /// Whether the link to the broker is up: fewer probes will do then.
    pub fn vouched(&self, vouched: bool) {
        self.command(Command::Vouched(vouched));
    }

    /// Something makes the path suspect: probe until that is answered.
    pub fn suspect(&self) {
        self.command(Command::Suspect);
    }

    /// Fault injection: tells this verdict, and another one later.
    pub fn pretend(&self, verdict: Verdict, then: Option<(Duration, Verdict)>) {
        self.command(Command::Pretend(verdict));
        if let Some((after, verdict)) = then {
            let commands = self.commands.clone();
            crate::executor::spawn(async move {
                smol::Timer::after(after).await;
                // The watch may have ended.
                let _ = commands.send(Command::Pretend(verdict)).await;
            })
            .detach();
        }
    }

    fn command(&self, command: Command) {
        // Full or closed: the next welcome or probe says it again.
        let _ = self.commands.try_send(command);
    }
}

/// The addresses that a carrier binds to, each with port 0: the `configured`
/// ones, else every usable one of this device. Loopback joins in where there
/// is no other, or where the broker itself is on this machine.
pub fn carrier_addresses(configured: &[IpAddr], broker: Option<IpAddr>) -> Vec<SocketAddr> {
    let with_port = |address| SocketAddr::new(address, 0);
    if !configured.is_empty() {
        return configured.iter().copied().map(with_port).collect();
    }
    let mut addresses: Vec<IpAddr> = match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => interfaces.filter_map(|i| ip_of(&i.address?)).filter(|a| is_usable(*a)).collect(),
        Err(error) => {
            tracing::warn!(%error, "the interfaces can't be listed");
            Vec::new()
        }
    };
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() || broker.is_some_and(|b| b.to_canonical().is_loopback()) {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    addresses.into_iter().map(with_port).collect()
}

/// Whether an interface has this address now; yes where that can't be told.
pub(crate) fn is_ours(address: IpAddr) -> bool {
    match nix::ifaddrs::getifaddrs() {
        Ok(mut interfaces) => interfaces.any(|i| i.address.as_ref().and_then(ip_of) == Some(address)),
        Err(_) => true,
    }
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

struct Prober {
    socket: Async<std::net::UdpSocket>,
    target: SocketAddr,
    /// Of the newest probes.
    transactions: VecDeque<stun::TransactionId>,
}

struct Runner {
    detector: Detector,
    watcher: Option<IfWatcher>,
    prober: Option<Prober>,
    random: SystemRandom,
    tell: async_channel::Sender<Told>,
}

enum Step {
    Command(Option<Command>),
    Interface(Option<io::Result<IfEvent>>),
    Packet(SocketAddr),
    Timeout,
    Reopen,
    Asked,
}

impl Runner {
    async fn run(mut self, commands: async_channel::Receiver<Command>, beat: Beat) {
        loop {
            beat.pass().await;
            let step = self.step(&commands, &beat).await;
            let now = Instant::now();
            match step {
                Step::Command(None) => return,
                Step::Command(Some(Command::Pretend(verdict))) => {
                    let _ = self.tell.send(Told::Verdict(verdict)).await;
                }
                Step::Command(Some(command)) => self.command(command, now),
                Step::Interface(Some(Ok(IfEvent::Up(net)))) => {
                    self.detector.handle(Event::AddressUp(net.addr()), now);
                }
                Step::Interface(Some(Ok(IfEvent::Down(net)))) => {
                    self.detector.handle(Event::AddressDown(net.addr()), now);
                }
                Step::Interface(Some(Err(error))) => {
                    tracing::warn!(%error, "the netlink socket failed and is opened again");
                    self.watcher = None;
                }
                Step::Interface(None) => self.watcher = None,
                Step::Reopen => self.reopen(now),
                Step::Packet(address) => {
                    self.detector.handle(Event::ProbeAnswered(address), now);
                    // The owner has gone: the commands will close next.
                    let _ = self.tell.send(Told::ProbeAnswered(address)).await;
                }
                Step::Timeout => self.detector.handle_timeout(now),
                Step::Asked => {}
            }
            while let Some(action) = self.detector.poll_action() {
                match action {
                    Action::Probe => self.probe(),
                    Action::Verdict(verdict) => {
                        let _ = self.tell.send(Told::Verdict(verdict)).await;
                    }
                }
            }
        }
    }

    async fn step(&mut self, commands: &async_channel::Receiver<Command>, beat: &Beat) -> Step {
        let deadline = self.detector.poll_timeout().map(|(when, _)| when);
        let watcher = &mut self.watcher;
        let prober = &self.prober;
        let interface = async {
            match watcher {
                Some(watcher) => Step::Interface(watcher.next().await),
                None => {
                    smol::Timer::after(REOPEN).await;
                    Step::Reopen
                }
            }
        };
        let packet = async {
            match prober {
                Some(prober) => Step::Packet(answer(prober).await),
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match deadline {
                Some(when) => {
                    smol::Timer::at(when).await;
                    Step::Timeout
                }
                None => std::future::pending().await,
            }
        };
        let command = async { Step::Command(commands.recv().await.ok()) };
        let asked = async {
            beat.asked().await;
            Step::Asked
        };
        let first = smol::future::or(command, smol::future::or(interface, packet));
        smol::future::or(first, smol::future::or(timer, asked)).await
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Target(target) => {
                if self.prober.as_ref().map(|p| p.target) == target {
                    return;
                }
                self.prober = target.and_then(|target| match bind(target) {
                    Ok(socket) => Some(Prober { socket, target, transactions: VecDeque::new() }),
                    Err(error) => {
                        tracing::warn!(%error, "no socket for STUN probes: a change of the public address is noticed later");
                        None
                    }
                });
                self.detector.handle(Event::ProbeTarget(self.prober.is_some()), now);
            }
            Command::Echo(address) => self.detector.handle(Event::BrokerEcho(address), now),
            Command::Suspect => self.detector.handle(Event::Suspect, now),
            Command::Vouched(vouched) => self.detector.handle(Event::Vouched(vouched), now),
            // Told already.
            Command::Pretend(_) => {}
        }
    }

    /// What changed while the socket was away is found by comparison.
    fn reopen(&mut self, now: Instant) {
        match IfWatcher::new() {
            Ok(watcher) => {
                let present: Vec<IpAddr> = watcher.iter().map(|net| net.addr()).collect();
                let gone: Vec<IpAddr> =
                    self.detector.addresses().filter(|known| !present.contains(known)).collect();
                gone.into_iter().for_each(|a| self.detector.handle(Event::AddressDown(a), now));
                present.into_iter().for_each(|a| self.detector.handle(Event::AddressUp(a), now));
                self.watcher = Some(watcher);
            }
            Err(error) => tracing::debug!(%error, "the netlink socket can't be opened yet"),
        }
    }

    fn probe(&mut self) {
        let Some(prober) = &mut self.prober else { return };
        let mut transaction = [0; 12];
        if self.random.fill(&mut transaction).is_err() {
            return;
        }
        prober.transactions.truncate(ANSWERABLE - 1);
        prober.transactions.push_front(transaction);
        // Unsent is unanswered: the detector repeats it.
        let _ = prober.socket.get_ref().send_to(&stun::binding_request(&transaction), prober.target);
    }
}

/// One socket for all probes of a target: its mapping is what is watched.
fn bind(target: SocketAddr) -> io::Result<Async<std::net::UdpSocket>> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Async::<std::net::UdpSocket>::bind((any, 0))
}

/// The mapped address from the answer to a recent probe; other packets are dropped.
async fn answer(prober: &Prober) -> SocketAddr {
    let mut packet = [0; stun::MAX_PACKET];
    loop {
        match prober.socket.recv_from(&mut packet).await {
            Ok((length, from)) if from == prober.target => {
                let of = |transaction| stun::mapped_address(&packet[..length], transaction);
                if let Some(address) = prober.transactions.iter().find_map(of) {
                    return address;
                }
            }
            Ok(_) => {}
            // An ICMP error of a former probe: the detector's repeats tell.
            Err(_) => {
                smol::Timer::after(Duration::from_millis(100)).await;
            }
        }
    }
}
