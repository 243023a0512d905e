//! Many devices at one broker, in a short form that shows that it works; `make
//! load` measures.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use farm_tests::harness::binary;

fn load(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary("load").unwrap()).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    (output.status.code(), said)
}

#[test]
fn all_devices_get_in_talk_and_come_back() {
    let _turn = common::turn();
    let (code, said) = load(&["--quick"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("all back after kill -9"), "{said}");
}

#[test]
fn help_and_misuse_of_load() {
    let (code, said) = load(&["--help"]);
    assert!(code == Some(0) && said.contains("--devices"), "{said}");
    let wrong: [&[&str]; 4] = [&["all"], &["--devices", "1"], &["--crew", "nobody"], &["--crew", "mqtt"]];
    for arguments in wrong {
        let (code, said) = load(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
    }
}
