//! A broker with a certificate of its own: those who know it get through, and
//! nobody falls back to less.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Gate, pem};
use farm_tests::harness::farm::{
    Agent, AgentConfig, Daemon, FARM, GREENHOUSE, PATIENCE, Phone, Place, Service, greenhouse,
};
use farm_tests::harness::{Process, free_port, run, until};

const NAME: &str = "localhost";

/// A broker at `listen` whose certificate nobody but itself vouches for.
fn broker(dir: &Path, listen: SocketAddr) -> (Daemon, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let (chain, key) = (dir.join("chain.pem"), dir.join("key.pem"));
    std::fs::write(&chain, pem("CERTIFICATE", made.cert.der())).unwrap();
    std::fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
    let config = dir.join("farm-broker.toml");
    let text = format!(
        "listen = \"{listen}\"\npublic_url = \"https://{NAME}:{}\"\nstate = \"{}\"\n\
         [tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        listen.port(),
        dir.join("broker").display(),
        chain.display(),
        key.display(),
    );
    std::fs::write(&config, text).unwrap();
    let arguments = vec!["serve".into(), "--config".into(), config.into()];
    (Daemon::new(Place::here(), "farm-broker", arguments, |line| line.text.contains("listening")), chain)
}

/// The key as the broker logs it for its operator.
fn logged_key(broker: &Daemon) -> String {
    let line = broker
        .process()
        .unwrap()
        .wait_for_line("its key", PATIENCE, |line| line.text.contains("key=sha256/"))
        .unwrap();
    line.text.split("key=").nth(1).unwrap().split_whitespace().next().unwrap().trim_matches('"').to_owned()
}

fn agent(dir: &Path, listen: SocketAddr, token: &str, key: &str, page: SocketAddr) -> Agent {
    let config = AgentConfig {
        name: FARM.to_owned(),
        broker: format!("wss://{NAME}:{}", listen.port()),
        enrollment_token: Some(token.to_owned()),
        services: vec![Service::http(GREENHOUSE, &page.to_string())],
    };
    let mut agent = Agent::new(Place::here(), dir, &config).unwrap();
    let path = dir.join("farm-agent.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("broker_key = \"{key}\"\n{text}")).unwrap();
    agent.daemon.start().unwrap();
    agent
}

fn enroll(dir: &Path) -> String {
    let mut command = Place::here().command("farm-broker").unwrap();
    command.args(["enroll", "--state"]).arg(dir.join("broker"));
    run("farm-broker enroll", &mut command, PATIENCE).unwrap().stdout.trim().to_owned()
}

#[test]
fn who_knows_the_brokers_certificate_gets_through_and_nobody_else() {
    let _turn = common::turn();
    let dir = tempfile::tempdir().unwrap();
    let (listen, page) = (free_port().unwrap(), free_port().unwrap());
    let mut greenhouse = greenhouse(Place::here(), page);
    greenhouse.start().unwrap();
    let (mut broker, chain) = broker(dir.path(), listen);
    broker.start().unwrap();
    let key = logged_key(&broker);
    let agent_dir = dir.path().join("agent");
    let farm = agent(&agent_dir, listen, &enroll(dir.path()), &key, page);
    until("the farm to be online", PATIENCE, || {
        (farm.control.status().ok()?["broker"]["state"] == "online").then_some(())
    })
    .unwrap();

    let link = farm.control.invite().unwrap();
    let phone = Phone::new(Place::here(), &dir.path().join("phone")).unwrap();
    // It says why it does not get through, and goes on trying: in a hotel's
    // network everybody has the wrong certificate at first.
    let stranger = Process::spawn("farm-connect pair", &mut phone.command(["pair", &link]).unwrap()).unwrap();
    stranger
        .wait_for_line("a word on the certificate", PATIENCE, |line| {
            line.text.contains("invalid peer certificate")
        })
        .unwrap();
    stranger.kill().unwrap();

    let mut command = phone.command(["pair", &link]).unwrap();
    run("farm-connect pair", command.env("FARM_BROKER_CA", &chain), PATIENCE).unwrap();
    let mut command = phone.command(["forward", FARM, GREENHOUSE, "--listen", "127.0.0.1:0"]).unwrap();
    let gate = Gate::open(command.env("FARM_BROKER_KEY", &key));
    assert_eq!(gate.page().status, 200);

    // Another key than the broker's: never online, and it says why.
    let other_two = if key[7..9] == *"AA" { "BB" } else { "AA" };
    let wrong = format!("{}{other_two}{}", &key[..7], &key[9..]);
    let other_dir = dir.path().join("other");
    let other = agent(&other_dir, listen, &enroll(dir.path()), &wrong, page);
    let (status, _) = until("a refused certificate", Duration::from_secs(20), || {
        let status = other.control.status().ok()?;
        status.to_string().contains("certificate").then_some(status)
    })
    .unwrap();
    assert_ne!(status["broker"]["state"], "online", "{status}");
    assert_eq!(gate.page().status, 200, "the others notice nothing");
}
