//! Wrong tokens, wrong configs, taken places, garbage and forgeries: what is
//! said about them, and that nobody else suffers.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::device::{Device, stranger};
use common::{Gate, SOON, Scene, connect, echo, echo_service, fails};
use farm_connect::Client;
use farm_protocol::broker::{Address, Role};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId, SessionId};
use farm_protocol::keys::{DeviceKey, Nonce};
use farm_protocol::signal::{Content, Expected, OfferRefused, Payload, PeerSignal};
use farm_protocol::{CONNECT_PATH, SUBPROTOCOL};
use farm_tests::harness::farm::{Agent, AgentConfig, FARM, GREENHOUSE, Place, Service};
use farm_tests::harness::{Process, binary, temp_dir, until};
use nix::sys::signal::Signal;
use ring::rand::SystemRandom;

#[test]
fn a_wrong_token_is_told_and_healed() {
    let scene = Scene::start("an agent with a wrong token, then with a used one, then with a good one");
    let used = fs::read_to_string(scene.dir().join("agent/farm-agent.toml")).unwrap();
    let used = used.lines().find_map(|l| l.strip_prefix("enrollment_token = ")).unwrap();
    let mut config = AgentConfig {
        name: "South field".to_owned(),
        broker: scene.broker.url(),
        enrollment_token: Some("not-a-token".to_owned()),
        services: Vec::new(),
    };
    let mut agent = Agent::new(Place::here(), &scene.dir().join("other"), &config).unwrap();
    for token in ["not-a-token", used.trim_matches('"')] {
        config.enrollment_token = Some(token.to_owned());
        agent.configure(&config).unwrap();
        agent.daemon.start().unwrap();
        let (reason, _) = until("the agent says why it is not let in", SOON, || {
            let status = agent.control.status().ok()?;
            let reason = status["broker"]["reason"].as_str()?.to_owned();
            reason.contains("token").then_some(reason)
        })
        .unwrap_or_else(|error| panic!("{error}: {}", agent.daemon.process().unwrap().tail()));
        assert!(reason.contains("farm-broker enroll"), "{reason}");
        assert!(agent.daemon.is_running());
        agent.daemon.terminate().unwrap();
    }
    config.enrollment_token = Some(scene.broker.enroll().unwrap());
    agent.configure(&config).unwrap();
    agent.daemon.start().unwrap();
    until("the agent is let in with a good token", SOON, || {
        (agent.control.status().ok()?["broker"]["state"] == "online").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {}", agent.daemon.process().unwrap().tail()));
    // The first farm noticed nothing.
    scene.forward(GREENHOUSE).page();
}

/// `farm-agent run` on a config and a state directory.
fn run_agent(config: &Path, state: &Path) -> Command {
    let mut command = Command::new(binary("farm-agent").unwrap());
    command.arg("run").arg("--config").arg(config).arg("--state").arg(state);
    command
}

const GOOD: &str = "name = \"North\"\nbroker = \"ws://127.0.0.1:1\"\n\n[[services]]\n\
    name = \"page\"\nkind = \"http\"\naddress = \"127.0.0.1:80\"\n";

#[test]
fn a_config_mistake_is_named_with_file_and_line() {
    let dir = temp_dir().unwrap();
    let path = dir.path().join("farm-agent.toml");
    for (from, to, line, part) in [
        ("name = \"North\"", "nmae = \"North\"", 1, "nmae"),
        ("ws://127.0.0.1:1", "127.0.0.1:1", 2, "ws"),
        ("\"http\"", "\"htpt\"", 6, "htpt"),
        ("127.0.0.1:80", "127.0.0.1:808080", 7, "808080"),
        ("127.0.0.1:80\"", "127.0.0.1:80", 7, ""),
    ] {
        fs::write(&path, GOOD.replacen(from, to, 1)).unwrap();
        let said = fails("farm-agent", &mut run_agent(&path, &dir.path().join("state")), 1);
        let place = format!("{}, line {line}:", path.display());
        assert!(said.contains(&place) && said.contains(part), "wanted {place} … {part}: {said}");
    }
    let missing = dir.path().join("nowhere.toml");
    let said = fails("farm-agent", &mut run_agent(&missing, &dir.path().join("state")), 1);
    assert!(said.contains("nowhere.toml"), "{said}");
}

#[test]
fn a_state_directory_in_use_is_named() {
    let scene = Scene::start("a second agent on the first one's state directory");
    let gate = scene.forward(GREENHOUSE);
    gate.page();
    let (config, state) = (scene.dir().join("agent/farm-agent.toml"), scene.agent_state());
    let said = fails("farm-agent", &mut run_agent(&config, &state), 1);
    assert!(said.contains(&state.display().to_string()), "{said}");
    println!("{}", said.trim());
    let mut broker = Command::new(binary("farm-broker").unwrap());
    let state = scene.dir().join("broker");
    broker.args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(&state);
    let said = fails("farm-broker", &mut broker, 1);
    assert!(said.contains(&state.display().to_string()), "{said}");
    println!("{}", said.trim());
    gate.page();
    scene.status("the running agent still obeys", SOON, |s| s["broker"]["state"] == "online");
}

#[test]
fn a_state_directory_of_somebody_else_is_named() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run a program as somebody else");
        return;
    }
    const SOMEBODY: u32 = 65_534;
    let dir = temp_dir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    // Where they are built nobody else may be able to go.
    let program = dir.path().join("farm-agent");
    fs::copy(binary("farm-agent").unwrap(), &program).unwrap();
    let config = dir.path().join("farm-agent.toml");
    fs::write(&config, GOOD).unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    let command = || {
        let mut command = Command::new(&program);
        command.arg("run").arg("--config").arg(&config).arg("--state").arg(&state);
        command.uid(SOMEBODY).gid(SOMEBODY).current_dir(dir.path());
        command
    };
    let said = fails("farm-agent as somebody else", &mut command(), 1);
    println!("{}", said.trim());
    assert!(said.contains(&state.display().to_string()), "{said}");
    assert!(said.contains("owned by uid 0"), "{said}");
    // Given to the right user it works.
    chown(&state, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let agent = Process::spawn("farm-agent as somebody else", &mut command()).unwrap();
    agent.wait_for_line("that it is ready", SOON, |l| l.text.contains("ready")).unwrap();
    assert!(agent.terminate(SOON).unwrap().success());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let scene = Scene::start("broker and forward on a port that somebody else has");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut broker = Command::new(binary("farm-broker").unwrap());
    broker.args(["serve", "--listen", &address, "--state"]).arg(scene.dir().join("second"));
    let mut forward = scene.phone.command(["forward", FARM, GREENHOUSE, "--listen", &address]).unwrap();
    for (name, command) in [("farm-broker serve", &mut broker), ("farm-connect forward", &mut forward)] {
        let said = fails(name, command, 1);
        println!("{}", said.trim());
        assert!(said.contains(&address) && said.contains("in use"), "{name}: {said}");
        assert!(said.contains("--listen"), "{name} does not say what to do: {said}");
    }
    scene.forward(GREENHOUSE).page();
}

/// A live tunnel that must stay the one it is: one carrier, one open stream.
struct Undisturbed {
    gate: Gate,
    stream: TcpStream,
    carriers: u64,
}

impl Undisturbed {
    fn start(scene: &Scene) -> Self {
        scene.add_services(vec![Service::tcp("echo", &echo_service().to_string())]);
        let gate = scene.forward("echo");
        let mut stream = connect(gate.address);
        echo(&mut stream, b"before").unwrap();
        Self { gate, stream, carriers: scene.counter("carriers_attached") }
    }

    fn check(&mut self, scene: &Scene, after: &str) {
        echo(&mut self.stream, after.as_bytes())
            .unwrap_or_else(|error| panic!("after {after}: the open stream broke: {error}"));
        let mut another = connect(self.gate.address);
        echo(&mut another, b"new").unwrap_or_else(|error| panic!("after {after}: a new stream: {error}"));
        assert_eq!(scene.counter("carriers_attached"), self.carriers, "after {after}: another carrier");
        for daemon in [&scene.broker.daemon, &scene.agent.daemon] {
            assert!(daemon.is_running(), "after {after}: {}", daemon.process().unwrap().tail());
        }
    }
}

/// Writes as much as is taken, and reads until the other side ends it: what
/// it said, and whether it ended it by itself.
fn throw(mut stream: impl Read + Write, bytes: &[u8], what: &str) -> Vec<u8> {
    // It may have had enough before the end.
    let _ = stream.write_all(bytes);
    let _ = stream.flush();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return said,
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return said,
            Err(error) => panic!("{what}: not ended by the program: {error}; it said {said:?}"),
        }
    }
}

