//! `tolerated.json`: what a newer version may add, and what is left of it
//! when it is read.

use serde_json::{Value as Json, json};

use super::fixtures::*;
use crate::notation::{cbor, h, hex};

pub(super) fn file() -> Json {
    let mut out = Vec::new();
    let mut add = |kind: &str, name: &str, sent: Json, read: Json| {
        out.push(json!({
            "name": format!("{kind}: {name}"),
            "type": kind,
            "hex": hex(&cbor(&json!([1, sent]))),
            "value": [1, read],
        }));
    };
    let farm = h(farm_id().as_bytes());
    let nonce = h(count::<16>(0x40));
    let session = json!({"phone": h(phone_id().as_bytes()), "slot": 1});
    add(
        "to-broker",
        "fields in another order",
        json!({"heartbeat": {"e": EPOCH, "n": 7}}),
        json!({"heartbeat": {"n": 7, "e": EPOCH}}),
    );
    add(
        "to-broker",
        "an unknown field in heartbeat",
        json!({"heartbeat": {"n": 7, "e": EPOCH, "future": {"a": [1, "h'00'", null, -1]}}}),
        json!({"heartbeat": {"n": 7, "e": EPOCH}}),
    );
    add(
        "from-broker",
        "an unknown field in welcome",
        json!({"welcome": {"observed": "192.0.2.7:1", "heartbeat_seconds": 60, "time": 5, "turn": ["a"]}}),
        json!({"welcome": {"observed": "192.0.2.7:1", "heartbeat_seconds": 60, "time": 5}}),
    );
    add(
        "from-broker",
        "an unknown field in challenge",
        json!({"challenge": {"nonce": nonce, "future": 1.5}}),
        json!({"challenge": {"nonce": nonce}}),
    );
    let relay = |extra: bool| {
        let mut relay = json!({"udp": 3478, "username": "1:a", "credential": "b", "seconds": 60});
        if extra {
            relay["quic"] = json!(443);
        }
        json!({"heartbeat_answer": {"n": 7, "relay": relay}})
    };
    add("from-broker", "an unknown field in a relay", relay(true), relay(false));
    let state = |extra: bool| {
        let mut state = json!({
            "online": true,
            "boot": h(count::<16>(0xa0)),
            "epoch": EPOCH,
            "proof": h(count::<64>(1)),
            "since_seconds": 3,
        });
        if extra {
            state["address"] = json!("192.0.2.7");
        }
        json!({"presence": {"farm": farm, "state": state}})
    };
    add("from-broker", "an unknown field in a presence state", state(true), state(false));
    add(
        "control",
        "unknown fields in hello and in a stream's state",
        json!({"hello": {
            "session": session, "epoch": EPOCH, "boot": h(count::<16>(0xa0)), "watched": true,
            "streams": [{"s": 1, "r": 2, "c": 3, "x": 4}], "lanes": 2,
        }}),
        json!({"hello": {
            "session": session, "epoch": EPOCH, "boot": h(count::<16>(0xa0)), "watched": true,
            "streams": [{"s": 1, "r": 2, "c": 3}],
        }}),
    );
    add(
        "control",
        "an unknown field in a service",
        json!({"farm": {"name": "a", "services": [{"name": "b", "kind": "tcp", "icon": "h'00'"}]}}),
        json!({"farm": {"name": "a", "services": [{"name": "b", "kind": "tcp"}]}}),
    );
    let unknown = |make: &dyn Fn(&str) -> Json| (make("of_a_newer_version"), make("other"));
    for (kind, name, (sent, read)) in [
        ("from-broker", "refused", unknown(&|reason| json!({"refused": {"reason": reason}}))),
        (
            "from-broker",
            "undelivered",
            unknown(&|reason| json!({"undelivered": {"peer": {"farm": farm}, "reason": reason}})),
        ),
        (
            "payload",
            "pair_answer",
            unknown(&|reason| json!({"pair_answer": {"refused": {"nonce": nonce, "reason": reason}}})),
        ),
        (
            "peer-signal",
            "refused",
            unknown(&|reason| {
                json!({
                    "from": "farm", "farm": farm, "session": session, "epoch": EPOCH,
                    "content": {"refused": {
                        "nonce": nonce, "reason": reason, "farm_boot": h(count::<16>(0xa0)), "newest": 0,
                    }},
                })
            }),
        ),
        ("control", "goodbye", unknown(&|reason| json!({"goodbye": {"reason": reason}}))),
        ("frame", "reset", unknown(&|reason| json!({"reset": [1, reason]}))),
    ] {
        add(kind, &format!("an unknown reason in {name}"), sent, read);
    }
    out.into()
}
