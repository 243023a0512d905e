//! Who may reach a farm: invitations, wrong secrets, strangers, revoked phones,
//! and what survives restarts.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use common::device::{Device, stranger};
use common::{Gate, SOON, Scene, connect, fails, refused};
use farm_connect::Client;
use farm_protocol::broker::{Address, FromBroker, ToBroker, UndeliveredReason, Watch};
use farm_protocol::epoch::Epoch;
use farm_protocol::id::{BootId, FarmId};
use farm_protocol::invitation::{Invitation, Link, MAX_TRIES};
use farm_protocol::keys::{Mac, Nonce};
use farm_protocol::pairing::{PairAnswer, PairRefused, request};
use farm_protocol::signal::{Content, Payload, PeerSignal};
use farm_tests::harness::farm::{FARM, GREENHOUSE, PATIENCE, Phone, Place};
use farm_tests::harness::run;
use ring::rand::SystemRandom;

/// One more phone of this farm, not paired yet.
fn another(scene: &Scene, name: &str) -> Phone {
    Phone::new(Place::here(), &scene.dir().join(name)).unwrap()
}

/// The parts of an invitation's link.
fn parts(link: &str) -> Link {
    match link.parse().unwrap() {
        Invitation::Link(link) => link,
        Invitation::Code(_) => panic!("{link} is no link"),
    }
}

#[test]
fn by_link_once() {
    let scene = Scene::unpaired("a link pairs one phone and no second one");
    let link = scene.agent.control.invite().unwrap();
    scene.phone.pair(&link).unwrap();
    let farms = scene.phone.ask(["farms", "--json"]).unwrap();
    assert_eq!(farms[0]["name"], FARM);
    scene.forward(GREENHOUSE).page();
    assert_eq!(scene.counter("pairings_accepted"), 1);

    let second = another(&scene, "second");
    let said = fails("farm-connect pair", &mut second.command(["pair", &link]).unwrap(), 1);
    assert!(said.contains("used by another device") && said.contains("farm-agent invite"), "{said}");
    assert_eq!(second.ask(["farms", "--json"]).unwrap().as_array().unwrap().len(), 0);
    assert_eq!(scene.counter("pairings_refused"), 1);
    assert_eq!(scene.agent.control.status().unwrap()["phones"], 1);
    // The same phone again: its answer may have been lost.
    scene.phone.pair(&link).unwrap();
}

#[test]
fn by_typed_code() {
    let scene = Scene::unpaired("a typed code pairs a phone and uses up the link, too");
    let invitation = scene.agent.control.ask(["invite", "--json"]).unwrap();
    let (code, link) = (invitation["code"].as_str().unwrap(), invitation["link"].as_str().unwrap());
    let broker = scene.broker.url();
    // As people type it.
    let typed = code.to_lowercase().replace('-', " ");
    let mut command = scene.phone.command(["pair", &typed, "--broker", &broker, "--name", "Ada"]).unwrap();
    run("farm-connect pair", &mut command, PATIENCE).unwrap();
    scene.forward(GREENHOUSE).page();
    assert_eq!(scene.agent.control.ask(["phones", "--json"]).unwrap()[0]["name"], "Ada");

    let second = another(&scene, "second");
    let said = fails("pair without a broker", &mut second.command(["pair", code]).unwrap(), 1);
    assert!(said.contains("--broker"), "{said}");
    // The broker drops requests for what no farm holds, so ask in the farm's name.
    let device = Device::online(&broker, stranger(), 0, 1);
    let secret = parts(link).secret;
    device.signal(Address::Invitation(secret.id()), &ask(&device, &secret, None));
    let reason = device.told("that no farm holds the link any more", |message| match message {
        FromBroker::Undelivered(undelivered) => Some(undelivered.reason),
        _ => None,
    });
    assert_eq!(reason, UndeliveredReason::Offline);
    assert_eq!(scene.agent.control.status().unwrap()["phones"], 1);
}