/// Bytes without any sense, the same in each run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x6661_726D_u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

#[test]
fn garbage_on_the_control_socket_disturbs_nobody() {
    let scene = Scene::start("garbage on the agent's control socket beside a live tunnel");
    let mut tunnel = Undisturbed::start(&scene);
    let path = scene.agent_state().join("control.sock");
    let oversize = [vec![b'x'; 1 << 20], b"\n".to_vec()].concat();
    for (what, bytes) in [
        ("noise", [noise(10_000), b"\n".to_vec()].concat()),
        ("a line of 1 MiB", oversize),
        ("JSON that is no request", b"{\"command\":\"explode\"}\n".to_vec()),
        ("a known command with more", b"{\"command\":\"invite\",\"x\":1}\n".to_vec()),
        ("JSON nested deeply", [vec![b'['; 100_000], b"\n".to_vec()].concat()),
        ("an empty line", b"\n".to_vec()),
    ] {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        let said = throw(stream, &bytes, what);
        println!("{what}: {}", String::from_utf8_lossy(&said).trim());
        tunnel.check(&scene, what);
    }
    // Silent clients, as many as there is room for, and some more.
    let silent: Vec<_> = (0..40).filter_map(|_| UnixStream::connect(&path).ok()).collect();
    echo(&mut tunnel.stream, b"beside silent clients").unwrap();
    drop(silent);
    scene.status("the agent answers again", SOON, |_| true);
    tunnel.check(&scene, "40 silent clients");
    assert_eq!(scene.agent.control.status().unwrap()["phones"], 1);
}

