//! The real broker under hostile traffic, in its short form: `make abuse` takes
//! longer, and judges latencies as well.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use farm_tests::harness::binary;

fn abuse(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary("abuse").unwrap()).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    (output.status.code(), said)
}

#[test]
fn the_broker_stands_it() {
    let _turn = common::turn();
    let (code, said) = abuse(&["--quick"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn help_list_and_misuse_of_abuse() {
    let (code, said) = abuse(&["--help"]);
    assert!(code == Some(0) && said.contains("--quick"), "{said}");
    let wrong: [&[&str]; 4] = [&["tls"], &["--each", "0"], &["--each", "1e9"], &["--attack", "frames"]];
    for arguments in wrong {
        let (code, said) = abuse(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
    }
    let (code, said) = abuse(&["--only", "nothing of that name"]);
    assert!(code == Some(1) && said.contains("no attack"), "{said}");
}
