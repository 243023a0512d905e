//! Readings end to end: recorded at the farm with the real agent, shown by the
//! real client, across the failures that farms and phones have.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{SOON, Scene};
use farm_tests::harness::farm::FARM;
use farm_tests::harness::{run, until};
use serde_json::{Value, json};

/// A program at the farm that records.
struct Sensor {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Sensor {
    fn connect(scene: &Scene) -> Self {
        let path = scene.agent_state().join("readings.sock");
        let (writer, _) = until("the readings' socket", SOON, || UnixStream::connect(&path).ok()).unwrap();
        writer.set_read_timeout(Some(SOON)).unwrap();
        Self { reader: BufReader::new(writer.try_clone().unwrap()), writer }
    }

    fn record(&mut self, value: u64) -> Option<u64> {
        self.writer.write_all(format!("{{\"name\": \"count\", \"value\": {value}}}\n").as_bytes()).ok()?;
        let mut line = String::new();
        self.reader.read_line(&mut line).ok()?;
        serde_json::from_str::<Value>(&line).ok()?["sequence"].as_u64()
    }
}

/// A running `farm-connect readings --json --follow`; its readings.
struct Follower {
    process: Child,
    lines: mpsc::Receiver<(Instant, Value)>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Like a phone whose battery is empty.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Follower {
    fn start(scene: &Scene) -> Self {
        let mut process = command(scene, &["--follow"]).stdout(Stdio::piped()).spawn().unwrap();
        let (line, lines) = mpsc::channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for text in output.lines().map_while(Result::ok) {
                let value = serde_json::from_str::<Value>(&text).unwrap();
                let ours = value["name"] == "count" || value["gap"].is_object();
                if ours && line.send((Instant::now(), value)).is_err() {
                    return;
                }
            }
        });
        Self { process, lines }
    }

    fn next(&self) -> (Instant, Value) {
        self.lines.recv_timeout(SOON).expect("a reading comes")
    }
}

fn command(scene: &Scene, more: &[&str]) -> Command {
    scene.phone.command([&["readings", FARM, "--json"], more].concat()).unwrap()
}

/// What `readings` without `--follow` prints.
fn shown(scene: &Scene, more: &[&str]) -> Vec<Value> {
    let output = run("farm-connect readings", &mut command(scene, more), SOON).unwrap();
    let lines = output.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|value| value["name"] == "count").collect()
}

#[test]
fn what_is_recorded_is_shown_once_and_the_next_time_goes_on_from_there() {
    let scene = Scene::start("record, readings");
    let record = |value: &str| {
        let mut command = scene.agent.control.command(["record", "count", value, "--unit", "kg"]).unwrap();
        run("farm-agent record", &mut command, SOON).unwrap().stdout.trim().parse::<u64>().unwrap()
    };
    let first = record("-1.5");
    let second = record("2");
    assert_eq!(second, first + 1);
    let all = shown(&scene, &[]);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(
        (&all[0]["sequence"], &all[0]["value"], &all[0]["unit"]),
        (&json!(first), &json!(-1.5), &json!("kg"))
    );
    assert_eq!(shown(&scene, &[]), [] as [Value; 0], "shown once");
    assert_eq!(shown(&scene, &["--since", "0"]), all, "unless it is asked for again");
    record("3");
    assert_eq!(shown(&scene, &[])[0]["value"], 3.0);
    let mut ahead = command(&scene, &["--since", "1000000"]);
    let refused = run("farm-connect readings", &mut ahead, SOON).unwrap_err().to_string();
    assert!(refused.contains("--since 0"), "{refused}");
    for bad in ["NaN", "inf"] {
        let mut command = scene.agent.control.command(["record", "count", bad]).unwrap();
        let refused = run("farm-agent record", &mut command, SOON).unwrap_err().to_string();
        assert!(refused.contains("finite"), "{refused}");
    }
}

#[test]
fn a_live_reading_arrives_within_200_ms() {
    let scene = Scene::start("live readings");
    let mut sensor = Sensor::connect(&scene);
    sensor.record(0).unwrap();
    let follower = Follower::start(&scene);
    follower.next();
    let mut late: Vec<Duration> = (1..=60)
        .map(|value| {
            let recorded = Instant::now();
            sensor.record(value).unwrap();
            let (at, reading) = follower.next();
            assert_eq!(reading["value"], value as f64);
            std::thread::sleep(Duration::from_millis(20));
            at.saturating_duration_since(recorded)
        })
        .collect();
    late.sort();
    println!("from before recording to shown: median {:?}, worst {:?}", late[30], late[59]);
    assert!(late[57] < Duration::from_millis(200), "{late:?}");
}

#[test]
fn every_acknowledged_reading_arrives_once_and_in_order_across_every_failure() {
    let mut scene = Scene::start("readings across failures");
    let mut sensor = Sensor::connect(&scene);
    let follower = Follower::start(&scene);
    let mut acknowledged = Vec::new();
    let mut value = 0;
    let mut work = |sensor: &mut Sensor, acknowledged: &mut Vec<(u64, u64)>, count: u64| {
        for _ in 0..count {
            value += 1;
            if let Some(sequence) = sensor.record(value) {
                acknowledged.push((sequence, value));
            }
        }
    };
    work(&mut sensor, &mut acknowledged, 200);
    // The farm loses power, twice, with readings on their way.
    for _ in 0..2 {
        scene.agent.daemon.kill().unwrap();
        work(&mut sensor, &mut acknowledged, 1);
        scene.agent.daemon.start().unwrap();
        sensor = Sensor::connect(&scene);
        work(&mut sensor, &mut acknowledged, 100);
    }
    // The broker goes, and comes back: nobody notices.
    scene.broker.daemon.kill().unwrap();
    work(&mut sensor, &mut acknowledged, 50);
    scene.broker.daemon.start().unwrap();
    // A restart in good order.
    scene.agent.daemon.terminate().unwrap();
    scene.agent.daemon.start().unwrap();
    sensor = Sensor::connect(&scene);
    work(&mut sensor, &mut acknowledged, 50);

    let mut came = Vec::new();
    let last = acknowledged.last().unwrap().0;
    while came.last().is_none_or(|(sequence, _)| *sequence < last) {
        let (_, reading) = follower.next();
        assert!(reading["gap"].is_null(), "nothing was lost: {reading}");
        came.push((reading["sequence"].as_u64().unwrap(), reading["value"].as_f64().unwrap() as u64));
    }
    assert!(came.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "in order, once");
    let missing: Vec<_> = acknowledged.iter().filter(|one| came.binary_search(one).is_err()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // At most what was on its way when the power went is there besides.
    assert!(came.len() <= acknowledged.len() + 2, "{} of {}", came.len(), acknowledged.len());
    drop(follower);

    // The client crashed too: at worst it shows the last lines again.
    work(&mut sensor, &mut acknowledged, 10);
    let again = shown(&scene, &[]);
    assert!(again.len() >= 10, "{again:?}");
    assert_eq!(again.last().unwrap()["value"].as_f64().unwrap() as u64, acknowledged.last().unwrap().1);
}
