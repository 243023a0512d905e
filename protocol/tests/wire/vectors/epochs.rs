//! `epochs.json`: counting starts and turns, and which epoch may follow which.

use farm_protocol::epoch::Epoch;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, U64Deserializer};
use serde_json::{Value as Json, json};

use super::fixtures::MOST;

/// A turn of a start, as the schema has it.
fn number(starts: u64, turn: u64) -> u64 {
    (starts << 22) + turn
}

/// As it comes from the wire.
fn epoch(number: u64) -> Epoch {
    let number: U64Deserializer<Error> = number.into_deserializer();
    Epoch::deserialize(number).unwrap()
}

pub(super) fn file() -> Json {
    let mut out = Vec::new();
    for (starts, first) in [
        (0, 0),
        (1, 4_194_304),
        (2, 8_388_608),
        (1_000_000, 4_194_304_000_000),
        ((1 << 31) - 1, MOST - 4_194_303),
        // More starts than fit stay at the last.
        (1 << 31, MOST - 4_194_303),
        (MOST, MOST - 4_194_303),
    ] {
        assert_eq!(Epoch::of_start(starts).number(), first);
        out.push(json!({
            "name": format!("the first epoch of start {starts}"),
            "type": "start", "starts": starts, "epoch": first,
        }));
    }
    for (before, after) in [
        (0, 1),
        (number(7, 0), number(7, 1)),
        // A full turn goes on in the next start's range, never back.
        (number(7, (1 << 22) - 1), number(8, 0)),
        (MOST - 1, MOST),
        (MOST, MOST),
    ] {
        let epoch = epoch(before);
        assert_eq!(epoch.next().number(), after);
        out.push(json!({
            "name": format!("the epoch after {before}"),
            "type": "next", "epoch": before, "starts": epoch.starts(), "text": epoch.to_string(),
            "next": after,
        }));
    }
    for (name, known, claimed, follows) in [
        ("the next turn", number(7, 3), number(7, 4), true),
        ("the same", number(7, 3), number(7, 3), false),
        ("an earlier turn", number(7, 3), number(7, 2), false),
        ("a new start", number(7, 3_000_000), number(8, 0), true),
        ("an old start", number(8, 0), number(7, 3_000_000), false),
        ("a million starts ahead", 0, number(1_000_000, 0), true),
        ("over a million starts ahead", 0, number(1_000_000, 1), false),
        ("a million ahead of what is known", number(5, 9), number(1_000_005, 9), true),
        ("the last after the last but one", MOST - 1, MOST, true),
        ("the last after the first", 0, MOST, false),
    ] {
        assert_eq!(epoch(claimed).follows(epoch(known)), follows, "{name}");
        out.push(json!({
            "name": format!("whether one follows: {name}"),
            "type": "follows", "known": known, "claimed": claimed, "follows": follows,
        }));
    }
    out.into()
}
