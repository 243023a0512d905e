//! The program as its operator runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use farm_protocol::broker::{FromBroker, RefusedReason};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::{Client, Device, End, run};

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farm-broker"));
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("FARM_BROKER_LOG");
    command
}

fn output(arguments: &[&str], state: &Path) -> Output {
    let mut command = program();
    command.args(arguments).arg("--state").arg(state);
    command.output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A broker in a process of its own; killed when dropped.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start(state: &Path, arguments: &[&str]) -> Self {
        Self::start_with(program(), state, arguments)
    }

    fn start_with(mut command: Command, state: &Path, arguments: &[&str]) -> Self {
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--state"])
            .arg(state)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.as_mut().unwrap());
        out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("farm-broker listening on ");
        let address = address.unwrap_or_else(|| panic!("printed {line:?}")).parse().unwrap();
        Self { child, address }
    }

    fn stop(mut self, signal: Signal) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to kill.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn an_operator_enrolls_a_farm_and_sees_it() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("state");
    let broker = Running::start(&state, &["--public-url", "http://broker.example.org"]);
    let enrolled = output(&["enroll", "--name", "North field", "--valid", "1h"], &state);
    assert!(enrolled.status.success() && enrolled.stderr.is_empty());
    let token = text(&enrolled.stdout).strip_suffix('\n').unwrap();
    assert!(token.len() == 32 && !token.contains(char::is_whitespace), "{token:?}");
    let farm = Device::farm(1);
    let client = run(async {
        let mut client = Client::connect(broker.address).await.unwrap();
        let answer = client.authenticate(&farm, Some(token)).await;
        assert!(matches!(answer, FromBroker::Welcome(_)), "{answer:?}");
        client
    });
    let listed = output(&["farms", "--json"], &state);
    let farms: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let shown = &farms.as_array().unwrap()[0];
    assert_eq!(shown["id"], farm.farm_id().to_string());
    assert_eq!((&shown["name"], &shown["online"]), (&"North field".into(), &true.into()));
    assert!(shown["since"].as_u64() >= shown["enrolled"].as_u64());
    let table = output(&["farms"], &state);
    assert!(text(&table.stdout).contains("North field") && text(&table.stdout).contains("online for"));
    drop(client);
    assert_eq!(broker.stop(Signal::SIGTERM), Some(0));
    // What was durable is there after the next start too.
    let broker = Running::start(&state, &[]);
    let listed = output(&["farms", "--json"], &state);
    let farms: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(farms[0]["name"], "North field");
    assert_eq!((&farms[0]["online"], &farms[0]["since"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(broker.stop(Signal::SIGINT), Some(0));
}

#[test]
fn an_enrolled_farm_survives_kill_9() {
    let dir = TempDir::new().unwrap();
    let broker = Running::start(dir.path(), &["--public-url", "http://broker.example.org"]);
    let token = text(&output(&["enroll"], dir.path()).stdout).trim().to_owned();
    run(async {
        let mut client = Client::connect(broker.address).await.unwrap();
        let answer = client.authenticate(&Device::farm(1), Some(&token)).await;
        assert!(matches!(answer, FromBroker::Welcome(_)), "{answer:?}");
    });
    broker.stop(Signal::SIGKILL);
    let broker = Running::start(dir.path(), &["--public-url", "http://broker.example.org"]);
    run(async {
        let mut client = Client::connect(broker.address).await.unwrap();
        client.enter(&Device::farm(1)).await;
    });
}

#[test]
fn only_the_owner_can_reach_the_admin_socket() {
    let dir = TempDir::new().unwrap();
    let _broker = Running::start(dir.path(), &[]);
    let meta = std::fs::metadata(dir.path().join("admin.sock")).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
}

#[test]
fn nonsense_at_the_admin_socket_is_answered_with_an_error() {
    let dir = TempDir::new().unwrap();
    let _broker = Running::start(dir.path(), &[]);
    let ask = |lines: &[u8]| {
        let mut stream = UnixStream::connect(dir.path().join("admin.sock")).unwrap();
        // Who says too much is cut off.
        let _cut = stream.write_all(lines);
        let _cut = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _cut = stream.read_to_string(&mut answer);
        answer
    };
    let nonsense =
        ["nonsense\n", "{}\n", r#"{"command":"enroll"}"#, "\n", "[[[[", r#"{"command":"farms","x":1}"#];
    for nonsense in nonsense {
        let answer = ask(nonsense.as_bytes());
        assert!(answer.starts_with("{\"error\":"), "{nonsense:?}: {answer}");
    }
    let answer = ask(&[b'['; 100_000]);
    assert!(answer.is_empty() || answer.starts_with("{\"error\":"), "{answer}");
    ask(&[0xff; 100]);
    // Several requests one after the other, the last without its line's end.
    let answer = ask(b"{\"command\":\"farms\"}\nnonsense\n{\"command\":\"farms\"}");
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2]), (3, r#"{"farms":[]}"#, r#"{"farms":[]}"#));
}

#[test]
fn without_a_broker_the_commands_say_what_to_do() {
    let dir = TempDir::new().unwrap();
    for command in ["enroll", "farms"] {
        let failed = output(&[command], dir.path());
        assert_eq!(failed.status.code(), Some(1));
        let error = text(&failed.stderr);
        assert!(error.contains("no broker runs") && error.contains("serve"), "{error}");
        assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
        assert!(failed.stdout.is_empty());
    }
    // A socket that a dead broker left behind is the same.
    Running::start(dir.path(), &[]).stop(Signal::SIGKILL);
    let failed = output(&["farms"], dir.path());
    assert!(text(&failed.stderr).contains("no broker runs"));
}

#[test]
fn a_state_directory_in_use_is_named() {
    let dir = TempDir::new().unwrap();
    let first = Running::start(dir.path(), &[]);
    let second = output(&["serve", "--listen", "127.0.0.1:0"], dir.path());
    assert_eq!(second.status.code(), Some(1));
    let error = text(&second.stderr);
    assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
    assert!(error.contains("in use") && error.contains("--state"), "{error}");
    // The first one's admin socket is still its own.
    assert!(output(&["farms"], dir.path()).status.success());
    drop(first);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = TempDir::new().unwrap();
    let failed = output(&["serve", "--listen", &address], dir.path());
    assert_eq!(failed.status.code(), Some(1));
    let error = text(&failed.stderr);
    assert!(error.contains(&address) && error.contains("in use") && error.contains("--listen"), "{error}");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let failed = output(&["serve", "--listen", "127.0.0.1:0", "--stun", &address], dir.path());
    let error = text(&failed.stderr);
    assert!(error.contains(&address) && error.contains("--stun"), "{error}");
}

#[test]
fn misuse_exits_with_2_and_help_with_0() {
    let misused = program().args(["serve", "--lissten", "x"]).output().unwrap();
    assert_eq!(misused.status.code(), Some(2));
    assert!(text(&misused.stderr).contains("--lissten"));
    let help = program().arg("--help").output().unwrap();
    assert!(help.status.success() && text(&help.stdout).contains("farm-broker enroll"));
    let version = program().arg("--version").output().unwrap();
    assert_eq!(text(&version.stdout), concat!("farm-broker ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_config_file_is_read_and_its_mistakes_are_named() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("farm-broker.toml");
    std::fs::write(&config, "stun = \"off\"\nlisten = \"192.0.2.1:1\"\n").unwrap();
    let config = config.to_str().unwrap();
    let state = dir.path().join("state");
    // The command line wins over the file's address, which is not ours.
    let broker = Running::start(&state, &["--config", config]);
    assert!(UdpSocket::bind(broker.address).is_ok(), "STUN is off in the file, the UDP port is free");
    std::fs::write(config, "listen = \"127.0.0.1:0\"\nlissten = 1\n").unwrap();
    let failed = output(&["serve", "--config", config], &state);
    assert_eq!(failed.status.code(), Some(1));
    let error = text(&failed.stderr);
    assert!(error.contains("line 2") && error.contains("lissten") && error.contains(config), "{error}");
}

#[test]
fn the_service_manager_is_told() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("notify");
    let notifications = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    notifications.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = program();
    command.env("NOTIFY_SOCKET", &path);
    let broker = Running::start_with(command, &dir.path().join("state"), &[]);
    let next = || {
        let mut buffer = [0; 256];
        let length = notifications.recv(&mut buffer).unwrap();
        text(&buffer[..length]).trim().to_owned()
    };
    assert_eq!(next(), "READY=1");
    assert_eq!(broker.stop(Signal::SIGTERM), Some(0));
    assert_eq!(next(), "STOPPING=1");
}

#[test]
fn the_watchdog_is_fed_while_it_works() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("notify");
    let notifications = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    notifications.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = program();
    // 0.3 s: fed every 0.1 s.
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let broker = Running::start_with(command, &dir.path().join("state"), &[]);
    let next = || {
        let mut buffer = [0; 256];
        notifications.recv(&mut buffer).map(|length| text(&buffer[..length]).trim().to_owned())
    };
    assert_eq!(next().unwrap(), "READY=1");
    for _ in 0..3 {
        assert_eq!(next().unwrap(), "WATCHDOG=1");
    }
    let pid = Pid::from_raw(i32::try_from(broker.child.id()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    // What was on its way, then nothing for longer than systemd would wait.
    notifications.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let rest = (0..10).take_while(|_| next().is_ok()).count();
    assert!(rest < 10, "a broker that stands still is still fed");
    kill(pid, Signal::SIGCONT).unwrap();
    notifications.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(next().unwrap(), "WATCHDOG=1");
}

#[test]
fn one_ready_line_is_all_that_is_printed() {
    let dir = TempDir::new().unwrap();
    let mut broker = Running::start(dir.path(), &[]);
    let mut out = broker.child.stdout.take().unwrap();
    let pid = i32::try_from(broker.child.id()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn an_operator_sees_a_farms_past_and_revokes_it() {
    let dir = TempDir::new().unwrap();
    let broker = Running::start(dir.path(), &["--public-url", "http://broker.example.org"]);
    let token = text(&output(&["enroll", "--name", "North field"], dir.path()).stdout).trim().to_owned();
    let farm = Device::farm(1);
    let id = farm.farm_id().to_string();
    let client = run(async {
        let mut client = Client::connect(broker.address).await.unwrap();
        let answer = client.authenticate(&farm, Some(&token)).await;
        assert!(matches!(answer, FromBroker::Welcome(_)), "{answer:?}");
        client
    });
    let shown = output(&["show", &id[..8], "--json"], dir.path());
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&shown["id"], &shown["online"]), (&id.as_str().into(), &true.into()));
    assert_eq!((&shown["address"], &shown["events"][0]["event"]), (&"127.0.0.1".into(), &"online".into()));
    drop(client);
    // The log goes on over a restart.
    assert_eq!(broker.stop(Signal::SIGTERM), Some(0));
    let broker = Running::start(dir.path(), &["--public-url", "http://broker.example.org"]);
    let lines = || {
        let events = output(&["events", "--farm", "North field", "--json"], dir.path());
        let lines = text(&events.stdout).lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<serde_json::Value>>()
    };
    assert_eq!(lines()[0]["event"], "online");
    let table = output(&["show", "North field"], dir.path());
    assert!(text(&table.stdout).contains("127.0.0.1"), "{table:?}");

    let mut client = run(async {
        let mut client = Client::connect(broker.address).await.unwrap();
        client.enter(&farm).await;
        client
    });
    let revoked = output(&["revoke", "North field"], dir.path());
    assert!(text(&revoked.stdout).starts_with(&id), "{revoked:?}");
    assert_eq!(run(client.end()), End::Refused(RefusedReason::Revoked));
    let missing = output(&["revoke", "North field"], dir.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("North field"), "{missing:?}");
    // Durable as soon as it was said, and no token opens the door again.
    broker.stop(Signal::SIGKILL);
    let broker = Running::start(dir.path(), &["--public-url", "http://broker.example.org"]);
    let token = text(&output(&["enroll"], dir.path()).stdout).trim().to_owned();
    for token in [None, Some(token.as_str())] {
        let answer = run(async {
            let mut client = Client::connect(broker.address).await.unwrap();
            client.authenticate(&farm, token).await
        });
        assert!(matches!(answer, FromBroker::Refused(refused) if refused.reason == RefusedReason::Revoked));
    }
    assert_eq!(text(&output(&["farms", "--json"], dir.path()).stdout).trim(), "[]");
}
