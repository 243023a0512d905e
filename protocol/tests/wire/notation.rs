//! How vectors are written: JSON, with byte strings as `h'…'` and long runs
//! as `(1000*ab)` (see `vectors/README.md`).

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
            len => format!("({len}*{:02x})", run[0]),
        })
        .collect()
}

/// A byte string inside a value.
pub(crate) fn h(bytes: impl AsRef<[u8]>) -> String {
    format!("h'{}'", hex(bytes.as_ref()))
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(expand(text).as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

/// Writes every `(times*unit)` out.
pub(crate) fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('(') {
        let run = after.split_once(')').and_then(|(run, after)| {
            let (times, unit) = run.split_once('*')?;
            Some((unit.repeat(times.parse().ok()?), after))
        });
        out.push_str(before);
        match run {
            Some((run, after)) => {
                out.push_str(&run);
                rest = after;
            }
            None => {
                out.push('(');
                rest = after;
            }
        }
    }
    out + rest
}

/// The JSON form of a CBOR item; panics on what no message may contain.
pub(crate) fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(yes) => (*yes).into(),
        Value::Integer(number) => u64::try_from(*number).expect("no negative numbers").into(),
        Value::Float(number) => (*number).into(),
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

/// The other way: what [`json`] gives, as CBOR written by another library.
pub(crate) fn cbor(value: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(&item(value), &mut out).expect("a vector takes all");
    out
}

fn item(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (_, _, number) => Value::from(number.expect("a number is one of the three")),
        },
        Json::String(text) => match text.strip_prefix("h'").and_then(|t| t.strip_suffix('\'')) {
            Some(hex) => Value::Bytes(unhex(hex)),
            None => Value::Text(expand(text)),
        },
        Json::Array(items) => items.iter().map(item).collect::<Vec<_>>().into(),
        Json::Object(map) => {
            Value::Map(map.iter().map(|(key, value)| (Value::Text(key.clone()), item(value))).collect())
        }
    }
}

#[test]
fn runs_are_shortened_and_written_out_again() {
    let bytes = [vec![1, 2], vec![0xab; 65], vec![3; 64], vec![0; 1000]].concat();
    let short = hex(&bytes);
    assert_eq!(short, format!("0102(65*ab){}(1000*00)", "03".repeat(64)));
    assert_eq!(unhex(&short), bytes);
    assert_eq!(expand("a(2*bc)d(0*e)f(g) (RFC 1)"), "abcbcdf(g) (RFC 1)");
}
