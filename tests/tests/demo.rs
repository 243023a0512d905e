//! The demo as a program: how it is called, and what it says when it can't work.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::process::{Command, ExitStatus};
use std::time::Duration;

use farm_tests::harness::{BIN_DIR, Process, binary, temp_dir};

/// Runs the demo to its end: its exit status and all it said.
fn demo(arguments: &[&str], programs: Option<&std::path::Path>) -> (ExitStatus, String) {
    let mut command = Command::new(binary("demo").unwrap());
    command.args(arguments);
    if let Some(dir) = programs {
        command.env(BIN_DIR, dir);
    }
    let process = Process::spawn("demo", &mut command).unwrap();
    let status = process.wait(Duration::from_secs(120)).unwrap();
    // Its end is also the end of its lines.
    let _ = process.wait_for_line("no such line", Duration::from_secs(20), |_| false);
    let lines = process.lines();
    (status, lines.into_iter().map(|line| line.text + "\n").collect())
}

#[test]
fn help_and_misuse() {
    let (status, said) = demo(&["--help"], None);
    assert!(status.success() && said.contains("--script"), "{said}");
    for wrong in [&["--script", "fetch,explode"][..], &["--script"], &["--fast"], &["fetch"]] {
        let (status, said) = demo(wrong, None);
        assert_eq!(status.code(), Some(2), "{wrong:?}");
        assert!(said.contains("demo --help"), "{wrong:?}: {said}");
    }
}

#[test]
fn without_the_programs_it_says_how_to_get_them() {
    let empty = temp_dir().unwrap();
    let (status, said) = demo(&["--script", "fetch,quit"], Some(empty.path()));
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("cargo build") && said.contains(BIN_DIR), "{said}");
}

/// Needs the other programs beside it: `cargo build --workspace` in the same profile.
#[test]
fn a_whole_farm_survives_what_the_demo_does_to_it() {
    // 100 MB are for optimised programs.
    let script = if cfg!(debug_assertions) {
        "fetch,cut,restore,broker,fetch,pair,address,quit"
    } else {
        "fetch,throughput,cut,restore,broker,fetch,pair,address,quit"
    };
    let (status, said) = demo(&["--loopback", "--script", script], None);
    assert!(status.success(), "{said}");
    for part in [
        "the phone noticed after",
        "power is back",
        "broker restarted",
        "pairing link: ",
        "not possible here",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
}
