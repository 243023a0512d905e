//! The benchmarks as a program: how it is called, and what it says when it
//! can't work.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use farm_tests::harness::{BIN_DIR, binary, temp_dir};

fn bench(arguments: &[&str], programs: Option<&std::path::Path>) -> (Output, String) {
    let mut command = Command::new(binary("bench").unwrap());
    command.args(arguments);
    if let Some(dir) = programs {
        command.env(BIN_DIR, dir);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    (output, said)
}

#[test]
fn help_and_misuse() {
    let (output, said) = bench(&["--help"], None);
    assert!(output.status.success() && said.contains("--quick"), "{said}");
    let wrong: [&[&str]; 6] = [
        &["--fast"],
        &["throughput"],
        &["--cycles", "0"],
        &["--cycles", "x"],
        &["--json"],
        &["--quick", "--full"],
    ];
    for arguments in wrong {
        let (output, said) = bench(arguments, None);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(said.contains("bench --help"), "{arguments:?}: {said}");
    }
}

#[test]
fn without_the_programs_it_says_how_to_get_them() {
    let empty = temp_dir().unwrap();
    let (output, said) = bench(&["--quick"], Some(empty.path()));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cargo build") && output.stdout.is_empty(), "{said}");
}