/// A WebSocket frame of a client (RFC 6455 section 5.2), masked with zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// A connection to the broker, after the WebSocket handshake if wanted.
fn broker_socket(scene: &Scene, handshake: bool) -> TcpStream {
    let url = scene.broker.url();
    let mut stream = connect(url.trim_start_matches("ws://").parse().unwrap());
    if handshake {
        let request = format!(
            "GET {CONNECT_PATH} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n",
            url.trim_start_matches("ws://")
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    }
    stream
}

#[test]
fn garbage_on_the_brokers_port_disturbs_nobody() {
    let scene = Scene::start("garbage on the broker's port beside a live tunnel");
    let mut tunnel = Undisturbed::start(&scene);
    for (what, handshake, bytes) in [
        ("raw noise", false, noise(100_000)),
        ("an endless head", false, [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat()),
        ("noise for frames", true, noise(100_000)),
        ("a text frame", true, frame(1, b"{\"hello\":1}")),
        ("a binary frame of noise", true, frame(2, &noise(1000))),
        ("a frame of 1 MiB", true, frame(2, &noise(1 << 20))),
        ("an empty binary frame", true, frame(2, b"")),
        ("a frame that announces 2^62 bytes", true, {
            let mut head = vec![0x82, 0xff];
            head.extend_from_slice(&(1_u64 << 62).to_be_bytes());
            head.extend_from_slice(&[0; 4]);
            head
        }),
        ("a flood of pings", true, frame(9, b"ping").repeat(2000)),
    ] {
        let said = throw(broker_socket(&scene, handshake), &bytes, what);
        println!("{what}: closed after {} bytes", said.len());
        tunnel.check(&scene, what);
    }
    // One that says nothing, and one that leaves in the middle of its head.
    let silent = broker_socket(&scene, true);
    let half = broker_socket(&scene, false);
    (&half).write_all(b"GET /v1/dev").unwrap();
    half.shutdown(Shutdown::Both).unwrap();
    assert!(!throw(silent, b"", "silence").is_empty(), "nothing was said to the silent one");
    tunnel.check(&scene, "silence");
    scene.status("the agent is still online", SOON, |s| s["broker"]["state"] == "online");
    assert_eq!(scene.agent.control.status().unwrap()["broker"]["attempt"], 1, "its link was lost meanwhile");
    scene.forward(GREENHOUSE).page();
}

/// What makes an offer.
struct Offerer {
    farm: FarmId,
    device: Device,
}

impl Offerer {
    fn offer(&self, key: &Arc<DeviceKey>, session: SessionId, epoch: Epoch, farm_boot: BootId) -> Nonce {
        let nonce = Nonce::generate(&SystemRandom::new()).unwrap();
        let content = Content::Offer {
            nonce,
            phone_boot: BootId::from_bytes([7; 16]),
            farm_boot,
            sdp: "v=0\r\n".to_owned(),
        };
        let signal = PeerSignal { from: Role::Phone, farm: self.farm, session, epoch, content };
        self.device.signal(Address::Farm(self.farm), &Payload::Signed(signal.sign(key).unwrap()));
        nonce
    }

    /// The farm's refusal of an offer: why, and in which run.
    fn refused(&self, farm_key: &farm_protocol::keys::PublicKey, offer: Nonce) -> (OfferRefused, BootId) {
        self.device.heard("the farm's refusal", |payload| {
            let Payload::Signed(signed) = payload else { return None };
            let expected =
                Expected { key: farm_key, from: Role::Farm, farm: self.farm, session: self.device.session() };
            match signed.open(expected).unwrap().content {
                Content::Refused { nonce, reason, farm_boot, .. } if nonce == offer => {
                    Some((reason, farm_boot))
                }
                other => panic!("wanted a refusal, got {other:?}"),
            }
        })
    }
}

#[test]
fn forged_and_stale_offers_are_refused_and_counted() {
    let scene = Scene::start("offers by another key, of an older epoch and for another run of the farm");
    let mut tunnel = Undisturbed::start(&scene);
    let client = Client::open(&scene.dir().join("phone")).unwrap();
    let farm = client.find(FARM).unwrap();
    let key = client.key();
    // The paired phone's own key in a slot of its own: the broker lets it through.
    let device = Device::online(&scene.broker.url(), key.clone(), 5, 1);
    let session = device.session();
    let offerer = Offerer { farm: farm.id(), device };
    let other_boot = BootId::from_bytes([9; 16]);
    let counter = |name: &str, wanted: u64, what: &str| {
        scene.status(what, SOON, |s| s["counters"][name].as_u64().unwrap_or(0) == wanted);
    };

    offerer.offer(&stranger(), session, Epoch::of_start(1), other_boot);
    counter("unbelieved_signals", 1, "an offer signed by another key is counted");
    tunnel.check(&scene, "an offer signed by another key");

    // Signed rightly, but for the session of the live tunnel: sent from
    // another slot, as a recorded offer would be.
    let live = SessionId { slot: farm_protocol::id::Slot::new(0).unwrap(), ..session };
    offerer.offer(&key, live, Epoch::of_start(900), other_boot);
    counter("unbelieved_signals", 2, "an offer for another session than its sender's is counted");
    tunnel.check(&scene, "an offer for the live session by another program");

    let nonce = offerer.offer(&key, session, Epoch::of_start(3), other_boot);
    let (reason, boot) = offerer.refused(&farm.key, nonce);
    assert_eq!(reason, OfferRefused::OtherBoot);
    counter("stale_offers", 1, "an offer for another run of the farm is counted");
    tunnel.check(&scene, "an offer for another run");

    // For this run, but useless: from here on its epoch is the newest.
    let nonce = offerer.offer(&key, session, Epoch::of_start(3), boot);
    assert_eq!(offerer.refused(&farm.key, nonce).0, OfferRefused::BadDescription);
    counter("bad_descriptions", 1, "a useless description is counted");
    for epoch in [Epoch::of_start(3), Epoch::of_start(2)] {
        let nonce = offerer.offer(&key, session, epoch, boot);
        assert_eq!(offerer.refused(&farm.key, nonce).0, OfferRefused::StaleEpoch, "{epoch:?}");
    }
    counter("stale_offers", 3, "offers of an older epoch are counted");

    offerer.device.signal(
        Address::Farm(farm.id()),
        &Payload::PairAnswer(Box::new(farm_protocol::pairing::PairAnswer::Refused {
            nonce: Nonce::from_bytes([1; 16]),
            reason: farm_protocol::pairing::PairRefused::Other,
        })),
    );
    counter("malformed_signals", 1, "a signal that only farms send is counted");
    tunnel.check(&scene, "all of them");
    scene.forward(GREENHOUSE).page();
}

#[test]
fn a_broken_config_keeps_the_last_good_one() {
    let scene = Scene::start("the agent is told to read a config with a mistake");
    let mut tunnel = Undisturbed::start(&scene);
    let path = scene.dir().join("agent/farm-agent.toml");
    let good = fs::read_to_string(&path).unwrap();
    let agent = scene.agent.daemon.process().unwrap();
    for broken in [good.replacen("[[services]]", "[[servces]]", 1), String::new(), good.replace("tcp", "udp")]
    {
        fs::write(&path, &broken).unwrap();
        let mark = agent.mark();
        agent.signal(Signal::SIGHUP).unwrap();
        let line = agent
            .wait_for_line_since(mark, "what is wrong", SOON, |l| l.text.contains("last good config"))
            .unwrap();
        assert!(line.text.contains("farm-agent.toml, line "), "{}", line.text);
        tunnel.check(&scene, &line.text);
        let status = scene.agent.control.status().unwrap();
        assert_eq!(status["services"].as_array().unwrap().len(), 2, "{status}");
    }
    // Put right, it is taken, and only the service that went is gone.
    fs::write(&path, good.replace("\"echo\"", "\"echo-2\"")).unwrap();
    agent.signal(Signal::SIGHUP).unwrap();
    scene.status("the good config is taken", Duration::from_secs(5), |s| {
        s["services"].as_array().unwrap().iter().any(|name| name == "echo-2")
    });
    echo(&mut tunnel.stream, b"an open stream goes on").unwrap();
    let renamed = scene.forward("echo-2");
    echo(&mut connect(renamed.address), b"by its new name").unwrap();
}
