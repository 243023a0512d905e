//! The event log and its report: the real programs on loopback.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{SOON, Scene};
use farm_tests::harness::farm::{FARM, PATIENCE, Place, cannot_reboot};
use farm_tests::harness::{Process, run, temp_dir, until};

#[test]
fn a_cut_is_in_the_phones_report_with_its_cause_and_its_duration() {
    let mut scene = Scene::start("the agent is killed for a few seconds while a phone watches");
    let watch = scene.phone.watch(FARM).unwrap();
    let mut command = scene.phone.command(["status", FARM, "--watch"]).unwrap();
    let people = Process::spawn("farm-connect status --watch", &mut command).unwrap();
    watch.wait("it is live", SOON, |s| s["state"] == "live").unwrap();
    people.wait_for_line("that it is live", SOON, |l| l.text.contains("live · direct")).unwrap();

    let cut = Instant::now();
    scene.agent.daemon.kill().unwrap();
    let seen = watch.wait("it is not", SOON, |s| s["state"] != "live").unwrap();
    println!("shown {} ms after the cut: {}", (seen.at - cut).as_millis(), seen.status["reason"]);
    let seen = watch.wait("the reason", SOON, |s| s["failure"] == "farm_offline").unwrap();
    assert!(seen.status["reason"].as_str().unwrap().contains("no power"), "{}", seen.status);
    assert_eq!(seen.status["strategy"], "wait_for_presence", "{}", seen.status);
    assert!(seen.status["doing"].is_string() && seen.status["broker"] == "online", "{}", seen.status);
    let line = people.wait_for_line("why", SOON, |l| l.text.contains("no power or no network there"));
    println!("{}", line.unwrap().text);

    let phone = || scene.phone.ask(["outages", FARM, "--json"]).unwrap();
    let (report, _) = until("the outage that goes on is in the report", SOON, || {
        Some(phone()).filter(|report| report["outages"][0]["ongoing"] == true)
    })
    .unwrap();
    assert_eq!(report["outages"][0]["cause"], "farm_offline", "{report}");

    until("the cut has lasted a while", SOON, || (cut.elapsed() > Duration::from_secs(4)).then_some(()))
        .unwrap();
    scene.agent.daemon.start().unwrap();
    watch.wait_for_new("it is live again", SOON, |s| s["state"] == "live").unwrap();
    let lasted = cut.elapsed().as_secs_f64();
    let (report, _) = until("the outage is over in the report", SOON, || {
        let report = scene.phone.ask(["outages", FARM, "--json"]).unwrap();
        Some(report).filter(|report| report["outages"][0]["ongoing"] == false)
    })
    .unwrap();
    let list = report["outages"].as_array().unwrap();
    assert_eq!(list.len(), 1, "{report}");
    assert_eq!(list[0]["cause"], "farm_offline", "{report}");
    assert_eq!(list[0]["trusted"], true, "the broker's clock is this one: {report}");
    // It begins when it is noticed: within 3 s while somebody looks.
    let seconds = list[0]["seconds"].as_f64().unwrap();
    assert!(seconds > lasted - 3.5 && seconds < lasted + 0.5, "{seconds} s of {lasted} s: {report}");
    let (day, month) = (&report["day"], &report["month"]);
    assert_eq!((day["outages"].as_u64(), month["outages"].as_u64()), (Some(1), Some(1)), "{report}");
    assert!(day["unobserved_seconds"].as_f64().unwrap() > 80_000.0, "{report}");
    let share = day["availability"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.0, "{report}");

    let mut command = scene.phone.command(["outages", FARM]).unwrap();
    let text = run("farm-connect outages", &mut command, PATIENCE).unwrap().stdout;
    println!("{text}");
    assert!(text.contains("no power or no network there") && text.contains("1 outage"), "{text}");
}

