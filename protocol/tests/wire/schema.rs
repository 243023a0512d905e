//! `schema.cddl` against the Rust types.

use std::collections::BTreeSet;
use std::fmt::Debug;

use cddl_cat::cbor::validate_cbor;
use cddl_cat::context::BasicContext;
use cddl_cat::flatten::flatten_from_str;
use cddl_cat::util::ValidateError;
use ciborium::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::Kind;
use crate::strategies;
use crate::vectors;

const SCHEMA: &str = include_str!("../../schema.cddl");

/// The schema, parsed.
pub(crate) struct Schema(BasicContext);

impl Schema {
    /// As a reader has to understand it: unknown fields and reasons included.
    pub(crate) fn read() -> Self {
        Self::parse(SCHEMA)
    }

    /// As it is sent: nothing unknown.
    pub(crate) fn sent() -> Self {
        let mut closed = SCHEMA.to_owned();
        for (open, shut) in [
            ("extensible = (* tstr => any)", "extensible = (? never: nil)"),
            ("future = tstr", "future = \"never\""),
        ] {
            assert!(closed.contains(&format!("\n{open}\n")), "no rule {open:?}");
            closed = closed.replace(open, shut);
        }
        Self::parse(&closed)
    }

    fn parse(schema: &str) -> Self {
        let rules = flatten_from_str(schema).unwrap_or_else(|e| panic!("schema.cddl: {e}"));
        Self(BasicContext::new(rules))
    }

    /// Whether `message` is one of the kind of that name.
    pub(crate) fn check(&self, kind: &str, message: &Value) -> Result<(), ValidateError> {
        let rule = &self.0.rules[&format!("{kind}-message")];
        match validate_cbor(rule, message, &self.0) {
            Err(e) if !matches!(e, ValidateError::Mismatch(_)) => panic!("schema.cddl: {e}"),
            result => result,
        }
    }
}

/// The right-hand side of a rule.
fn definition(rule: &str) -> &'static str {
    let start =
        SCHEMA.find(&format!("\n{rule} = ")).unwrap_or_else(|| panic!("no rule {rule}")) + rule.len() + 4;
    let text = &SCHEMA[start..];
    let end = text
        .match_indices('\n')
        .find(|(at, _)| !text[at + 1..].starts_with(' '))
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}

#[test]
fn every_rule_is_used() {
    let code: String = SCHEMA.lines().map(|line| line.split(';').next().unwrap().to_owned() + "\n").collect();
    let words: Vec<&str> =
        code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).collect();
    for line in code.lines().filter(|line| !line.starts_with([' ', '}'])) {
        let Some((name, _)) = line.split_once(" = ") else {
            continue;
        };
        let name = name.split('<').next().unwrap();
        let uses = words.iter().filter(|word| **word == name).count();
        assert!(uses > 1 || name == "message", "{name} is defined and not used");
    }
}

#[test]
fn the_reasons_are_those_of_the_code() {
    fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(rule: &str, reasons: &[T], other: &T) {
        let listed: Vec<&str> = definition(rule).split('"').skip(1).step_by(2).collect();
        let coded: Vec<String> = reasons
            .iter()
            .map(|reason| {
                let Value::Text(text) = Value::serialized(reason).unwrap() else {
                    panic!("{reason:?} is not a text")
                };
                text
            })
            .collect();
        assert_eq!(listed, coded, "{rule}");
        let distinct: BTreeSet<_> = coded.iter().collect();
        assert_eq!(distinct.len(), coded.len(), "{rule}");
        for (text, reason) in coded.iter().zip(reasons) {
            let read: T = Value::Text(text.clone()).deserialized().unwrap();
            assert_eq!(&read, reason);
        }
        let unknown: T = Value::Text("of a newer version".to_owned()).deserialized().unwrap();
        assert_eq!(&unknown, other, "{rule}");
        assert!(definition(rule).ends_with("\"other\" / future"), "{rule}");
    }
    use farm_protocol::broker::{RefusedReason, UndeliveredReason};
    use farm_protocol::control::{AbsenceReason, GoodbyeReason};
    use farm_protocol::frame::ResetReason;
    use farm_protocol::pairing::PairRefused;
    use farm_protocol::readings::{Clock, GapReason};
    use farm_protocol::signal::OfferRefused;
    same("refused-reason", &strategies::REFUSED, &RefusedReason::Other);
    same("undelivered-reason", &strategies::UNDELIVERED, &UndeliveredReason::Other);
    same("offer-refused-reason", &strategies::OFFER_REFUSED, &OfferRefused::Other);
    same("pair-refused-reason", &strategies::PAIR_REFUSED, &PairRefused::Other);
    same("absence-reason", &strategies::ABSENCE, &AbsenceReason::Other);
    same("goodbye-reason", &strategies::GOODBYE, &GoodbyeReason::Other);
    same("reset-reason", &strategies::RESET, &ResetReason::Other);
    same("gap-reason", &strategies::GAP, &GapReason::Other);
    same("reading-clock", &strategies::CLOCK, &Clock::Other);
}

