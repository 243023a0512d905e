//! `refused.json`: what every reader has to refuse.

use ciborium::Value;
use farm_protocol::codec::MAX_MESSAGE;
use serde_json::{Value as Json, json};

use super::fixtures::*;
use super::messages;
use crate::message::KINDS;
use crate::notation::{cbor, h, hex};

pub(super) fn file() -> Json {
    let mut out = Cases(Vec::new());
    envelopes(&mut out);
    to_broker(&mut out);
    from_broker(&mut out);
    signals(&mut out);
    control(&mut out);
    frames(&mut out);
    readings(&mut out);
    forms(&mut out);
    sizes(&mut out);
    out.0.into()
}

struct Cases(Vec<Json>);

impl Cases {
    fn bytes(&mut self, kind: &str, name: &str, bytes: &[u8]) {
        self.0.push(json!({
            "name": format!("{kind}: {name}"),
            "type": kind,
            "hex": hex(bytes),
        }));
    }

    fn body(&mut self, kind: &str, name: &str, body: &Json) {
        self.bytes(kind, name, &cbor(&json!([1, body])));
    }

    /// `good` with `field` (a JSON pointer) set to each of `values`.
    fn changed(&mut self, kind: &str, good: &Json, field: &str, values: &[(&str, Json)]) {
        for (what, value) in values {
            let mut bad = good.clone();
            let (parent, last) = field.rsplit_once('/').unwrap();
            let parent = bad.pointer_mut(parent).expect("the field's parent is there");
            match parent {
                Json::Object(map) => drop(map.insert(last.to_owned(), value.clone())),
                other => other[last.parse::<usize>().unwrap()] = value.clone(),
            }
            let name = field[1..].replace('/', ".");
            self.body(kind, &format!("{name}, {what}"), &bad);
        }
    }

    fn without(&mut self, kind: &str, good: &Json, field: &str) {
        let mut bad = good.clone();
        let (parent, last) = field.rsplit_once('/').unwrap();
        bad.pointer_mut(parent)
            .and_then(Json::as_object_mut)
            .and_then(|map| map.remove(last))
            .expect("the field is there");
        let name = field[1..].replace('/', ".");
        self.body(kind, &format!("{name}, missing"), &bad);
    }
}

/// What is wrong with bytes of another length.
fn lengths(right: usize) -> Vec<(&'static str, Json)> {
    vec![
        ("a byte short", h(vec![7; right - 1]).into()),
        ("a byte long", h(vec![7; right + 1]).into()),
        ("no bytes but text", "7".repeat(right).into()),
        ("an array of numbers", vec![7; right].into()),
    ]
}

fn epochs() -> Vec<(&'static str, Json)> {
    vec![
        ("2^53", (MOST + 1).into()),
        ("2^64 - 1", u64::MAX.into()),
        ("negative", (-1).into()),
        ("a float", 1.5.into()),
        ("text", "1".into()),
    ]
}

