//! What goes through a tunnel, and what a tunnel survives: the real programs
//! on loopback.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Gate, SOON, Scene, connect, echo, echo_service, median, ms, refused};
use farm_connect::{Client, Tunnel, pair};
use farm_tests::greenhouse::content;
use farm_tests::harness::farm::{FARM, GREENHOUSE, Service};
use farm_tests::harness::http::{Body, HttpError, Request, Response, get};
use farm_tests::harness::{free_port, until};

const MEGABYTE: u64 = 1_000_000;

/// A download whose length and checksum must be right.
fn download(address: SocketAddr, megabytes: u64) -> Response {
    let path = format!("/download/{megabytes}MB.bin");
    let response = get(address, &path).unwrap_or_else(|error| panic!("{path}: {error}"));
    whole(&response, megabytes);
    response
}

fn whole(response: &Response, megabytes: u64) {
    assert_eq!((response.status, response.length), (200, megabytes * MEGABYTE));
    assert_eq!(response.sha256, content::sha256(megabytes * MEGABYTE), "{megabytes} MB came altered");
}

/// A download that stops in the middle until `go` is sent or dropped.
struct Held {
    go: mpsc::Sender<()>,
    result: std::thread::JoinHandle<Result<Response, HttpError>>,
}

/// Starts a download and returns when its first `hold_at` bytes have come.
fn held_download(address: SocketAddr, megabytes: u64, hold_at: usize) -> Held {
    let (reached, wait) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let result = std::thread::spawn(move || {
        let mut received = 0;
        Request::get(&format!("/download/{megabytes}MB.bin")).send_with(address, |piece| {
            let before = received;
            received += piece.len();
            if before < hold_at && received >= hold_at {
                let _ = reached.send(());
                let _ = gone.recv_timeout(Duration::from_secs(60));
            }
            ControlFlow::Continue(())
        })
    });
    wait.recv_timeout(SOON).expect("the download begins");
    Held { go, result }
}

impl Held {
    fn finish(self) -> Result<Response, HttpError> {
        drop(self.go);
        self.result.join().unwrap()
    }
}

#[test]
fn page_download_and_upload_arrive_whole() {
    let scene = Scene::start("a page, 100 MB down and 100 MB up through one forward");
    let gate = scene.forward(GREENHOUSE);
    let page = gate.page();
    assert!(page.text().contains("</html>"), "{}", page.text());
    let down = download(gate.address, 100);
    let up = Request::post("/upload", Body::Content(100 * MEGABYTE)).send(gate.address).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&up.text()).unwrap();
    assert_eq!(answer["sha256"], content::sha256(100 * MEGABYTE), "{answer}");
    println!(
        "first page {:.0} ms, 100 MB down {:.0} MB/s, up {:.0} MB/s",
        ms(page.total),
        down.megabytes_per_second(),
        100.0 / up.total.as_secs_f64()
    );
}

#[test]
fn eight_downloads_at_once_share_fairly() {
    let scene = Scene::start("8 downloads of 30 MB at once");
    let gate = scene.forward(GREENHOUSE);
    gate.page();
    let address = gate.address;
    let running: Vec<_> = (0..8).map(|_| std::thread::spawn(move || download(address, 30).total)).collect();
    let mut times: Vec<_> = running.into_iter().map(|thread| thread.join().unwrap()).collect();
    times.sort();
    let ratio = times[7].as_secs_f64() / times[0].as_secs_f64();
    println!("8 x 30 MB: {:.2} to {:.2} s, ratio {ratio:.2}", times[0].as_secs_f64(), times[7].as_secs_f64());
    assert!(ratio <= 2.5, "slowest over fastest is {ratio:.2}: {times:?}");
}

/// Medians of 200 echoes on one connection and of 40 pages, each on its own.
fn latency(gate: &Gate, echo_gate: &Gate) -> (Duration, Duration) {
    let mut stream = connect(echo_gate.address);
    echo(&mut stream, b"first").unwrap();
    let echoes = (0..200).map(|_| echo(&mut stream, &[42; 64]).unwrap()).collect();
    let pages = (0..40).map(|_| get(gate.address, "/api/readings").unwrap().total).collect();
    (median(echoes), median(pages))
}