/// Calls `visit` with every item below and including `value`, as a path of
/// positions (in arrays, and of entries in maps).
fn walk(value: &Value, path: &mut Vec<usize>, visit: &mut impl FnMut(&[usize], &Value)) {
    visit(path, value);
    let below: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Map(entries) => entries.iter().map(|(_, value)| value).collect(),
        _ => return,
    };
    // The rest of a long list is like its beginning.
    for (at, item) in below.into_iter().enumerate().take(12) {
        path.push(at);
        walk(item, path, visit);
        path.pop();
    }
}

fn at<'a>(value: &'a mut Value, path: &[usize]) -> &'a mut Value {
    path.iter().fold(value, |value, at| match value {
        Value::Array(items) => &mut items[*at],
        Value::Map(entries) => &mut entries[*at].1,
        _ => unreachable!("a path leads through arrays and maps"),
    })
}

/// What may stand in the place of `old`: every other kind of item, and the
/// same with one part less or more.
fn changes(old: &Value) -> Vec<Value> {
    let mut out = vec![
        Value::Bool(true),
        Value::Text("of a newer version".to_owned()),
        Value::from(-1),
        // One past the slots, and past each width.
        Value::from(8),
        Value::from(1u64 << 16),
        Value::from(1u64 << 32),
        Value::from(1u64 << 53),
        Value::from(u64::MAX),
        Value::Float(1.0),
        Value::Bytes(vec![0]),
        Value::Map(vec![(Value::Text("extra".to_owned()), Value::Null)]),
    ];
    match old {
        Value::Array(items) => {
            out.push(Value::Array([&items[..], &[Value::Bool(true)]].concat()));
            if !items.is_empty() {
                out.push(Value::Array(items[1..].to_vec()));
            }
        }
        Value::Map(entries) => {
            let extra = (Value::Text("extra".to_owned()), Value::from(1));
            out.push(Value::Map([&entries[..], &[extra]].concat()));
            for at in 0..entries.len() {
                let mut fewer = entries.clone();
                fewer.remove(at);
                out.push(Value::Map(fewer));
            }
        }
        _ => {}
    }
    out
}

/// Where the reader takes more than the schema allows: harmless, and not to
/// be leaned on.
fn is_lenient(kind: &str, original: &Value, path: &[usize], new: &Value) -> bool {
    let mut name = None;
    let mut whole = original.clone();
    for end in 1..=path.len() {
        if let Value::Map(entries) = at(&mut whole, &path[..end - 1]) {
            name = entries[path[end - 1]].0.as_text().map(str::to_owned);
        }
    }
    match name.as_deref() {
        // Verified before it is read, by another function.
        Some("body") => kind == "payload" && new.is_bytes(),
        // Nobody calculates with them.
        Some("time" | "since_seconds") => new.is_integer(),
        // The payload of a frame may be a text,
        Some("data") => new.is_text(),
        // a reason any number or a map to nothing, a text UTF-8 in a byte string.
        _ => at(&mut whole, path).is_text() && (new.is_integer() || new.is_map() || new.is_bytes()),
    }
}

/// Changes each valid message in each place, and asks both for their opinion.
#[test]
fn schema_and_reader_agree() {
    let mut asked = 0;
    let schema = Schema::read();
    for case in vectors::messages::cases() {
        let kind = Kind::named(case.kind);
        let original: Value = ciborium::from_reader(&case.bytes[..]).unwrap();
        walk(&original, &mut Vec::new(), &mut |path, old| {
            for new in changes(old) {
                let mut changed = original.clone();
                *at(&mut changed, path) = new.clone();
                let mut bytes = Vec::new();
                ciborium::into_writer(&changed, &mut bytes).unwrap();
                let read = (kind.rewrite)(&bytes);
                let fits = schema.check(case.kind, &changed);
                asked += 1;
                assert!(
                    read.is_ok() == fits.is_ok()
                        || read.is_ok() && is_lenient(case.kind, &original, path, &new),
                    "{} with {new:?} at {path:?}: read {read:?}, schema {fits:?}",
                    case.name
                );
            }
        });
    }
    assert!(asked > 5_000, "only {asked} changes were tried");
}

/// What docs/protocol.md says about forms that nobody should send.
#[test]
fn the_reader_is_lax_where_the_documentation_says() {
    for (what, kind, bytes) in [
        ("a tag", "ping", &b"\xd9\xd9\xf7\x82\x01\xa1\x64ping\xc1\x07"[..]),
        ("indefinite lengths", "to-broker", b"\x9f\x01\xa1\x65watch\xbf\x65farms\x9f\xff\xff\xff"),
        (
            "null for an absent field",
            "to-broker",
            b"\x82\x01\xa1\x69heartbeat\xa3\x61n\x00\x61e\x00\x61p\xf6",
        ),
        ("an array for a map", "from-broker", b"\x82\x01\xa1\x70heartbeat_answer\x81\x07"),
        ("bytes for text", "control", b"\x82\x01\xa1\x64farm\xa2\x64name\x41a\x68services\x80"),
        ("text for bytes", "frame", b"\x82\x01\xa1\x64data\x83\x01\x00\x61a"),
        ("a number for a reason", "frame", b"\x82\x01\xa1\x65reset\x82\x01\x00"),
        ("a map for a reason", "frame", b"\x82\x01\xa1\x65reset\x82\x01\xa1\x61x\xf6"),
    ] {
        let read = (Kind::named(kind).rewrite)(bytes);
        let again = read.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_ne!(again, bytes, "{what} is not how it is written");
    }
}
