//! The broker is replaced under devices, browsers and STUN clients that never
//! stop, while somebody else (systemd, with farm-broker.socket) holds its port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use farm_protocol::SUBPROTOCOL;
use farm_protocol::broker::FromBroker;
use farm_protocol::keys::Nonce;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use nix::unistd::Pid;
use smol::Timer;
use smol::future::or;
use tempfile::TempDir;

use crate::client::{Client, Device, handshake, run};

const UPGRADES: usize = 3;

const BROWSERS: u8 = 4;

const DEVICES: u8 = 12;

/// An address of its own for each request of a browser in turn: one address
/// opens only 16 sockets a second for long.
const ADDRESSES: u8 = 200;

/// What is not answered by then is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// The sockets are handed over as systemd does: from file 3 on, with the
/// process's own id. They come here as standard input and error.
const HAND_OVER: &str = r#"LISTEN_FDS=2 LISTEN_PID=$$ exec "$0" "$@" 3<&0 4<&2 </dev/null 2>/dev/null"#;

/// Who holds the port while brokers come and go.
struct Manager {
    tcp: TcpListener,
    udp: UdpSocket,
    dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            // Somebody else may have the port for UDP.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                return Self { tcp, udp, dir: TempDir::new().unwrap() };
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.tcp.local_addr().unwrap()
    }

    /// A new program in the place of the old one, as a package manager does it.
    fn install(&self) {
        let program = self.dir.path().join("farm-broker");
        let new = program.with_extension("new");
        std::fs::copy(env!("CARGO_BIN_EXE_farm-broker"), &new).unwrap();
        std::fs::rename(new, program).unwrap();
    }

    fn start(&self) -> Running {
        let held = |socket: OwnedFd| Stdio::from(socket);
        let mut child = Command::new("sh")
            .args(["-c", HAND_OVER])
            .arg(self.dir.path().join("farm-broker"))
            .args(["serve", "--public-url", "http://broker.example.org"])
            .args(["--listen", &self.address().to_string(), "--state"])
            .arg(self.dir.path().join("state"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .stdin(held(self.tcp.try_clone().unwrap().into()))
            .stdout(Stdio::piped())
            .stderr(held(self.udp.try_clone().unwrap().into()))
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let running = Running(child);
        assert!(line.contains(&self.address().to_string()), "printed {line:?}");
        running
    }
}

/// A broker; killed when dropped.
struct Running(Child);

impl Running {
    fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to kill.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// One request on a connection of its own, from this address.
fn get(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<String> {
    let SocketAddr::V4(to) = to else { unreachable!("the manager's address is an IPv4 one") };
    let opened = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(opened.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(from, 0)))?;
    connect(opened.as_raw_fd(), &SockaddrIn::from(to))?;
    let mut stream = TcpStream::from(opened);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks all the time; gives how many answers came and the longest wait.
fn browse(number: u8, address: SocketAddr, over: &AtomicBool) -> (usize, Duration) {
    let (mut answers, mut longest) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let turn = u8::try_from(answers % usize::from(ADDRESSES)).unwrap();
        let asked = Instant::now();
        let answer = get(Ipv4Addr::new(127, 7, number, turn + 1), address);
        let answer = answer.unwrap_or_else(|error| panic!("after {answers} answers: {error}"));
        assert!(answer.starts_with("HTTP/1.1 200"), "after {answers} answers: {answer:?}");
        longest = longest.max(asked.elapsed());
        answers += 1;
    }
    (answers, longest)
}

/// Asks where it is seen from, one question after the other; each is answered.
fn probe(address: SocketAddr, over: &AtomicBool) -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answers = 0u32;
    while !over.load(Ordering::Relaxed) {
        let mut request = [0; 20];
        request[1] = 1;
        request[4..8].copy_from_slice(&0x2112_a442_u32.to_be_bytes());
        request[16..].copy_from_slice(&answers.to_be_bytes());
        socket.send_to(&request, address).unwrap();
        let mut answer = [0; 128];
        let length = socket.recv(&mut answer).unwrap_or_else(|error| panic!("after {answers}: {error}"));
        assert!(length > 20 && answer[16..20] == request[16..], "{:?}", &answer[..length]);
        answers += 1;
        // A network is answered 100 times a second for long.
        std::thread::sleep(Duration::from_millis(20));
    }
    answers as usize
}

/// Stays connected, and comes back when told to: never cut off, never refused.
async fn stay(address: SocketAddr, number: u8, over: &AtomicBool, entered: &AtomicUsize) {
    let phone = Device::phone(number);
    while !over.load(Ordering::Relaxed) {
        let stream = handshake(address, Some(SUBPROTOCOL)).await.expect("a device's connection");
        let mut client = Client { stream, nonce: Nonce::from_bytes([0; 16]) };
        let mut answer = client.next().await;
        if let FromBroker::Challenge(challenge) = answer {
            client.nonce = challenge.nonce;
            answer = client.authenticate(&phone, None).await;
        }
        if let FromBroker::Welcome(_) = answer {
            entered.fetch_add(1, Ordering::Relaxed);
            let enough = async {
                while !over.load(Ordering::Relaxed) {
                    Timer::after(Duration::from_millis(20)).await;
                }
                None
            };
            match or(client.try_next(), enough).await {
                Some(told) => answer = told,
                None if over.load(Ordering::Relaxed) => return,
                None => panic!("a device was cut off without a word"),
            }
        }
        match answer {
            FromBroker::RetryAfter(retry) => {
                Timer::after(Duration::from_millis(retry.milliseconds.into())).await;
            }
            other => panic!("a device was told {other:?}"),
        }
    }
}

/// Waits until every device was let in more often than this.
fn all_in(entered: &[Arc<AtomicUsize>], times: usize) {
    run(async {
        while entered.iter().any(|entered| entered.load(Ordering::Relaxed) <= times) {
            Timer::after(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn an_upgrade_under_live_devices_and_browsers_fails_no_connection() {
    let manager = Manager::new();
    let address = manager.address();
    manager.install();
    let mut broker = manager.start();

    let over = Arc::new(AtomicBool::new(false));
    let browsers: Vec<_> = (0..BROWSERS)
        .map(|number| {
            let over = over.clone();
            std::thread::spawn(move || browse(number, address, &over))
        })
        .collect();
    let prober = std::thread::spawn({
        let over = over.clone();
        move || probe(address, &over)
    });
    let entered: Vec<_> = (0..DEVICES).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let devices: Vec<_> = (1..=DEVICES)
        .zip(&entered)
        .map(|(number, entered)| {
            let (over, entered) = (over.clone(), entered.clone());
            smol::spawn(async move { stay(address, number, &over, &entered).await })
        })
        .collect();
    let mut away = Duration::ZERO;
    for upgrade in 0..UPGRADES {
        all_in(&entered, upgrade);
        manager.install();
        let asked = Instant::now();
        broker.stop();
        broker = manager.start();
        away = away.max(asked.elapsed());
    }
    all_in(&entered, UPGRADES);
    over.store(true, Ordering::Relaxed);
    run(async {
        for device in devices {
            device.await;
        }
    });
    let browsers: Vec<_> =
        browsers.into_iter().map(|browser| browser.join().expect("no request fails")).collect();
    let probes = prober.join().expect("no question stays unanswered");
    drop(broker);
    let answers: usize = browsers.iter().map(|(answers, _)| answers).sum();
    let longest = browsers.iter().map(|(_, longest)| *longest).max().unwrap_or_default();
    println!(
        "{UPGRADES} upgrades of at most {away:.2?}: {answers} requests and {probes} STUN questions answered, \
         none failed, the longest waited {longest:.2?}; {DEVICES} devices came back each time"
    );
    assert!(answers > 10 * UPGRADES && probes > UPGRADES, "{answers} answers, {probes} probes");
}
