//! The fault lab in its short form: each scenario once, faults cut short.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::{Duration, Instant};

use farm_tests::harness::binary;
use farm_tests::lab::{
    Length, Plan, Run, SCENARIOS, Scenario, TOPOLOGIES, Table, Topology, grid, grid_markdown, missing,
    perform,
};

/// For one run the goals of the 95th percentile count, times this: a machine
/// that runs other things takes its time to wake a process.
const SLACK: f64 = 2.0;
/// Labs at once: they wait most of the time.
const JOBS: usize = 3;

#[test]
fn each_fault_heals_itself() {
    if let Some(reason) = missing() {
        eprintln!("SKIPPED: the fault lab can't work here: {reason}");
        return;
    }
    let scenarios = SCENARIOS.iter().filter(|scenario| scenario.run == Run::Always).collect();
    let start = Instant::now();
    heals(plan(scenarios, &TOPOLOGIES[0]));
    assert!(start.elapsed() < Duration::from_secs(360), "the short form has become too long");
}

#[test]
fn a_relayed_path_heals_with_its_relay() {
    if let Some(reason) = missing() {
        eprintln!("SKIPPED: the fault lab can't work here: {reason}");
        return;
    }
    let relayed = Topology::named("symmetric").unwrap();
    heals(plan(vec![Scenario::named("relay-down").unwrap()], relayed));
}

fn plan(scenarios: Vec<&'static Scenario>, topology: &'static Topology) -> Plan {
    Plan {
        scenarios,
        topologies: vec![topology],
        runs: 1,
        jobs: JOBS,
        length: Length::Short,
        seed: std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
    }
}

/// Does the plan, and fails where a goal is missed.
fn heals(plan: Plan) {
    let start = Instant::now();
    let mut table = Table::default();
    let mut wrong = Vec::new();
    perform(&plan, |result| match result {
        Ok(outcome) => {
            let misses = outcome.misses(SLACK);
            if !misses.is_empty() {
                println!("{} (seed {}): {}", outcome.scenario.name, outcome.seed, misses.join("; "));
                outcome.timeline.iter().for_each(|line| println!("  {line}"));
                wrong.push(outcome.scenario.name);
            }
            table.add(&outcome);
        }
        Err(failed) => {
            println!("{} could not be measured: {}", failed.scenario.name, failed.error);
            table.add_failed(failed.scenario, failed.topology);
            wrong.push(failed.scenario.name);
        }
    })
    .unwrap();
    println!("{}", table.markdown(SLACK));
    println!("{} scenarios in {:.0} s", plan.count(), start.elapsed().as_secs_f64());
    assert!(wrong.is_empty(), "these did not heal as they should: {}", wrong.join(", "));
}

#[test]
fn every_pair_of_routers_connects_by_its_way() {
    if let Some(reason) = missing() {
        eprintln!("SKIPPED: the fault lab can't work here: {reason}");
        return;
    }
    let cells = grid(JOBS).unwrap();
    println!("{}", grid_markdown(&cells, SLACK));
    assert_eq!(cells.len(), 16);
    let missed: Vec<_> = cells
        .iter()
        .map(|cell| (cell.name(), cell.misses(SLACK)))
        .filter(|(_, misses)| !misses.is_empty())
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn help_list_and_misuse() {
    let lab = |arguments: &[&str]| Command::new(binary("lab").unwrap()).args(arguments).output().unwrap();
    let help = lab(&["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--scenario"));
    let list = lab(&["--list"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for scenario in SCENARIOS {
        assert!(list.contains(scenario.name), "{} is missing in\n{list}", scenario.name);
    }
    for wrong in [&["--scenario", "explode"][..], &["--topology", "round"], &["--runs"], &["now"]] {
        let done = lab(wrong);
        assert_eq!(done.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&done.stderr).contains("lab --help"), "{wrong:?}");
    }
}