/// A pairing request, with a wrong proof instead of the right one if wanted.
fn ask(device: &Device, secret: &farm_protocol::invitation::Secret, wrong: Option<u8>) -> Payload {
    let nonce = Nonce::generate(&SystemRandom::new()).unwrap();
    let mut ask = request(secret, device.key().public(), device.session().slot, nonce, "thief");
    if let Some(wrong) = wrong {
        ask.mac = Mac::from_bytes([wrong; 32]);
    }
    Payload::PairRequest(Box::new(ask))
}

#[test]
fn wrong_secrets_are_counted_and_void_the_invitation() {
    let scene = Scene::unpaired("five wrong proofs make an invitation void");
    let link = scene.agent.control.invite().unwrap();
    let secret = parts(&link).secret;
    let thief = Device::online(&scene.broker.url(), stranger(), 0, 1);
    for wrong in 1..=MAX_TRIES {
        thief.signal(Address::Invitation(secret.id()), &ask(&thief, &secret, Some(wrong)));
        let reason = thief.heard("the farm's refusal", |payload| match payload {
            Payload::PairAnswer(answer) => match *answer {
                PairAnswer::Refused { reason, .. } => Some(reason),
                PairAnswer::Accepted { .. } => panic!("try {wrong}: a wrong proof was accepted"),
            },
            _ => None,
        });
        assert_eq!(reason, PairRefused::WrongProof, "try {wrong}");
        assert_eq!(scene.counter("pairings_refused"), u64::from(wrong));
    }
    // Now the right one comes too late.
    let said = fails("farm-connect pair", &mut scene.phone.command(["pair", &link]).unwrap(), 1);
    assert!(said.contains("void after too many wrong tries"), "{said}");
    let status = scene.agent.control.status().unwrap();
    assert_eq!(status["counters"]["pairings_refused"], u64::from(MAX_TRIES) + 1, "{status}");
    assert_eq!(status["phones"], 0, "{status}");
    // A fresh one works.
    scene.phone.pair(&scene.agent.control.invite().unwrap()).unwrap();
    scene.forward(GREENHOUSE).page();
}

