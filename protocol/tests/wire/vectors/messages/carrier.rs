//! Between a phone and a farm, on a carrier.

use bytes::Bytes;
use farm_protocol::control::{self, Absence, AbsenceReason, Attention, Control, Hello};
use farm_protocol::epoch::Epoch;
use farm_protocol::frame::{Frame, MAX_OFFSET, MAX_PAYLOAD, StreamState};
use farm_protocol::id::PhoneId;
use farm_protocol::ping::Ping;
use farm_protocol::service::{Service, ServiceKind};
use serde_json::json;

use super::{Case, add, reasons};
use crate::notation::h;
use crate::strategies;
use crate::vectors::fixtures::*;

pub(super) fn control(out: &mut Vec<Case>) {
    add(
        out,
        "hello, no streams",
        Control::Hello(Hello {
            session: session(0),
            epoch: epoch(),
            boot: farm_boot(),
            streams: Vec::new(),
            watched: false,
            burst: None,
        }),
        json!({"hello": {
            "session": {"phone": h(phone_id().as_bytes()), "slot": 0},
            "epoch": EPOCH,
            "boot": h(count::<16>(0xa0)),
            "streams": [],
            "watched": false,
        }}),
    );
    let state = |stream, received, credit| StreamState { stream, received, credit };
    add(
        out,
        "hello, with streams",
        Control::Hello(Hello {
            session: session(7),
            epoch: Epoch::MAX,
            boot: phone_boot(),
            streams: vec![state(1, 0, 262_144), state(u32::MAX, MAX_OFFSET - 1, MAX_OFFSET)],
            watched: true,
            burst: None,
        }),
        json!({"hello": {
            "session": {"phone": h(phone_id().as_bytes()), "slot": 7},
            "epoch": MOST,
            "boot": h(count::<16>(0xb0)),
            "streams": [
                {"s": 1, "r": 0, "c": 262_144},
                {"s": 4_294_967_295u32, "r": MOST - 1, "c": MOST},
            ],
            "watched": true,
        }}),
    );
    add(
        out,
        "hello, with a burst",
        Control::Hello(Hello {
            session: session(1),
            epoch: epoch(),
            boot: phone_boot(),
            streams: Vec::new(),
            watched: true,
            burst: Some(49_152),
        }),
        json!({"hello": {
            "session": {"phone": h(phone_id().as_bytes()), "slot": 1},
            "epoch": EPOCH,
            "boot": h(count::<16>(0xb0)),
            "streams": [],
            "watched": true,
            "burst": 49_152,
        }}),
    );
    add(
        out,
        "farm, no services",
        Control::Farm(control::Farm {
            name: String::new(),
            services: Vec::new(),
            phones: Vec::new(),
            absences: Vec::new(),
        }),
        json!({"farm": {"name": "", "services": []}}),
    );
    let service = |name: &str, kind| Service { name: name.to_owned(), kind };
    add(
        out,
        "farm",
        Control::Farm(control::Farm {
            name: "North field".to_owned(),
            services: vec![service("greenhouse", ServiceKind::Http), service("ssh", ServiceKind::Tcp)],
            phones: vec![control::PairedPhone {
                id: PhoneId::from_bytes([7; PhoneId::LEN]),
                name: "Телефон".to_owned(),
            }],
            absences: vec![
                Absence { at: 1_795_372_227, lasted: 3_600, why: AbsenceReason::NoPower },
                Absence { at: MAX_OFFSET, lasted: u32::MAX, why: AbsenceReason::NoNetwork },
            ],
        }),
        json!({"farm": {"name": "North field", "services": [
            {"name": "greenhouse", "kind": "http"},
            {"name": "ssh", "kind": "tcp"},
        ], "phones": [{"id": h([7; PhoneId::LEN]), "name": "Телефон"}], "absences": [
            {"a": 1_795_372_227, "l": 3_600, "w": "no_power"},
            {"a": MOST, "l": 4_294_967_295u32, "w": "no_network"},
        ]}}),
    );
    for watched in [true, false] {
        add(
            out,
            &format!("attention, {watched}"),
            Control::Attention(Attention { watched }),
            json!({"attention": {"watched": watched}}),
        );
    }
    reasons(out, "goodbye", &strategies::GOODBYE, |reason, text| {
        (Control::Goodbye(control::Goodbye { reason }), json!({"goodbye": {"reason": text}}))
    });
}

pub(super) fn frames(out: &mut Vec<Case>) {
    let open = |stream, target: &str, credit| Frame::Open { stream, target: target.to_owned(), credit };
    let data = |stream, offset, bytes| Frame::Data { stream, offset, bytes };
    let ack = |stream, received, credit| Frame::Ack { stream, received, credit };
    add(out, "open", open(1, "greenhouse", 262_144), json!({"open": [1, "greenhouse", 262_144]}));
    add(
        out,
        "open, largest",
        open(u32::MAX, &"a".repeat(64), MAX_OFFSET),
        json!({"open": [4_294_967_295u32, "(64*a)", MOST]}),
    );
    add(out, "data, one byte", data(1, 0, Bytes::from_static(b"G")), json!({"data": [1, 0, "h'47'"]}));
    add(
        out,
        "data, largest, up to the last offset",
        data(u32::MAX, MAX_OFFSET - MAX_PAYLOAD as u64, Bytes::from(vec![0; MAX_PAYLOAD])),
        json!({"data": [4_294_967_295u32, MOST - 61_440, "h'(61440*00)'"]}),
    );
    add(out, "ack", ack(1, 1, 262_145), json!({"ack": [1, 1, 262_145]}));
    add(
        out,
        "ack, largest",
        ack(u32::MAX, MAX_OFFSET, MAX_OFFSET),
        json!({"ack": [4_294_967_295u32, MOST, MOST]}),
    );
    let fin = |stream, offset| Frame::Fin { stream, offset };
    add(out, "fin, nothing sent", fin(1, 0), json!({"fin": [1, 0]}));
    add(out, "fin, largest", fin(u32::MAX, MAX_OFFSET - 1), json!({"fin": [4_294_967_295u32, MOST - 1]}));
    reasons(out, "reset", &strategies::RESET, |reason, text| {
        (Frame::Reset { stream: 1, reason }, json!({"reset": [1, text]}))
    });
}

pub(super) fn pings(out: &mut Vec<Case>) {
    for number in [0, 23, 24, 255, 256, 65_535, 65_536, u32::MAX] {
        add(out, &format!("ping {number}"), Ping::Ping(number), json!({"ping": number}));
    }
    add(out, "pong", Ping::Pong(7), json!({"pong": 7}));
}
