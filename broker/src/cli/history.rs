//! A farm and its log for people, and following the log.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::duration::show;
use super::size;
use crate::admin::{self, Answer, EventLine, FarmDetails, Request};
use crate::core::history::Availability;

/// How often a followed log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All about one farm, at a time in seconds since 1970.
pub(super) fn farm(farm: &FarmDetails, now: u64) -> String {
    let state = if farm.online { "online" } else { "offline" };
    let state = match farm.since {
        Some(since) => format!("{state} for {}", show(now.saturating_sub(since))),
        None => format!("{state}, not seen yet"),
    };
    let percent = |availability: &Availability| match availability.percent() {
        Some(percent) => {
            let seen = show(availability.counted_seconds);
            format!("{percent:.2} % of the {seen} that the broker saw")
        }
        None => "not known yet".to_owned(),
    };
    let mut text = format!(
        "{}\n  id         {}\n  state      {state}\n  address    {}\n  enrolled   {} ago\n  24 hours   {}\n  30 days    {}\n  relayed    {}\n",
        farm.name,
        farm.id,
        farm.address.as_deref().unwrap_or("not known"),
        show(now.saturating_sub(farm.enrolled)),
        percent(&farm.day),
        percent(&farm.month),
        farm.relayed_bytes.map_or_else(
            || "not by this broker".to_owned(),
            |bytes| format!("{} since the broker started", size::show(bytes))
        ),
    );
    for event in &farm.events {
        // Writing to a string can't fail.
        let _infallible = write!(text, "  {}", line(event, now));
    }
    text
}

/// One line of the log.
pub(super) fn line(event: &EventLine, now: u64) -> String {
    let ago = format!("{} ago", show(now.saturating_sub(event.at)));
    let address = event.address.as_deref().unwrap_or_default();
    let line = format!("{ago:12}  {:8}  {}  {address}", event.event, event.name);
    format!("{}\n", line.trim_end())
}

/// Prints the log, and what follows where that is wanted.
pub(super) fn events(
    state: &Path,
    farm: Option<String>,
    json: bool,
    follow: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut from = None;
    loop {
        let piece = match admin::ask(state, &Request::Events { from, farm: farm.clone() }) {
            Ok(Answer::Events(piece)) => piece,
            Ok(other) => return Err(super::unexpected(&other)),
            // It is being restarted: what happens meanwhile is in its log.
            Err(admin::AdminError::NotRunning(_)) if from.is_some() => {
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let now = crate::store::unix_time();
        for event in &piece.events {
            super::print(&if json {
                format!("{}\n", serde_json::to_string(event)?)
            } else {
                line(event, now)
            })?;
        }
        if !follow {
            return Ok(());
        }
        from = Some(piece.next);
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farm_is_shown_with_its_log() {
        let event = |event: &str, at, address: Option<&str>| EventLine {
            number: at,
            at,
            farm: "x".repeat(32),
            name: "North".to_owned(),
            event: event.to_owned(),
            address: address.map(str::to_owned),
        };
        let text = farm(
            &FarmDetails {
                id: "x".repeat(32),
                name: "North".to_owned(),
                online: false,
                since: Some(9400),
                enrolled: 1000,
                address: Some("192.0.2.1".to_owned()),
                day: Availability { up_seconds: 8400, counted_seconds: 9000 },
                month: Availability::default(),
                relayed_bytes: Some(12_345_678),
                events: vec![event("online", 1000, Some("192.0.2.1")), event("offline", 9400, None)],
            },
            10_000,
        );
        assert!(text.contains("offline for 10 min") && text.contains("93.33 % of the 2 h"), "{text}");
        assert!(text.contains("30 days    not known yet"), "{text}");
        assert!(text.contains("relayed    12.3 MB since the broker started\n"), "{text}");
        assert!(text.contains("2 h ago       online    North  192.0.2.1\n"), "{text}");
        assert!(text.ends_with("10 min ago    offline   North\n"), "{text}");
    }
}