#[test]
fn an_invitation_that_no_farm_has_is_told_soon() {
    let scene = Scene::unpaired("a phone pairs with an invitation of another farm, or with a mistyped code");
    let broker = scene.broker.url();
    let start = Instant::now();
    let mut command = scene.phone.command(["pair", "0123-4567-89AB-CDEF", "--broker", &broker]).unwrap();
    let said = fails("farm-connect pair", &mut command, 1);
    let took = start.elapsed();
    println!("{said}after {:.1} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(17), "{took:?}");
    let first = said.lines().next().unwrap();
    assert!(first.contains("still trying: no farm with this invitation"), "{said}");
    assert!(said.lines().last().unwrap().contains("typed right?"), "{said}");
}

#[test]
fn a_revoked_phone_is_out_at_once() {
    let scene = Scene::start("a phone is revoked while its tunnel is open");
    let gate = scene.forward(GREENHOUSE);
    gate.page();
    let mut open = connect(gate.address);
    open.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    open.read_exact(&mut [0; 12]).unwrap();
    let phones = scene.agent.control.ask(["phones", "--json"]).unwrap();
    let id = phones[0]["id"].as_str().unwrap();
    let mut command = scene.agent.control.command(["revoke", &id[..8]]).unwrap();
    run("farm-agent revoke", &mut command, PATIENCE).unwrap();
    let start = Instant::now();
    let ended = std::io::copy(&mut open, &mut std::io::sink()).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{ended}");
    println!("the open stream was reset {} ms after the command", start.elapsed().as_millis());
    let status = scene.status("no session and no phone is left", Duration::from_secs(2), |s| {
        s["sessions"].as_array().unwrap().is_empty() && s["phones"] == 0
    });
    assert_eq!(status["counters"]["carriers_attached"], 1, "{status}");

    // The running program: refused, not left waiting.
    refused(&gate);
    // A new one.
    let status = scene.phone.status(FARM).unwrap();
    println!("status of the revoked phone: {status}");
    assert_eq!(status["state"], "not_paired", "{status}");
    assert_eq!(status["failure"], "refused_not_paired", "{status}");
    // To the broker it is no more than any stranger: only the farm's word counts.
    assert_eq!(status["farm_present"], false, "{status}");
    // Another invitation lets it in again.
    scene.phone.pair(&scene.agent.control.invite().unwrap()).unwrap();
    scene.forward(GREENHOUSE).page();
}

#[test]
fn a_stranger_learns_nothing_and_reaches_nobody() {
    let scene = Scene::start("a phone that is not paired watches and signals");
    let gate = scene.forward(GREENHOUSE);
    gate.page();
    let farm: FarmId = Client::open(&scene.dir().join("phone")).unwrap().find(FARM).unwrap().id();
    let before = scene.agent.control.status().unwrap();
    let device = Device::online(&scene.broker.url(), stranger(), 0, 1);
    device.send(ToBroker::Watch(Watch { farms: vec![farm] }));
    let state = device.told("the farm's presence", |message| match message {
        FromBroker::Presence(presence) if presence.farm == farm => Some(presence.state.clone()),
        _ => None,
    });
    assert_eq!(state, None, "a stranger is told about the farm");
    let offer = PeerSignal {
        from: farm_protocol::broker::Role::Phone,
        farm,
        session: device.session(),
        epoch: Epoch::of_start(1),
        content: Content::Offer {
            nonce: Nonce::generate(&SystemRandom::new()).unwrap(),
            phone_boot: BootId::from_bytes([7; 16]),
            farm_boot: BootId::from_bytes([8; 16]),
            sdp: "v=0\r\n".to_owned(),
        },
    };
    device.signal(Address::Farm(farm), &Payload::Signed(offer.sign(&device.key()).unwrap()));
    let reason = device.told("that nothing was delivered", |message| match message {
        FromBroker::Undelivered(undelivered) => Some(undelivered.reason),
        FromBroker::Signal(_) => panic!("the farm answers a stranger"),
        _ => None,
    });
    assert_eq!(reason, UndeliveredReason::Offline);
    let after = scene.agent.control.status().unwrap();
    assert_eq!(after["sessions"].as_array().unwrap().len(), 1, "{after}");
    assert_eq!(before["counters"]["strangers_signals"], after["counters"]["strangers_signals"]);
    gate.page();
}

#[test]
fn pairing_and_enrollment_survive_power_cuts() {
    let mut scene = Scene::start("agent and broker are killed right after pairing");
    let id = |scene: &Scene| {
        let phones = scene.agent.control.ask(["phones", "--json"]).unwrap();
        phones[0]["id"].as_str().unwrap().to_owned()
    };
    let phone = id(&scene);
    let farm = scene.agent.control.status().unwrap()["farm"].clone();
    scene.agent.daemon.kill().unwrap();
    scene.broker.daemon.kill().unwrap();
    scene.broker.daemon.start().unwrap();
    // Its config still has the token that was used up.
    scene.agent.daemon.start().unwrap();
    let status = scene.status("the agent is let in again", SOON, |s| s["broker"]["state"] == "online");
    assert_eq!(status["farm"], farm, "the farm has another key");
    assert_eq!(id(&scene), phone);
    let gate: Gate = scene.forward(GREENHOUSE);
    gate.page();
    // Both alone, with the other one running.
    scene.broker.daemon.kill().unwrap();
    scene.broker.daemon.start().unwrap();
    scene.status("the agent is back at the broker", SOON, |s| s["broker"]["state"] == "online");
    scene.forward(GREENHOUSE).page();
    scene.agent.daemon.terminate().unwrap();
    scene.agent.daemon.start().unwrap();
    gate.page();
    assert_eq!(id(&scene), phone);
}
