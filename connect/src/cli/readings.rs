//! `farm-connect readings`.

use farm_tunnel::words::rfc3339;
use serde_json::json;

use super::{Failure, print, until_stopped};
use crate::client::Client;
use crate::readings::{Clock, Event, Follower, Gap, GapReason, Reading};
use crate::tunnel::Tunnel;

/// What is asked for.
pub(super) struct Wanted {
    /// The farm.
    pub(super) farm: String,
    /// Everything after this number, and nothing is kept; otherwise everything
    /// after the number that is kept for the farm.
    pub(super) since: Option<u64>,
    /// Go on for ever.
    pub(super) follow: bool,
    /// As JSON.
    pub(super) json: bool,
}

pub(super) async fn readings(client: &Client, wanted: &Wanted) -> Result<(), Failure> {
    let farm = client.find(&wanted.farm)?;
    let after = match wanted.since {
        Some(since) => since,
        None => client.position(&farm)?,
    };
    let tunnel = Tunnel::start(client, &farm)?;
    let mut follower = Follower::new(&tunnel, after, wanted.follow);
    let show = async {
        let mut kept = after;
        while let Some(event) = follower.next().await? {
            show(&event, wanted.json)?;
            // Once for what came together; after a crash in between the same
            // lines are printed again rather than none.
            if wanted.since.is_none() && follower.is_empty() && follower.last() > kept {
                kept = follower.last();
                client.keep_position(&farm, kept)?;
            }
        }
        Ok(())
    };
    until_stopped(&tunnel, show).await
}

fn show(event: &Event, json: bool) -> Result<(), Failure> {
    match event {
        Event::Reading(reading) if json => print(&json_of(reading)),
        Event::Reading(reading) => print(&line_of(reading)),
        Event::Gap(gap) if json => {
            let Gap { first, last, reason } = gap;
            print(&json!({ "gap": { "first": first, "last": last, "reason": reason } }).to_string())
        }
        Event::Gap(gap) => {
            let why = match gap.reason {
                GapReason::Pruned => "the farm has removed them, as its log is bounded",
                GapReason::Damaged => "the farm's card has lost what there was",
                GapReason::Other => "the farm no longer has them",
            };
            eprintln!("readings {} to {} are missing: {why}", gap.first, gap.last);
            Ok(())
        }
        Event::CaughtUp => Ok(()),
    }
}

fn json_of(reading: &Reading) -> String {
    let mut out = json!({
        "sequence": reading.sequence,
        "time": rfc3339(reading.time),
        "clock": reading.clock,
        "name": reading.name,
        "value": reading.value,
    });
    if let Some(unit) = &reading.unit {
        out["unit"] = json!(unit);
    }
    out.to_string()
}

fn line_of(reading: &Reading) -> String {
    let time = rfc3339(reading.time);
    // Where the clock was wrong the time is at least that.
    let mark = if reading.clock == Clock::Guessed { "?" } else { "" };
    let unit = reading.unit.as_ref().map_or(String::new(), |unit| format!(" {unit}"));
    format!("{}  {time}{mark}  {} {}{unit}", reading.sequence, reading.name, reading.value)
}
