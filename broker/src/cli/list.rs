//! The list of farms for people.

use std::fmt::Write;

use super::duration::show;
use super::size;
use crate::admin::FarmLine;

/// One line per farm, those that are online first.
pub(super) fn table(farms: &[FarmLine], now: u64) -> String {
    if farms.is_empty() {
        return "no farm is enrolled yet: give the token of `farm-broker enroll` to one\n".to_owned();
    }
    let mut farms: Vec<&FarmLine> = farms.iter().collect();
    farms.sort_by_key(|farm| (!farm.online, &farm.name, &farm.id));
    let widest = farms.iter().map(|farm| farm.name.chars().count()).max();
    let width = widest.unwrap_or(0).max(4);
    let mut table = format!("{:width$}  {:32}  {:22}  {:12}  RELAYED\n", "NAME", "ID", "STATE", "ENROLLED");
    for farm in farms {
        let state = match (farm.online, farm.since) {
            (true, Some(since)) => format!("online for {}", show(now.saturating_sub(since))),
            (false, Some(since)) => format!("offline for {}", show(now.saturating_sub(since))),
            (true, None) => "online".to_owned(),
            (false, None) => "not seen since start".to_owned(),
        };
        let enrolled = format!("{} ago", show(now.saturating_sub(farm.enrolled)));
        let relayed = farm.relayed_bytes.map_or_else(|| "-".to_owned(), size::show);
        // Writing to a string can't fail.
        let _infallible =
            writeln!(table, "{:width$}  {:32}  {state:22}  {enrolled:12}  {relayed}", farm.name, farm.id);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn online_farms_come_first() {
        let farm = |name: &str, online, since| FarmLine {
            id: "x".repeat(32),
            name: name.to_owned(),
            online,
            since,
            enrolled: 1000,
            relayed_bytes: online.then_some(2_500_000),
        };
        let farms = [
            farm("East", false, None),
            farm("West", true, Some(1900)),
            farm("North field", false, Some(1400)),
        ];
        let text = table(&farms, 2000);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("West         x") && lines[1].contains("online for 100 s"));
        assert!(lines[1].ends_with("16 min ago    2.5 MB"), "{text}");
        assert!(lines[2].contains("not seen since start") && lines[2].ends_with("16 min ago    -"));
        assert!(lines[3].contains("offline for 10 min"));
        assert!(table(&[], 0).contains("enroll"));
    }
}
