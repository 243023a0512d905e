//! Every fault that can be injected heals by itself: the real programs on loopback.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Gate, SOON, Scene, connect, echo, echo_service, fails};
use farm_connect::{Client, Tunnel, pair};
use farm_tests::harness::farm::{GREENHOUSE, Layout, PATIENCE, Place, Service};
use farm_tests::harness::run;
use farm_tunnel::fault::Fault;
use nix::sys::signal::Signal;

/// Allows fault injection in the running agent.
fn allow(scene: &Scene) {
    let config = scene.dir().join("agent/farm-agent.toml");
    let mut file = std::fs::OpenOptions::new().append(true).open(config).unwrap();
    file.write_all(b"\n[debug]\nfault_injection = true\n").unwrap();
    let agent = scene.agent.daemon.process().unwrap();
    let mark = agent.mark();
    agent.signal(Signal::SIGHUP).unwrap();
    agent
        .wait_for_line_since(mark, "the config is taken", SOON, |l| l.text.contains("config was read again"))
        .unwrap();
}

fn inject(scene: &Scene, words: &[&str]) {
    let words = [&["debug", "fault"], words].concat();
    let mut command = scene.agent.control.command(words).unwrap();
    let done = run("farm-agent debug fault", &mut command, PATIENCE).unwrap();
    println!("{}", done.stdout.trim());
}

/// A farm with an echo service, a gate to each service, and a stream that must
/// outlive every fault.
struct Lasting {
    scene: Scene,
    gate: Gate,
    stream: TcpStream,
    _echo: Gate,
}

fn lasting(scenario: &'static str) -> Lasting {
    let scene = Scene::start(scenario);
    scene.add_services(vec![Service::tcp("echo", &echo_service().to_string())]);
    allow(&scene);
    let (gate, echo_gate) = (scene.forward(GREENHOUSE), scene.forward("echo"));
    gate.page();
    let mut stream = connect(echo_gate.address);
    echo(&mut stream, b"before").unwrap();
    Lasting { scene, gate, stream, _echo: echo_gate }
}

#[test]
fn it_is_refused_unless_the_config_allows_it() {
    let scene = Scene::start("a fault is asked for on a farm that does not allow it");
    let gate = scene.forward(GREENHOUSE);
    gate.page();
    let mut command = scene.agent.control.command(["debug", "fault", "crash"]).unwrap();
    let said = fails("farm-agent debug fault crash", &mut command, 1);
    assert!(said.contains("fault_injection = true"), "{said}");
    assert_eq!(scene.counter("faults_injected"), 0);
    gate.page();
    allow(&scene);
    for (words, part) in [
        (&["debug", "fault", "flood"][..], "blackhole"),
        (&["debug", "fault", "wedge", "nothing"], "broker link"),
        (&["debug", "fault", "blackhole", "--for", "9999"], "600"),
    ] {
        let said = fails("farm-agent debug fault", &mut scene.agent.control.command(words).unwrap(), 1);
        assert!(said.contains(part), "{words:?}: {said}");
    }
    let said = fails("debug", &mut scene.agent.control.command(["debug", "fault"]).unwrap(), 2);
    assert!(said.contains("KIND"), "{said}");
}

