//! How vectors are written: JSON, with byte strings as `h'…'` and long runs
//! as `(ab)*1000` (see `vectors/README.md`).

use ciborium::Value;
use data_encoding::HEXLOWER;
use serde_json::{Map, Value as Json};

/// A byte is written out up to this often in a row.
const RUN: usize = 64;

/// Bytes in hexadecimal, long runs of one byte shortened.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .chunk_by(|a, b| a == b)
        .map(|run| match run.len() {
            0..=RUN => HEXLOWER.encode(run),
            len => format!("({:02x})*{len}", run[0]),
        })
        .collect()
}

/// A byte string inside a value.
pub(crate) fn h(bytes: impl AsRef<[u8]>) -> String {
    format!("h'{}'", hex(bytes.as_ref()))
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER
        .decode(expand(text).as_bytes())
        .unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

/// Writes every `(unit)*times` out.
pub(crate) fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(")*") {
        let (before, unit) = before.rsplit_once('(').expect("a run begins with (");
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        out.push_str(before);
        out.push_str(&unit.repeat(after[..digits].parse().expect("a run has a length")));
        rest = &after[digits..];
    }
    out + rest
}

/// The JSON form of a CBOR item; panics on what no message may contain.
pub(crate) fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(yes) => (*yes).into(),
        Value::Integer(number) => u64::try_from(*number).expect("no negative numbers").into(),
        Value::Text(text) => text.as_str().into(),
        Value::Bytes(bytes) => format!("h'{}'", HEXLOWER.encode(bytes)).into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            let map: Map<String, Json> = entries
                .iter()
                .map(|(key, value)| (key.as_text().expect("keys are text").to_owned(), json(value)))
                .collect();
            assert_eq!(map.len(), entries.len(), "a key occurs twice in {entries:?}");
            map.into()
        }
        other => panic!("{other:?} has no place in a message"),
    }
}

#[test]
fn runs_are_shortened_and_written_out_again() {
    let bytes = [vec![1, 2], vec![0xab; 65], vec![3; 64], vec![0; 1000]].concat();
    let short = hex(&bytes);
    assert!(short.starts_with("0102(ab)*65") && short.ends_with("03(00)*1000"));
    assert_eq!(unhex(&short), bytes);
    assert_eq!(expand("a(bc)*2d(e)*0f"), "abcbcdf");
}