fn extra() -> [(&'static str, Json); 1] {
    [("an unknown field where something is signed", json!(1))]
}

/// What holds for every kind of message.
fn envelopes(out: &mut Cases) {
    let all = messages::cases();
    for kind in KINDS {
        let good = all.iter().find(|case| case.kind == kind.name).unwrap();
        let body = &good.value[1];
        let name = kind.name;
        out.bytes(name, "nothing", &[]);
        out.bytes(name, "truncated", &good.bytes[..good.bytes.len() - 1]);
        out.bytes(name, "a byte after the message", &[&good.bytes[..], &[0]].concat());
        out.bytes(name, "the message twice", &good.bytes.repeat(2));
        for (what, envelope) in [
            ("version 0", json!([0, body])),
            ("version 2", json!([2, body])),
            ("version 257", json!([257, body])),
            ("version as text", json!(["1", body])),
            ("no version", body.clone()),
            ("no body", json!([1])),
            ("two bodies", json!([1, body, body])),
            ("body null", json!([1, null])),
            ("envelope as a map", json!({"1": body})),
            ("a message of a newer version", json!([1, {"future": {}}])),
            ("a message of a newer version, as text", json!([1, "future"])),
        ] {
            out.bytes(name, what, &cbor(&envelope));
        }
        if let Json::Object(map) = body
            && map.len() == 1
        {
            let mut two = map.clone();
            two.insert("zzz".to_owned(), json!({}));
            out.body(name, "two messages in one", &two.into());
            let (variant, content) = map.iter().next().unwrap();
            out.body(name, "an array for the message's map", &json!([variant, content]));
        }
    }
}

fn to_broker(out: &mut Cases) {
    const KIND: &str = "to-broker";
    let all = messages::cases();
    let good = |name: &str| {
        all.iter()
            .find(|case| case.name == format!("{KIND}: {name}"))
            .unwrap_or_else(|| panic!("no case {name}"))
            .value[1]
            .clone()
    };
    let authenticate = good("authenticate, a phone");
    for (field, len) in [("key", 32), ("boot", 16), ("signature", 64)] {
        let field = format!("/authenticate/{field}");
        out.changed(KIND, &authenticate, &field, &lengths(len));
        out.without(KIND, &authenticate, &field);
    }
    out.changed(KIND, &authenticate, "/authenticate/extra", &extra());
    out.changed(KIND, &authenticate, "/authenticate/epoch", &epochs());
    out.changed(
        KIND,
        &authenticate,
        "/authenticate/slot",
        &[("8", json!(8)), ("256", json!(256)), ("-1", json!(-1)), ("null", json!(null))],
    );
    out.changed(
        KIND,
        &authenticate,
        "/authenticate/role",
        &[("unknown", json!("broker")), ("in capitals", json!("Farm")), ("true", json!(true))],
    );
    let heartbeat = good("heartbeat");
    out.changed(KIND, &heartbeat, "/heartbeat/n", &[("2^32", json!(1u64 << 32))]);
    out.changed(KIND, &heartbeat, "/heartbeat/e", &epochs());
    out.without(KIND, &heartbeat, "/heartbeat/e");
    let signal = good("signal to a phone");
    out.changed(KIND, &signal, "/signal/peer/phone/phone", &lengths(20));
    out.changed(KIND, &signal, "/signal/peer/phone/slot", &[("8", json!(8))]);
    out.changed(KIND, &signal, "/signal/peer/phone/extra", &extra());
    out.changed(
        KIND,
        &signal,
        "/signal/peer",
        &[("of an unknown kind", json!({"broker": "h'00'"})), ("text", json!("farm"))],
    );
    out.changed(KIND, &signal, "/signal/payload", &[("text", json!("a")), ("an array", json!([1, 2]))]);
    let access = good("access");
    out.changed(KIND, &access, "/access/phones/1", &lengths(20));
    out.changed(KIND, &access, "/access/invitations/0", &lengths(16));
    out.changed(KIND, &access, "/access/phones", &[("null", json!(null))]);
}

fn from_broker(out: &mut Cases) {
    const KIND: &str = "from-broker";
    let challenge = json!({"challenge": {"nonce": h(count::<16>(0x10))}});
    out.changed(KIND, &challenge, "/challenge/nonce", &lengths(16));
    let refused = json!({"refused": {"reason": "stale_epoch"}});
    out.changed(KIND, &refused, "/refused/newest", &epochs());
    out.changed(KIND, &refused, "/refused/reason", &[("a map", json!({"limit": {}}))]);
    let welcome =
        json!({"welcome": {"observed": "192.0.2.7:1", "heartbeat_seconds": 60, "stun_port": 1, "time": 5}});
    for field in ["heartbeat_seconds", "stun_port"] {
        let field = format!("/welcome/{field}");
        out.changed(KIND, &welcome, &field, &[("2^16", json!(1 << 16))]);
    }
    out.changed(KIND, &welcome, "/welcome/time", &[("negative", json!(-1)), ("a float", json!(5.5))]);
    out.without(KIND, &welcome, "/welcome/time");
    relay(out);
}

fn relay(out: &mut Cases) {
    const KIND: &str = "from-broker";
    let answer = json!({"heartbeat_answer": {"n": 1, "relay": {
        "host": "turn.example.org", "udp": 3478, "tcp": 3478, "tls": 443,
        "username": "1:a", "credential": "b", "seconds": 60,
    }}});
    let field = |name: &str| format!("/heartbeat_answer/relay/{name}");
    for port in ["udp", "tcp", "tls"] {
        out.changed(KIND, &answer, &field(port), &[("2^16", json!(1 << 16)), ("text", json!("443"))]);
    }
    for (text, most) in [("host", 253), ("username", 128), ("credential", 128)] {
        let long = "x".repeat(most + 1);
        out.changed(KIND, &answer, &field(text), &[("empty", json!("")), ("too long", json!(long))]);
    }
    for required in ["username", "credential", "seconds"] {
        out.without(KIND, &answer, &field(required));
    }
    out.changed(KIND, &answer, &field("seconds"), &[("2^32", json!(1u64 << 32)), ("negative", json!(-1))]);
}

fn signals(out: &mut Cases) {
    let all = messages::cases();
    let good = |kind: &str, name: &str| {
        all.iter()
            .find(|case| case.name == format!("{kind}: {name}"))
            .unwrap_or_else(|| panic!("no case {name}"))
            .value[1]
            .clone()
    };
    let offer = good("peer-signal", "offer");
    for (field, len) in [
        ("/farm", 20),
        ("/session/phone", 20),
        ("/content/offer/nonce", 16),
        ("/content/offer/phone_boot", 16),
        ("/content/offer/farm_boot", 16),
    ] {
        out.changed("peer-signal", &offer, field, &lengths(len));
        out.without("peer-signal", &offer, field);
    }
    for field in ["/extra", "/session/extra", "/content/offer/extra"] {
        out.changed("peer-signal", &offer, field, &extra());
    }
    out.changed("peer-signal", &offer, "/epoch", &epochs());
    out.changed("peer-signal", &offer, "/session/slot", &[("8", json!(8))]);
    out.changed(
        "peer-signal",
        &offer,
        "/content",
        &[
            ("of an unknown kind", json!({"future": {}})),
            ("goodbye as text", json!("goodbye")),
            ("goodbye with a field", json!({"goodbye": {"reason": "stopping"}})),
        ],
    );
    for kind in ["answer", "candidate", "refused, reason limit"] {
        let signal = good("peer-signal", kind);
        let field = format!("/content/{}/extra", kind.split(',').next().unwrap());
        out.changed("peer-signal", &signal, &field, &extra());
    }

    let signed = good("payload", "signed");
    out.changed("payload", &signed, "/signed/extra", &extra());
    out.changed("payload", &signed, "/signed/signature", &lengths(64));
    out.changed("payload", &signed, "/signed/body", &[("not wrapped in bytes", offer), ("text", json!("a"))]);
    let request = good("payload", "pair_request");
    for (field, len) in [("invitation", 16), ("phone", 32), ("nonce", 16), ("mac", 32)] {
        let field = format!("/pair_request/{field}");
        out.changed("payload", &request, &field, &lengths(len));
        out.without("payload", &request, &field);
    }
    out.changed("payload", &request, "/pair_request/slot", &[("8", json!(8))]);
    out.changed("payload", &request, "/pair_request/extra", &extra());
    let accepted = good("payload", "pair_answer, accepted");
    for (field, len) in [("farm", 32), ("farm_nonce", 16), ("nonce", 16), ("mac", 32), ("signature", 64)] {
        let field = format!("/pair_answer/accepted/{field}");
        out.changed("payload", &accepted, &field, &lengths(len));
        out.without("payload", &accepted, &field);
    }
    out.changed("payload", &accepted, "/pair_answer/accepted/extra", &extra());
    let refused = good("payload", "pair_answer, refused, reason used");
    out.changed("payload", &refused, "/pair_answer/refused/extra", &extra());
}

fn control(out: &mut Cases) {
    const KIND: &str = "control";
    let hello = json!({"hello": {
        "session": {"phone": h(phone_id().as_bytes()), "slot": 0},
        "epoch": EPOCH,
        "boot": h(count::<16>(0xa0)),
        "streams": [{"s": 1, "r": 2, "c": 3}],
        "watched": false,
    }});
    out.changed(KIND, &hello, "/hello/boot", &lengths(16));
    out.changed(KIND, &hello, "/hello/epoch", &epochs());
    out.changed(KIND, &hello, "/hello/session/slot", &[("8", json!(8))]);
    out.changed(KIND, &hello, "/hello/session/extra", &extra());
    out.changed(KIND, &hello, "/hello/streams/0/s", &[("2^32", json!(1u64 << 32))]);
    for field in ["r", "c"] {
        let field = format!("/hello/streams/0/{field}");
        out.changed(KIND, &hello, &field, &epochs());
        out.without(KIND, &hello, &field);
    }
    out.changed(KIND, &hello, "/hello/watched", &[("a number", json!(1)), ("null", json!(null))]);
    let farm = json!({"farm": {"name": "a", "services": [{"name": "b", "kind": "tcp"}]}});
    out.changed(KIND, &farm, "/farm/services/0/kind", &[("unknown", json!("udp"))]);
    out.without(KIND, &farm, "/farm/services/0/name");
}

fn frames(out: &mut Cases) {
    const KIND: &str = "frame";
    for (name, body) in [
        ("open, empty target", json!({"open": [1, "", 0]})),
        ("open, target of 65 bytes", json!({"open": [1, "a".repeat(65), 0]})),
        ("open, credit 2^53", json!({"open": [1, "a", MOST + 1]})),
        ("open, no credit", json!({"open": [1, "a"]})),
        ("open, one item too many", json!({"open": [1, "a", 0, 0]})),
        ("data, empty", json!({"data": [1, 0, "h''"]})),
        ("data, 61441 bytes", json!({"data": [1, 0, "h'(61441*00)'"]})),
        ("data, offset 2^53", json!({"data": [1, MOST + 1, "h'00'"]})),
        ("data, past the last offset", json!({"data": [1, MOST, "h'00'"]})),
        ("data, offset 2^64 - 1, sum overflows", json!({"data": [1, u64::MAX, "h'0000'"]})),
        ("data, as a map", json!({"data": {"stream": 1, "offset": 0, "bytes": "h'00'"}})),
        ("data, stream 2^32", json!({"data": [1u64 << 32, 0, "h'00'"]})),
        ("data, offset negative", json!({"data": [1, -1, "h'00'"]})),
        ("ack, received 2^53", json!({"ack": [1, MOST + 1, 0]})),
        ("ack, credit 2^53", json!({"ack": [1, 0, MOST + 1]})),
        ("fin, no offset left for the end", json!({"fin": [1, MOST]})),
        ("fin, not in an array", json!({"fin": 1})),
        ("reset, no reason", json!({"reset": [1]})),
        ("reset, reason null", json!({"reset": [1, null]})),
    ] {
        out.body(KIND, name, &body);
    }
    for (name, body) in [
        ("2^32", json!({"ping": 1u64 << 32})),
        ("null", json!({"ping": null})),
        ("in an array", json!({"ping": [1]})),
        ("as text", json!("ping")),
    ] {
        out.body("ping", name, &body);
    }
}

fn readings(out: &mut Cases) {
    const ASKED: &str = "readings-request";
    let follow = json!({"follow": {"after": 0, "live": true}});
    out.changed(ASKED, &follow, "/follow/after", &epochs());
    out.changed(ASKED, &follow, "/follow/live", &[("a number", json!(1)), ("null", json!(null))]);
    out.without(ASKED, &follow, "/follow/after");
    out.without(ASKED, &follow, "/follow/live");

    const KIND: &str = "readings-answer";
    let readings =
        json!({"readings": [{"n": 1, "t": 5, "c": "set", "name": "x", "value": 0.5, "unit": "%"}]});
    for field in ["n", "t", "c", "name", "value"] {
        out.without(KIND, &readings, &format!("/readings/0/{field}"));
    }
    out.changed(KIND, &readings, "/readings/0/n", &epochs());
    out.changed(KIND, &readings, "/readings/0/t", &epochs());
    out.changed(
        KIND,
        &readings,
        "/readings/0/name",
        &[
            ("empty", json!("")),
            ("65 bytes", "x".repeat(65).into()),
            ("33 characters of 2 bytes", "я".repeat(33).into()),
            ("a control character", json!("a\u{1b}[2J")),
            ("a line end", json!("a\nb")),
            ("a mark that turns the writing", json!("a\u{202e}b")),
            ("a blank first", json!(" a")),
            ("a blank last", json!("a ")),
            ("two blanks", json!("a  b")),
        ],
    );
    out.changed(
        KIND,
        &readings,
        "/readings/0/unit",
        &[("empty", json!("")), ("17 bytes", "u".repeat(17).into()), ("a blank", json!("k m"))],
    );
    out.changed(KIND, &readings, "/readings/0/value", &[("text", json!("1")), ("null", json!(null))]);
    for (what, bits) in [("NaN", "7e00"), ("infinity", "7c00"), ("minus infinity", "fc00")] {
        let good = cbor(&readings);
        let at = good.windows(3).position(|three| three == [0xf9, 0x38, 0x00]).expect("0.5 in two bytes");
        let mut bad = [&[0x82, 1][..], &good].concat();
        bad[at + 3..at + 5].copy_from_slice(&crate::notation::unhex(bits));
        out.bytes(KIND, &format!("readings.0.value, {what}"), &bad);
    }
    let many = vec![readings["readings"][0].clone(); 257];
    out.changed(KIND, &readings, "/readings", &[("none", json!([])), ("257 of them", many.into())]);
    let gap = json!({"gap": {"first": 1, "last": 2, "reason": "pruned"}});
    for field in ["first", "last"] {
        out.changed(KIND, &gap, &format!("/gap/{field}"), &epochs());
        out.without(KIND, &gap, &format!("/gap/{field}"));
    }
    for kind in ["caught_up", "behind"] {
        let message = json!({kind: {"newest": 1}});
        out.changed(KIND, &message, &format!("/{kind}/newest"), &epochs());
        out.without(KIND, &message, &format!("/{kind}/newest"));
    }
}

/// CBOR that is malformed, or has forms that no message uses.
fn forms(out: &mut Cases) {
    let map = |entries: Vec<(Value, Value)>| Value::Map(entries);
    let text = |text: &str| Value::Text(text.to_owned());
    let message = |body: Value| {
        let mut bytes = Vec::new();
        ciborium::into_writer(&Value::Array(vec![Value::from(1), body]), &mut bytes).unwrap();
        bytes
    };
    let field = |entries| message(map(vec![(text("retry_after"), map(entries))]));
    let milliseconds = || (text("milliseconds"), Value::from(7));
    for (name, bytes) in [
        ("a field twice", field(vec![milliseconds(), milliseconds()])),
        ("a number for a field's name", field(vec![(Value::from(0), Value::from(7))])),
        (
            "bytes in the place of text",
            message(map(vec![(Value::Bytes(b"retry_after".to_vec()), text("a"))])),
        ),
        (
            "invalid UTF-8",
            b"\x82\x01\xa1\x67welcome\xa3\x68observed\x62\xc3\x28\x71heartbeat_seconds\x01\x64time\x01"
                .to_vec(),
        ),
        ("a reserved head", b"\x82\x01\xa1\x6bretry_after\xa1\x6cmilliseconds\x1c".to_vec()),
        ("a break with nothing to end", b"\x82\x01\xa1\x6bretry_after\xa1\x6cmilliseconds\xff".to_vec()),
        ("undefined", b"\x82\x01\xa1\x6bretry_after\xa1\x6cmilliseconds\xf7".to_vec()),
        (
            "more entries promised than there are",
            b"\x82\x01\xa1\x6bretry_after\xa2\x6cmilliseconds\x07".to_vec(),
        ),
    ] {
        out.bytes("from-broker", name, &bytes);
    }
    for (what, head) in [("byte string", 0x5b), ("text", 0x7b), ("array", 0x9b), ("map", 0xbb)] {
        for (size, len) in [("2^40", 1u64 << 40), ("2^64 - 1", u64::MAX)] {
            let claim = [&[head][..], &len.to_be_bytes()].concat();
            let name = format!("a {what} that claims a length of {size}");
            out.bytes("payload", &name, &[b"\x82\x01", &claim[..]].concat());
            let inside = [b"\x82\x01\xa1\x64data\x83\x01\x00", &claim[..], b"\0\0"].concat();
            out.bytes("frame", &name, &inside);
        }
    }
}

fn sizes(out: &mut Cases) {
    for kind in KINDS {
        let nested = [&b"\x82\x01"[..], &vec![0x81; 60_000], b"\0"].concat();
        out.bytes(kind.name, "arrays nested 60000 deep", &nested);
    }
    let nested =
        [b"\x82\x01\xa1\x6bretry_after\xa2\x6cmilliseconds\x07\x65extra", &vec![0x81; 60_000][..], b"\0"]
            .concat();
    out.bytes("from-broker", "an unknown field nested 60000 deep", &nested);
    // Right in every other way: the payload fills the message to the limit,
    // then one byte more.
    let shape = |payload: usize| {
        cbor(&json!([1, {"signal": {
            "peer": {"farm": h(farm_id().as_bytes())},
            "payload": format!("h'({payload}*ab)'"),
        }}]))
    };
    let fits = MAX_MESSAGE - (shape(60_000).len() - 60_000);
    assert_eq!(shape(fits).len(), MAX_MESSAGE);
    out.bytes("to-broker", "65537 bytes", &shape(fits + 1));
}
