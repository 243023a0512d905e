//! `messages.json`: every message, with optional fields and without, at its
//! smallest and at its largest.

mod broker;
mod carrier;
mod readings;
mod signals;

use farm_protocol::keys::Signature;
use serde_json::{Value as Json, json};

pub(super) use self::signals::{answer, offer};
use super::fixtures::count;
use crate::message::Message;
use crate::notation::hex;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) value: Json,
}

pub(super) fn file() -> Json {
    cases()
        .into_iter()
        .map(|case| {
            json!({
                "name": case.name,
                "type": case.kind,
                "hex": hex(&case.bytes),
                "value": case.value,
            })
        })
        .collect()
}

pub(crate) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    broker::to_broker(&mut out);
    broker::from_broker(&mut out);
    signals::signals(&mut out);
    signals::pairing(&mut out);
    carrier::control(&mut out);
    carrier::frames(&mut out);
    carrier::pings(&mut out);
    readings::readings(&mut out);
    out
}

/// The same message twice: as the code has it, and by hand.
fn add<T: Message>(out: &mut Vec<Case>, name: &str, message: T, body: Json) {
    out.push(Case {
        name: format!("{}: {name}", T::NAME),
        kind: T::NAME,
        bytes: message.write().unwrap(),
        value: json!([1, body]),
    });
}

/// One case for each reason, with its text.
fn reasons<T: Message, R: Copy + serde::Serialize>(
    out: &mut Vec<Case>,
    name: &str,
    all: &[R],
    make: impl Fn(R, &Json) -> (T, Json),
) {
    for reason in all {
        let text = serde_json::to_value(reason).unwrap();
        let (message, body) = make(*reason, &text);
        let name = format!("{name}, reason {}", text.as_str().unwrap());
        add(out, &name, message, body);
    }
}

fn signature(first: u8) -> Signature {
    Signature::from_bytes(count(first))
}
