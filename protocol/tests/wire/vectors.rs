//! The shared vectors, `protocol/vectors/*.json`: every implementation is
//! held to the same files.
//!
//! `UPDATE_VECTORS=1 cargo test -p farm-protocol --test wire` writes them
//! anew; without it they have to be what the code makes. What they claim is
//! built from the schema's words where it can be (values by hand, transcripts
//! by hand, hashes by `ring` alone), not from the code they check.

mod epochs;
mod fixtures;
mod identity;
mod invitations;
pub(crate) mod messages;
mod pairing;
mod refused;
mod signatures;
mod stun;
mod text;
mod tolerated;

use std::fs;
use std::path::{Path, PathBuf};

use ciborium::Value;
use serde_json::Value as Json;

use crate::message::Kind;
use crate::notation::{expand, json, unhex};
use crate::schema::Schema;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn generated() -> Vec<(&'static str, Json)> {
    vec![
        ("messages.json", messages::file()),
        ("tolerated.json", tolerated::file()),
        ("refused.json", refused::file()),
        ("epochs.json", epochs::file()),
        ("text.json", text::file()),
        ("identity.json", identity::file()),
        ("signatures.json", signatures::file()),
        ("pairing.json", pairing::file()),
        ("invitations.json", invitations::file()),
        ("stun.json", stun::file()),
    ]
}

/// A file as another implementation reads it: runs written out, then parsed.
fn stored(name: &str) -> Vec<Json> {
    let text = fs::read_to_string(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    match serde_json::from_str(&expand(&text)).unwrap_or_else(|e| panic!("{name}: {e}")) {
        Json::Array(cases) if !cases.is_empty() => cases,
        _ => panic!("{name} is not a list of cases"),
    }
}

fn field<'a>(case: &'a Json, name: &str) -> &'a str {
    case[name].as_str().unwrap_or_else(|| panic!("{name} of {case} is no text"))
}

#[test]
fn the_files_are_what_the_code_makes() {
    let update = std::env::var_os("UPDATE_VECTORS").is_some();
    for (name, cases) in generated() {
        let path = folder().join(name);
        let text = serde_json::to_string_pretty(&cases).unwrap() + "\n";
        if update {
            fs::write(&path, text).unwrap();
            continue;
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        if let Some((at, (is, should))) =
            (1..).zip(found.lines().zip(text.lines())).find(|(_, (a, b))| a != b)
        {
            panic!("{name}:{at} is {is:?}, the code makes {should:?}; is the wire meant to change?");
        }
        assert!(found == text, "{name} is missing or has another length");
    }
    let listed: Vec<&str> = generated().into_iter().map(|(name, _)| name).collect();
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || listed.contains(&&*name), "nothing makes vectors/{name}");
    }
}

#[test]
fn another_cbor_library_reads_every_message() {
    let schema = Schema::sent();
    for case in stored("messages.json") {
        let (name, bytes) = (field(&case, "name"), unhex(field(&case, "hex")));
        let mut rest = &bytes[..];
        let value: Value = ciborium::from_reader(&mut rest).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(rest.is_empty(), "{name}");
        assert_eq!(json(&value), case["value"], "{name}");
        let fits = schema.check(field(&case, "type"), &value);
        assert!(fits.is_ok(), "{name}: {fits:?}");
    }
}

#[test]
fn every_message_is_read_and_written_as_it_was() {
    for case in stored("messages.json") {
        let bytes = unhex(field(&case, "hex"));
        let again = (Kind::named(field(&case, "type")).rewrite)(&bytes)
            .unwrap_or_else(|e| panic!("{}: {e}", field(&case, "name")));
        assert_eq!(again, bytes, "{}", field(&case, "name"));
    }
}

#[test]
fn what_is_unknown_is_read_past() {
    for case in stored("tolerated.json") {
        let name = field(&case, "name");
        let again = (Kind::named(field(&case, "type")).rewrite)(&unhex(field(&case, "hex")))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let value: Value = ciborium::from_reader(&again[..]).unwrap();
        assert_eq!(json(&value), case["value"], "{name}");
    }
}

#[test]
fn what_must_be_refused_is() {
    for case in stored("refused.json") {
        let result = (Kind::named(field(&case, "type")).rewrite)(&unhex(field(&case, "hex")));
        assert!(result.is_err(), "{} was read", field(&case, "name"));
    }
}

#[test]
fn no_two_cases_share_a_name() {
    for (file, cases) in generated() {
        let mut names: Vec<&str> = cases.as_array().unwrap().iter().map(|case| field(case, "name")).collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            assert_ne!(pair[0], pair[1], "{file}");
        }
    }
}