#[test]
fn a_consumer_that_stops_reading_costs_others_nothing() {
    let scene = Scene::start("one consumer of 1 GB stops reading after 1 MB");
    scene.add_services(vec![Service::tcp("echo", &echo_service().to_string())]);
    let (gate, echo_gate) = (scene.forward(GREENHOUSE), scene.forward("echo"));
    gate.page();
    // Buffers and threads that stay are there before the memory is looked at.
    download(gate.address, 30);
    let idle = latency(&gate, &echo_gate);
    let memory =
        || [scene.agent_memory(), gate.process.usage().unwrap().rss_bytes].map(|bytes| bytes as f64 / 1e6);
    let before = memory();

    let mut stalled = connect(gate.address);
    stalled.write_all(b"GET /download/1000MB.bin HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stalled.read_exact(&mut vec![0; 1_000_000]).unwrap();
    // Everything on the way is full when its buffers have stopped growing.
    let (mut last, mut since) = (0, Instant::now());
    until("the stalled stream's buffers fill", SOON, || {
        let session = &scene.agent.control.status().unwrap()["sessions"];
        let held: u64 = session.as_array().unwrap().iter().filter_map(|s| s["buffered_bytes"].as_u64()).sum();
        if held != last {
            (last, since) = (held, Instant::now());
        }
        (held > 0 && since.elapsed() > Duration::from_secs(1)).then_some(())
    })
    .unwrap();

    let during = latency(&gate, &echo_gate);
    let after = memory();
    println!(
        "echo {:.2} -> {:.2} ms, readings {:.2} -> {:.2} ms; agent {:.1} -> {:.1} MB, connect {:.1} -> {:.1} MB",
        ms(idle.0),
        ms(during.0),
        ms(idle.1),
        ms(during.1),
        before[0],
        after[0],
        before[1],
        after[1]
    );
    let slack = Duration::from_millis(2);
    assert!(during.0 <= 2 * idle.0 + slack, "echo: {:?} idle, {:?} beside the stalled one", idle.0, during.0);
    assert!(during.1 <= 2 * idle.1 + slack, "GET: {:?} idle, {:?} beside the stalled one", idle.1, during.1);
    assert!(after[0] - before[0] < 40.0 && after[1] - before[1] < 40.0, "memory {before:?} -> {after:?} MB");
    // Others still get their share, and the stalled one was not given up.
    download(gate.address, 30);
    stalled.read_exact(&mut vec![0; 5_000_000]).unwrap();
}

#[test]
fn a_tunnel_lives_on_without_its_broker() {
    let mut scene = Scene::start("the broker is killed in the middle of a download");
    let gate = scene.forward(GREENHOUSE);
    let held = held_download(gate.address, 100, 5_000_000);
    scene.broker.daemon.kill().unwrap();
    gate.page();
    whole(&held.finish().unwrap(), 100);
    scene.status("the agent notices that the broker is gone", SOON, |s| s["broker"]["state"] != "online");
    download(gate.address, 10);
    scene.broker.daemon.start().unwrap();
    let back = Instant::now();
    scene.status("the agent is online again", Duration::from_secs(10), |s| s["broker"]["state"] == "online");
    println!("online {:.2} s after the broker was back", back.elapsed().as_secs_f64());
    gate.page();
}

#[test]
fn an_agent_killed_and_restarted_is_found_again() {
    let mut scene = Scene::start("the agent is killed with a stream open, and started again");
    let gate = scene.forward(GREENHOUSE);
    gate.page();
    let held = held_download(gate.address, 1000, 5_000_000);
    scene.agent.daemon.kill().unwrap();
    let ready = scene.agent.daemon.start().unwrap();
    let start = Instant::now();
    let page = Request::get("/").patience(Duration::from_secs(5)).send(gate.address).unwrap();
    assert_eq!(page.status, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "the first page took {:?}", start.elapsed());
    assert!(gate.process.is_running());
    println!("agent ready after {:.0} ms, then a page in {:.0} ms", ms(ready), ms(page.total));
    match held.finish() {
        Err(HttpError::Broken { source, received, .. }) => {
            assert_eq!(source.kind(), ErrorKind::ConnectionReset, "after {received} bytes: {source}");
        }
        other => panic!("the open stream must be reset, but: {other:?}"),
    }
}

#[test]
fn farm_connect_restarted_takes_its_place_again() {
    let scene = Scene::start("farm-connect is killed and started again, then asked to end");
    let gate = scene.forward(GREENHOUSE);
    gate.page();
    let one = scene.status("one live session", SOON, |s| s["sessions"][0]["state"] == "live");
    gate.process.kill().unwrap();
    let start = Instant::now();
    let again = scene.forward(GREENHOUSE);
    again.page();
    println!("a page {:.0} ms after the restart", ms(start.elapsed()));
    let now = scene.agent.control.status().unwrap();
    let sessions = now["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "a session of the former program is left: {now}");
    assert_eq!(sessions[0]["session"], one["sessions"][0]["session"], "another slot was taken");
    assert_eq!(sessions[0]["streams"], 0, "streams of the former program are left: {now}");
    again.process.terminate(SOON).unwrap();
    scene.status("the session ends with its program", Duration::from_secs(3), |s| {
        s["sessions"].as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn two_forwards_of_one_device_work_side_by_side() {
    let scene = Scene::start("two forwards with one state directory");
    let (first, second) = (scene.forward(GREENHOUSE), scene.forward(GREENHOUSE));
    let (a, b) = (first.address, second.address);
    let other = std::thread::spawn(move || download(a, 30));
    download(b, 30);
    other.join().unwrap();
    scene.status("both sessions are live", SOON, |s| {
        let sessions = s["sessions"].as_array().unwrap();
        sessions.len() == 2 && sessions.iter().all(|s| s["state"] == "live")
    });
    drop(first);
    second.page();
}

#[test]
fn a_service_that_is_not_there_is_refused_and_named() {
    let scene = Scene::start("connections to an unknown service and to one that does not listen");
    scene.add_services(vec![Service::tcp("nobody", &free_port().unwrap().to_string())]);
    for (service, counter, part) in
        [("no-such", "unknown_service", "no-such"), ("nobody", "service_unavailable", "nobody")]
    {
        let gate = scene.forward(service);
        refused(&gate);
        let line = gate.process.wait_for_line("why it was refused", SOON, |line| {
            line.text.contains("WARN") && line.text.contains(part) && line.text.contains("refused")
        });
        println!("{}", line.unwrap().text);
        assert_eq!(scene.counter(counter), 1, "{service}");
        // Once more, so that the first did not break anything.
        refused(&gate);
        assert_eq!(scene.counter(counter), 2, "{service}");
    }
    scene.forward(GREENHOUSE).page();
}

#[test]
fn a_hundred_tunnels_leave_nothing_behind() {
    let scene = Scene::unpaired("100 tunnels come, work and go");
    let client = Client::open(&scene.dir().join("twin")).unwrap();
    let link = scene.agent.control.invite().unwrap();
    let farm = smol::block_on(pair(&client, &link, None, "twin")).unwrap();
    let agent = scene.agent.daemon.process().unwrap();
    let cycle = |number: usize| {
        smol::block_on(async {
            let tunnel = Tunnel::start(&client, &farm).unwrap();
            assert!(tunnel.wait_live(SOON).await, "tunnel {number}: {:?}", tunnel.status().await);
            let stream = tunnel.open(GREENHOUSE).unwrap();
            stream.write(b"GET /api/readings HTTP/1.0\r\n\r\n".as_ref().into()).await.unwrap();
            let answer = stream.read().await.unwrap().unwrap();
            assert!(answer.starts_with(b"HTTP/1."), "tunnel {number}: {answer:?}");
            tunnel.stop().await;
        });
    };
    let settled = || {
        scene.status("all sessions are over", SOON, |s| s["sessions"].as_array().unwrap().is_empty());
    };
    let idle = agent.usage().unwrap().files;
    // What grows once and stays (thread stacks, arenas) is not what this is about.
    (0..20).for_each(cycle);
    settled();
    let before = agent.usage().unwrap();
    let start = Instant::now();
    (0..100).for_each(cycle);
    settled();
    let each = start.elapsed() / 100;
    let what = format!("the agent's files are back to {idle} + 8 or less");
    until(&what, SOON, || agent.usage().ok().filter(|usage| usage.files <= idle + 8)).unwrap();
    let after = agent.usage().unwrap();
    let grown = (after.rss_bytes as f64 - before.rss_bytes as f64) / 1e6;
    println!(
        "100 tunnels, {:.0} ms each; files {idle} idle, {} after; memory {:.1} -> {:.1} MB",
        ms(each),
        after.files,
        before.rss_bytes as f64 / 1e6,
        after.rss_bytes as f64 / 1e6
    );
    assert!(grown < 8.0, "the agent grew by {grown:.1} MB");
    let status = scene.agent.control.status().unwrap();
    assert_eq!(status["phones"], 1);
    assert_eq!(status["name"], FARM);
}