#[test]
fn each_fault_at_the_farm_heals_and_an_open_stream_outlives_it() {
    let mut lasting = lasting("each kind of fault at the agent, one after the other, with a stream open");
    let kinds = ["blackhole", "loss-out", "loss-in", "no-pongs", "close-carrier", "address-change"];
    for (count, kind) in kinds.into_iter().enumerate() {
        // Longer than a watched carrier lives without answers.
        inject(&lasting.scene, &[kind, "--for", "4"]);
        let start = Instant::now();
        echo(&mut lasting.stream, kind.as_bytes()).unwrap();
        let back = start.elapsed();
        lasting.gate.page();
        println!("{kind}: an echo after {:.2} s", back.as_secs_f64());
        // What it lasts, and then an attempt that was under way may fail first.
        assert!(back < Duration::from_secs(4 + 5), "{kind}: {back:?}");
        assert_eq!(lasting.scene.counter("faults_injected"), count as u64 + 1);
        // One fault at a time: data flows while pongs are lost.
        std::thread::sleep(Duration::from_secs(4).saturating_sub(start.elapsed()));
    }
    for (kind, state) in [("broker-lost", "online"), ("network-down", "online")] {
        inject(&lasting.scene, &[kind, "--for", "3"]);
        lasting.scene.status("the agent is away from its broker", SOON, |s| s["broker"]["state"] != state);
        let start = Instant::now();
        echo(&mut lasting.stream, kind.as_bytes()).unwrap();
        let back = start.elapsed();
        if kind == "broker-lost" {
            assert!(back < Duration::from_secs(1), "the tunnel needs no broker, but took {back:?}");
        }
        lasting.scene.status("the agent is back at its broker", Duration::from_secs(3 + 10), |s| {
            s["broker"]["state"] == state
        });
        println!(
            "{kind}: an echo after {:.2} s, at the broker after {:.2} s",
            back.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
    }
    lasting.gate.page();
}

#[test]
fn a_wedged_loop_is_named_and_goes_on_when_it_is_let_go() {
    // As systemd sets it for a unit with WatchdogSec=6: a round of questions is 2 s.
    let farm = Place::here().with("WATCHDOG_USEC", "6000000");
    let layout = Layout { farm, ..Layout::loopback().unwrap() };
    let scene = Scene::laid_out("each of the agent's loops hangs for a while", &layout);
    scene.phone.pair(&scene.agent.control.invite().unwrap()).unwrap();
    allow(&scene);
    let gate = scene.forward(GREENHOUSE);
    gate.page();
    let mut command = scene.agent.control.command(["debug", "fault", "wedge", "nothing"]).unwrap();
    let said = fails("farm-agent debug fault wedge nothing", &mut command, 1);
    let names: Vec<&str> = said.trim().rsplit_once(": ").unwrap().1.split(", ").collect();
    assert!(names.len() > 4, "{said}");
    // One that hangs is replaced by the farm's loop.
    for name in names.into_iter().filter(|name| *name != "carrier") {
        let agent = scene.agent.daemon.process().unwrap();
        let mark = agent.mark();
        // Three rounds.
        inject(&scene, &["wedge", name, "--for", "6"]);
        let line = agent.wait_for_line_since(mark, "the hung loop is named", SOON, |line| {
            line.text.contains("no progress") && line.text.contains(&format!("{name:?}"))
        });
        println!("{}", line.unwrap().text);
        scene.status("the agent answers again", SOON, |s| s["broker"]["state"] == "online");
        gate.page();
    }
}

#[test]
fn a_crashed_agent_is_found_again_by_whoever_restarts_it() {
    let mut scene = Scene::start("the agent aborts by itself");
    let gate = scene.forward(GREENHOUSE);
    gate.page();
    allow(&scene);
    inject(&scene, &["crash"]);
    let status = scene.agent.daemon.process().unwrap().wait(SOON).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGABRT as i32));
    scene.agent.daemon.start().unwrap();
    gate.page();
}

#[test]
fn each_fault_at_the_phone_heals() {
    let scene = Scene::unpaired("each kind of fault in a tunnel of the library");
    let client = Client::open(&scene.dir().join("twin")).unwrap();
    let link = scene.agent.control.invite().unwrap();
    smol::block_on(async {
        let farm = pair(&client, &link, None, "twin").await.unwrap();
        let tunnel = Tunnel::start(&client, &farm).unwrap();
        let _attention = tunnel.attend();
        assert!(tunnel.wait_live(SOON).await, "{:?}", tunnel.status().await);
        for fault in Fault::ALL {
            let lasting = Duration::from_secs(4);
            let before = tunnel.status().await.unwrap().carriers;
            tunnel.inject(fault, lasting).await;
            let start = Instant::now();
            let shown = async {
                loop {
                    let status = tunnel.status().await.unwrap();
                    let noticed = match fault {
                        Fault::BrokerLost => status.broker != "online" && status.state == "live",
                        _ => status.state != "live" || status.carriers > before,
                    };
                    if noticed {
                        return Some(status);
                    }
                    smol::Timer::after(Duration::from_millis(5)).await;
                }
            };
            let late = async {
                smol::Timer::after(SOON).await;
                None
            };
            let status = smol::future::or(shown, late).await;
            let status = status.unwrap_or_else(|| panic!("{fault} is never noticed"));
            let noticed = start.elapsed();
            smol::Timer::at(start + lasting).await;
            assert!(tunnel.wait_live(SOON).await, "{fault}: {:?}", tunnel.status().await);
            println!(
                "{fault}: noticed after {:.2} s ({:?}), live {:.2} s after its end",
                noticed.as_secs_f64(),
                status.failure,
                start.elapsed().saturating_sub(lasting).as_secs_f64()
            );
            assert!(noticed < Duration::from_secs(4), "{fault}: noticed after {noticed:?}");
            assert!(start.elapsed() < lasting + Duration::from_secs(6), "{fault}: {:?}", start.elapsed());
            let online = async {
                while tunnel.status().await.unwrap().broker != "online" {
                    smol::Timer::after(Duration::from_millis(5)).await;
                }
                true
            };
            let late = async {
                smol::Timer::after(SOON).await;
                false
            };
            assert!(smol::future::or(online, late).await, "{fault}: the broker is not found again");
        }
        tunnel.stop().await;
    });
}
