//! The fault lab in its short form: each scenario once, faults cut short.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::{Duration, Instant};

use farm_tests::harness::binary;
use farm_tests::lab::{Length, Plan, Run, SCENARIOS, TOPOLOGIES, Table, missing, perform};

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
    let plan = Plan {
        scenarios,
        topologies: vec![&TOPOLOGIES[0]],
        runs: 1,
        jobs: JOBS,
        length: Length::Short,
        seed: std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
    };
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
    assert!(start.elapsed() < Duration::from_secs(360), "the short form has become too long");
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
    for wrong in [&["--scenario", "explode"][..], &["--topology", "symmetric"], &["--runs"], &["now"]] {
        let done = lab(wrong);
        assert_eq!(done.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&done.stderr).contains("lab --help"), "{wrong:?}");
    }
}
