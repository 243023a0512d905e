//! On a stream to the farm's readings.

use farm_protocol::frame::MAX_OFFSET;
use farm_protocol::readings::{
    Answer, Clock, Follow, Gap, GapReason, MAX_NAME, MAX_READINGS, MAX_UNIT, Newest, Reading, Request,
};
use serde_json::json;

use super::{Case, add, reasons};
use crate::strategies;
use crate::vectors::fixtures::MOST;

fn reading(sequence: u64, name: &str, value: f64, unit: Option<&str>) -> Reading {
    Reading {
        sequence,
        time: 1_790_000_000_000 + sequence,
        clock: Clock::Set,
        name: name.to_owned(),
        value,
        unit: unit.map(str::to_owned),
    }
}

pub(super) fn readings(out: &mut Vec<Case>) {
    for (name, after, live) in
        [("all there is", 0, false), ("on from 7", 7, true), ("largest", MAX_OFFSET, true)]
    {
        add(
            out,
            &format!("follow, {name}"),
            Request::Follow(Follow { after, live }),
            json!({"follow": {"after": after, "live": live}}),
        );
    }
    let two = vec![reading(8, "soil moisture", 23.5, Some("%")), reading(9, "door", 1.0, None)];
    add(
        out,
        "readings",
        Answer::Readings(two),
        json!({"readings": [
            {"n": 8, "t": 1_790_000_000_008u64, "c": "set", "name": "soil moisture", "value": 23.5, "unit": "%"},
            {"n": 9, "t": 1_790_000_000_009u64, "c": "set", "name": "door", "value": 1.0},
        ]}),
    );
    // Half, single and double precision, and the ends.
    for value in [0.0, -40.0, 0.1, 100_000.0, 16_777_217.0, 5e-324, f64::MAX, f64::MIN] {
        add(
            out,
            &format!("readings, value {value:e}"),
            Answer::Readings(vec![reading(1, "x", value, None)]),
            json!({"readings": [{"n": 1, "t": 1_790_000_000_001u64, "c": "set", "name": "x", "value": value}]}),
        );
    }
    let largest = |n: usize| Reading {
        sequence: MAX_OFFSET - (MAX_READINGS - 1 - n) as u64,
        time: MAX_OFFSET,
        clock: Clock::Corrected,
        ..reading(0, &"n".repeat(MAX_NAME), 0.1, Some(&"u".repeat(MAX_UNIT)))
    };
    let by_hand: Vec<_> = (0..256u64)
        .map(|n| {
            json!({"n": MOST - (255 - n), "t": MOST, "c": "corrected", "name": "n".repeat(64), "value": 0.1,
                   "unit": "u".repeat(16)})
        })
        .collect();
    add(
        out,
        "readings, largest",
        Answer::Readings((0..MAX_READINGS).map(largest).collect()),
        json!({ "readings": by_hand }),
    );
    reasons(out, "readings, clock", &strategies::CLOCK, |clock, text| {
        (
            Answer::Readings(vec![Reading { clock, ..reading(1, "x", 0.5, None) }]),
            json!({"readings": [{"n": 1, "t": 1_790_000_000_001u64, "c": text, "name": "x", "value": 0.5}]}),
        )
    });
    reasons(out, "gap", &strategies::GAP, |reason, text| {
        (
            Answer::Gap(Gap { first: 3, last: 9, reason }),
            json!({"gap": {"first": 3, "last": 9, "reason": text}}),
        )
    });
    let all = Answer::Gap(Gap { first: 0, last: MAX_OFFSET, reason: GapReason::Pruned });
    add(out, "gap, largest", all, json!({"gap": {"first": 0, "last": MOST, "reason": "pruned"}}));
    for newest in [0, 42, MAX_OFFSET] {
        let by_hand = json!({ "newest": newest });
        add(
            out,
            &format!("caught_up, {newest}"),
            Answer::CaughtUp(Newest { newest }),
            json!({"caught_up": by_hand}),
        );
        add(out, &format!("behind, {newest}"), Answer::Behind(Newest { newest }), json!({"behind": by_hand}));
    }
}
