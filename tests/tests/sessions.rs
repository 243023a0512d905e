//! How sessions end and change hands: the real programs on loopback.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Gate, SOON, Scene, connect};
use farm_tests::harness::farm::{FARM, GREENHOUSE, Phone, Place};
use farm_tests::harness::until;

/// A stream of events that stays open until somebody ends it.
fn open_events(gate: &Gate) -> std::net::TcpStream {
    let mut stream = connect(gate.address);
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    stream
}

/// What a copied card or disk image has: the key, the farms, the counts.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn an_agent_that_stops_ends_its_streams_at_once_and_says_why() {
    let mut scene = Scene::start("the agent is stopped in good order with a stream open");
    let gate = scene.forward(GREENHOUSE);
    let mut open = open_events(&gate);
    let before = Instant::now();
    scene.agent.daemon.terminate().unwrap();
    let ended = std::io::copy(&mut open, &mut std::io::sink()).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{ended}");
    // Not when it is back: it is not started again.
    println!("the open stream was reset {} ms after SIGTERM", before.elapsed().as_millis());
    let line = gate.process.wait_for_line("why", SOON, |l| l.text.contains("a connection ended early"));
    let line = line.unwrap();
    assert!(line.text.contains("the session ended") || line.text.contains("session"), "{}", line.text);
    println!("{}", line.text);
}

#[test]
fn two_machines_with_one_copied_key_do_not_fight() {
    let scene = Scene::start("a state directory is copied and used by two machines at once");
    let copied = scene.dir().join("copy");
    copy(&scene.dir().join("phone"), &copied);
    let twin = Phone::new(Place::here(), &copied).unwrap();

    let first = scene.forward(GREENHOUSE);
    first.page();
    let mut open = open_events(&first);
    // As on another machine: its locks are its own, its count of starts is older.
    let second = Gate::open(&mut twin.command(["forward", FARM, GREENHOUSE]).unwrap());
    second.page();
    let ended = std::io::copy(&mut open, &mut std::io::sink()).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "the newer one took the session: {ended}");
    let said = first
        .process
        .wait_for_line("what happened", SOON, |l| l.text.contains("another machine uses this device's key"));
    println!("{}", said.unwrap().text);
    first.page();
    second.page();
    let status = scene.status("both are live, side by side", SOON, |s| {
        let sessions = s["sessions"].as_array().unwrap();
        sessions.len() == 2 && sessions.iter().all(|s| s["state"] == "live")
    });
    let attached = |status: &serde_json::Value| status["counters"]["carriers_attached"].as_u64().unwrap();
    let before = attached(&status);
    // Long against everything that either could do about the other.
    let end = Instant::now() + Duration::from_secs(5);
    until("five quiet seconds", SOON, || (Instant::now() > end).then_some(())).unwrap();
    first.page();
    second.page();
    let after = attached(&scene.agent.control.status().unwrap());
    assert_eq!(after, before, "they go on taking each other's place");
}
