//! A card that fails under a running agent, or has damaged its database: the
//! real programs on loopback. With `FARM_BIN_DIR` also the agent as it is built
//! for the card, where a panic ends it (`make card`, then
//! `FARM_BIN_DIR=target/card cargo test --release --workspace --test card`).
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Gate, SOON, Scene, connect};
use farm_powercut::shim::{Orders, Shim};
use farm_tests::harness::farm::{GREENHOUSE, PATIENCE, Place};
use farm_tests::harness::run;

/// sled's log is in segments of this length, each of which begins with its
/// number.
const SEGMENT_BYTES: usize = 512 << 10;

/// A stream of events that stays open until somebody ends it: one a second.
fn open_events(gate: &Gate) -> TcpStream {
    let mut stream = connect(gate.address);
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    stream
}

fn record(scene: &Scene, value: u32) -> bool {
    let mut command = scene.agent.control.command(["record", "air", &value.to_string()]).unwrap();
    run("farm-agent record", &mut command, PATIENCE).is_ok()
}

#[test]
fn a_card_that_fails_its_syncs_costs_no_stream_and_is_written_again_once_it_works() {
    let mut scene = Scene::start("fsync fails under a running agent");
    scene.agent.daemon.terminate().unwrap();
    let shim = Shim::build(scene.dir()).unwrap();
    let dir = fs::canonicalize(scene.agent_state()).unwrap();
    // A start syncs some twenty times; then five fail with EIO, a commit and
    // what is tried after it.
    let orders = Orders { dir: dir.to_str().unwrap(), fail: Some("fsync:60:5:5"), ..Orders::default() };
    let place = shim.environment(&orders).into_iter().fold(Place::here(), |place, (name, value)| {
        // For as long as this test runs.
        place.with(name, String::leak(value))
    });
    scene.agent.daemon.move_to(place);
    scene.agent.daemon.start().unwrap();
    let pid = scene.agent.daemon.process().unwrap().pid();
    scene.status("the broker lets the farm in again", SOON, |s| s["broker"]["state"] == "online");

    let gate = scene.forward(GREENHOUSE);
    gate.page();
    let mut events = open_events(&gate);
    events.set_read_timeout(Some(SOON)).unwrap();
    let (mut value, mut refused, mut kept) = (0, 0, Vec::new());
    let begun = Instant::now();
    while refused == 0 || kept.last() != Some(&value) {
        value += 1;
        if record(&scene, value) {
            kept.push(value);
        } else {
            refused += 1;
            gate.page();
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "{refused} refused, {} kept", kept.len());
    }
    println!("{refused} refused, {} kept, {:.1} s", kept.len(), begun.elapsed().as_secs_f64());
    // The same stream and process; bytes that were under way are read first.
    let mut bytes = [0; 4096];
    for _ in 0..3 {
        assert!(events.read(&mut bytes).unwrap() > 0, "the stream has ended");
    }
    assert_eq!(scene.agent.daemon.process().unwrap().pid(), pid);
    assert!(scene.agent.daemon.is_running());
    let alarms = scene.agent.control.status().unwrap()["alarms"].clone();
    assert!(alarms.as_array().is_none_or(Vec::is_empty), "nothing is damaged: {alarms}");
}

#[test]
fn a_damaged_database_costs_no_pairing_and_a_start() {
    let mut scene = Scene::start("the database is damaged while the agent is off");
    let farm = scene.agent.control.status().unwrap()["farm"].clone();
    scene.agent.daemon.terminate().unwrap();
    let db = scene.agent_state().join("store/db");
    let mut log = fs::read(&db).unwrap();
    // A sector was written to a wrong place: two segments of one number, at
    // which sled panics.
    log.resize(2 * SEGMENT_BYTES, 0);
    log.copy_within(0..512, SEGMENT_BYTES);
    fs::write(&db, log).unwrap();

    let took = scene.agent.daemon.start().unwrap();
    println!("ready after {} ms", took.as_millis());
    let status =
        scene.status("the broker lets the farm in again", SOON, |s| s["broker"]["state"] == "online");
    assert_eq!(status["farm"], farm);
    let alarms = status["alarms"].to_string();
    assert!(alarms.contains("the database was damaged") && alarms.contains("panicked"), "{alarms}");
    let aside = fs::read_dir(scene.agent_state())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("corrupt-"));
    assert_eq!(aside.count(), 1);
    // Paired as before.
    scene.forward(GREENHOUSE).page();
    assert!(record(&scene, 1));
}