#[test]
fn the_farm_reports_the_time_without_its_broker_but_not_its_own_absence() {
    let mut scene = Scene::start("the broker is away for a while, then the agent is");
    scene.broker.daemon.kill().unwrap();
    scene.status("the agent notices", SOON, |s| s["broker"]["state"] != "online");
    // A start counts for nothing in its first 10 s.
    let agent = &scene.agent.control;
    until("it is an outage", SOON, || {
        let report = agent.ask(["outages", "--json"]).ok()?;
        (report["outages"][0]["cause"] == "broker_lost").then_some(())
    })
    .unwrap();
    scene.broker.daemon.start().unwrap();
    scene.status("the agent is back", SOON, |s| s["broker"]["state"] == "online");
    let report = scene.agent.control.ask(["outages", "--json"]).unwrap();
    assert_eq!(report["outages"][0]["ongoing"], false, "{report}");
    let before = report["day"]["outage_seconds"].as_f64().unwrap();
    // A stop in good order stores the log; the time until the start is nobody's.
    scene.agent.daemon.terminate().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    scene.agent.daemon.start().unwrap();
    scene.status("the agent is back", SOON, |s| s["broker"]["state"] == "online");
    let report = scene.agent.control.ask(["outages", "--json"]).unwrap();
    assert_eq!(report["outages"].as_array().unwrap().len(), 1, "{report}");
    let after = report["day"]["outage_seconds"].as_f64().unwrap();
    assert!((after - before).abs() < 0.01, "{before} s became {after} s: {report}");
    let text = run("farm-agent outages", &mut scene.agent.control.command(["outages"]).unwrap(), PATIENCE);
    println!("{}", text.unwrap().stdout);
}

#[test]
fn time_without_power_at_the_farm_is_not_counted_once_the_farm_says_so() {
    if let Some(reason) = cannot_reboot() {
        println!("SKIPPED: this machine can't play the start of another one: {reason}");
        return;
    }
    let mut scene = Scene::start("the farm's machine is off for a few seconds while a phone watches");
    let watch = scene.phone.watch(FARM).unwrap();
    watch.wait("it is live", SOON, |s| s["state"] == "live").unwrap();
    let cut = Instant::now();
    scene.agent.daemon.terminate().unwrap();
    watch.wait("it is not", SOON, |s| s["state"] != "live").unwrap();
    until("it was off for a while", SOON, || (cut.elapsed() > Duration::from_secs(5)).then_some(())).unwrap();
    let boot = temp_dir().unwrap();
    let boot = boot.path().join("boot_id");
    std::fs::write(&boot, "5f0c2f3e-1d5b-4c7a-9e41-2f9d8b6a7c10\n").unwrap();
    scene.agent.daemon.move_to(Place::here().rebooted(&boot));
    scene.agent.daemon.start().unwrap();
    watch.wait_for_new("it is live again", SOON, |s| s["state"] == "live").unwrap();
    let (report, _) = until("the farm's word is in the phone's report", SOON, || {
        let report = scene.phone.ask(["outages", FARM, "--json"]).unwrap();
        Some(report).filter(|report| report["outages"][0]["other_away"] == "no_power")
    })
    .unwrap();
    let (outage, day) = (&report["outages"][0], &report["day"]);
    let [all, away] = ["seconds", "other_away_seconds"].map(|field| outage[field].as_f64().unwrap());
    assert!(away >= 3.0 && away <= all, "{report}");
    assert!((day["outage_seconds"].as_f64().unwrap() - (all - away)).abs() < 0.01, "{report}");
    assert_eq!(day["other_away_seconds"], outage["other_away_seconds"], "{report}");
    let mut command = scene.phone.command(["outages", FARM]).unwrap();
    let text = run("farm-connect outages", &mut command, PATIENCE).unwrap().stdout;
    println!("{text}");
    assert!(text.contains("of it there was no power there"), "{text}");
    // The farm's own log knows it, and does not count it either.
    let own = scene.agent.control.ask(["outages", "--json"]).unwrap();
    assert!(own["day"]["no_power_seconds"].as_f64().unwrap() >= 3.0, "{own}");
    assert_eq!(own["day"]["outages"], 0, "{own}");
}
