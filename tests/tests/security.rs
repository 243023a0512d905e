//! docs/security.md names tests and limits: they exist, and none is missing.
#![forbid(unsafe_code)]
// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use farm_broker::core::counters::Counters;
use farm_tests::harness::binary;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows of the table under a heading, each as its cells.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let after = document.split(heading).nth(1).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let rows =
        after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.skip(2).map(cells).collect()
}

/// What stands in `code` in a cell.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn sources(dir: &Path, all: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && !["target", "node_modules", ".git"].contains(&&*name) {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

fn security() -> String {
    std::fs::read_to_string(root().join("docs/security.md")).unwrap()
}

#[test]
fn every_test_in_the_threat_model_exists() {
    let mut all = String::new();
    sources(&root(), &mut all);
    let output = Command::new(binary("abuse").unwrap()).arg("--list").output().unwrap();
    let attacks = String::from_utf8(output.stdout).unwrap();
    let attacks: BTreeSet<&str> = attacks.lines().collect();
    let rows = table(&security(), "## Threats");
    assert!(rows.len() > 20, "{rows:?}");
    let mut shown = BTreeSet::new();
    for row in &rows {
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(code(&row[3]).next().is_some(), "nothing shows it: {row:?}");
        for name in code(&row[3]) {
            match name.strip_prefix("abuse ") {
                Some(attack) => {
                    assert!(attacks.contains(attack), "there is no attack {attack:?}: {attacks:?}");
                    shown.insert(attack.to_owned());
                }
                None => assert!(all.contains(&format!("fn {name}(")), "there is no test {name:?}"),
            }
        }
    }
    let missing: Vec<_> = attacks.iter().filter(|attack| !shown.contains(**attack)).collect();
    assert!(missing.is_empty(), "attacks that no threat names: {missing:?}");
}

#[test]
fn every_limit_is_documented_with_its_counter() {
    let rows = table(&security(), "## Limits of the broker");
    let source = std::fs::read_to_string(root().join("broker/src/core/limits.rs")).unwrap();
    let body = source.split("pub struct Limits {").nth(1).unwrap().split("\n}").next().unwrap();
    let fields: Vec<&str> =
        body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next()).collect();
    assert!(fields.len() > 20, "{fields:?}");
    let documented: BTreeSet<&str> = rows.iter().flat_map(|row| code(&row[0])).collect();
    for field in &fields {
        assert!(documented.contains(field), "{field} is not in docs/security.md");
    }
    for name in &documented {
        assert!(fields.contains(name), "{name} is no limit any more");
    }
    let counters: BTreeSet<&str> = Counters::default().iter().map(|(name, _)| name).collect();
    let counted: BTreeSet<&str> = rows.iter().flat_map(|row| code(&row[3])).collect();
    for name in &counted {
        assert!(counters.contains(name), "there is no counter {name}");
    }
    // The relay has a section of its own; sizes are part of the wire.
    let document = security();
    let relay = document.split("## The relay").nth(1).unwrap().split("\n## ").next().unwrap();
    let relay: BTreeSet<&str> = code(relay).collect();
    let elsewhere = ["limit_signal_size", "limit_access"];
    for name in counters.iter().filter(|name| name.starts_with("limit_") && !elsewhere.contains(name)) {
        let section = if name.starts_with("limit_relay_") { &relay } else { &counted };
        assert!(section.contains(name), "{name} is not in docs/security.md");
    }
}
