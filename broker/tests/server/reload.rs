//! A config that changes under the running broker, and its log.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use farm_protocol::broker::{FromBroker, RefusedReason};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, Device, run};
use crate::commands::program;

/// A broker whose log is read.
struct Broker {
    child: Child,
    address: SocketAddr,
    log: Receiver<String>,
    config: PathBuf,
    _dir: TempDir,
}

fn lines(stderr: ChildStderr) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // The test has seen enough.
            let _over = sender.send(line);
        }
    });
    lines
}

impl Broker {
    fn start(config: &str, arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("farm-broker.toml");
        std::fs::write(&path, config).unwrap();
        let mut child = program()
            .args(["serve", "--listen", "127.0.0.1:0", "--public-url", "http://broker.example.org"])
            .arg("--state")
            .arg(dir.path().join("state"))
            .arg("--config")
            .arg(&path)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = lines(child.stderr.take().unwrap());
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("printed {line:?}"));
        Self { child, address, log, config: path, _dir: dir }
    }

    fn reload(&self, config: &str) {
        std::fs::write(&self.config, config).unwrap();
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGHUP).unwrap();
    }

    /// The next line of the log with this in it.
    fn line(&self, part: &str) -> String {
        loop {
            let line = self.log.recv_timeout(Duration::from_secs(30));
            let line = line.unwrap_or_else(|_| panic!("no line of the log has {part:?}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn path(&self) -> &Path {
        &self.config
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to kill.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Whether one more device than those that are in is let in.
async fn one_more(address: SocketAddr, number: u8) -> Result<Client, RefusedReason> {
    let stream = crate::client::handshake(address, Some(farm_protocol::SUBPROTOCOL)).await.unwrap();
    let mut client = Client { stream, nonce: farm_protocol::keys::Nonce::from_bytes([0; 16]) };
    match client.next().await {
        FromBroker::Challenge(challenge) => client.nonce = challenge.nonce,
        FromBroker::Refused(refused) => return Err(refused.reason),
        other => panic!("{other:?}"),
    }
    client.enter(&Device::phone(number)).await;
    Ok(client)
}

#[test]
fn limits_change_on_sighup_and_a_bad_config_changes_nothing() {
    let broker = Broker::start("[limits]\nconnections_per_address = 1\n", &[]);
    run(async {
        let mut first = one_more(broker.address, 1).await.unwrap();
        assert_eq!(one_more(broker.address, 2).await.err(), Some(RefusedReason::Limit));

        broker.reload("[limits]\nconnections_per_address = 2\n[relay.limits]\nallocations = 3\n");
        broker.line("limits and alerts are as the config says now");
        // Told to the core just before.
        let _second = one_more(broker.address, 2).await.unwrap();
        assert_eq!(one_more(broker.address, 3).await.err(), Some(RefusedReason::Limit));

        broker.reload("[limits]\nconnections_per_address = 9\n[alerts]\nurl = \"hunter2\"\n");
        let line = broker.line("the settings before stay in force");
        assert!(line.contains("line 3") && line.contains(broker.path().to_str().unwrap()), "{line}");
        assert!(line.contains("https://HOST") && !line.contains("hunter2"), "{line}");
        assert_eq!(one_more(broker.address, 3).await.err(), Some(RefusedReason::Limit));

        // Fewer: who is in stays in. And what can't change is named.
        broker.reload("stun = \"off\"\n[limits]\nconnections = 1\n");
        assert!(broker.line("take effect when the broker is started again").contains("stun"));
        assert_eq!(one_more(broker.address, 3).await.err(), Some(RefusedReason::Limit));
        first.settle(&Device::phone(1)).await;
        assert!(UdpSocket::bind(broker.address).is_err(), "STUN is still answered");
    });
}

#[test]
fn the_log_is_for_programs_where_that_is_wanted() {
    for (config, arguments) in [("", &["--log-format", "json"][..]), ("log_format = \"json\"\n", &[])] {
        let broker = Broker::start(config, arguments);
        broker.reload("lissten = 1\n");
        let line = broker.line("the settings before stay in force");
        let read: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(read["level"], "ERROR");
        assert!(read["error"].as_str().unwrap().contains("lissten"), "{line}");
        assert!(read["timestamp"].is_string() && read["message"].is_string(), "{line}");
    }
    let broker = Broker::start("log_format = \"json\"\n", &["--log-format", "text"]);
    let line = broker.line("relay");
    assert!(serde_json::from_str::<Value>(&line).is_err(), "the command line wins: {line}");
}
