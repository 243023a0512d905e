//! What the programs said around a fault, as evidence; and the first sign that
//! one of them had noticed it.

use std::time::{Duration, Instant};

use super::world::World;
use crate::harness::Line;

/// Lines of a program from this long before the fault on.
const BEFORE: Duration = Duration::from_secs(1);
/// Lines of a timeline that are shown.
const SHOWN: usize = 120;

/// A line of a program.
struct Said {
    who: &'static str,
    line: Line,
}

/// The lines of all programs since shortly before the fault, in order.
pub(super) struct Timeline {
    fault: Instant,
    said: Vec<Said>,
}

impl Timeline {
    /// Collects them.
    pub(super) fn of(world: &World, fault: Instant) -> Self {
        let mut said = Vec::new();
        let mut take = |who, lines: Vec<Line>| {
            let recent = lines.into_iter().filter(|line| line.at + BEFORE >= fault);
            said.extend(recent.map(|line| Said { who, line }));
        };
        take("phone", world.echo_forward.process.lines());
        take("phone/2", world.page_forward.process.lines());
        for (who, daemon) in [("farm", &world.farm.agent.daemon), ("broker", &world.farm.broker.daemon)] {
            if let Ok(process) = daemon.process() {
                take(who, process.lines());
            }
        }
        for (who, lines) in &world.former_lines {
            take(who, lines.clone());
        }
        said.sort_by_key(|said| said.line.at);
        Self { fault, said }
    }

    /// When the phone's session left `live`, began another carrier, or either
    /// side said that the network or an address had changed; and the words.
    pub(super) fn noticed(&self) -> Option<(Duration, String)> {
        let sign = |said: &&Said| said.line.at >= self.fault && is_sign(said.who, &said.line.text);
        let said = self.said.iter().find(sign)?;
        Some((said.line.at - self.fault, format!("{}: {}", said.who, words(&said.line.text))))
    }

    /// When the agent was at the broker again, after the fault.
    pub(super) fn registered(&self) -> Option<Instant> {
        let online = |said: &&Said| {
            said.who == "farm"
                && said.line.at >= self.fault
                && said.line.text.contains("online at the broker")
        };
        self.said.iter().find(online).map(|said| said.line.at)
    }

    /// As lines with the time since the fault.
    pub(super) fn lines(&self) -> Vec<String> {
        let left_out = self.said.len().saturating_sub(SHOWN);
        let show = |said: &Said| {
            let (sign, time) = match said.line.at.checked_duration_since(self.fault) {
                Some(after) => ('+', after),
                None => ('-', self.fault - said.line.at),
            };
            format!("{sign}{:8.3} {:8} {}", time.as_secs_f64(), said.who, words(&said.line.text))
        };
        let mut lines: Vec<_> = self.said.iter().take(SHOWN).map(show).collect();
        if left_out > 0 {
            lines.push(format!("… and {left_out} lines more"));
        }
        lines
    }
}

fn is_sign(who: &str, text: &str) -> bool {
    match who {
        "phone" => {
            (text.contains("session state=") && !text.contains("state=\"live\""))
                // One that is tried beside a relayed one that works is no sign.
                || (text.contains("offering a carrier") && !text.contains("ways=\"direct_only\""))
                || text.contains("the network changed")
        }
        "farm" => text.contains("the address changed") || text.contains("the network is gone"),
        _ => false,
    }
}

/// A log line without its clock.
fn words(text: &str) -> &str {
    let is_clock = |word: &str| word.len() > 20 && word.ends_with('Z') && word.contains('T');
    match text.split_once(' ') {
        Some((first, rest)) if is_clock(first) => rest.trim_start(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_noticed() {
        for text in [
            "INFO session state=\"waiting\" failure=\"network_timeout\"",
            "DEBUG offering a carrier epoch=1.2",
            "INFO the network changed change=AddressChanged",
        ] {
            assert!(is_sign("phone", text), "{text}");
            assert!(!is_sign("broker", text), "{text}");
        }
        assert!(!is_sign("phone", "INFO session state=\"live\""));
        assert!(!is_sign("phone", "DEBUG offering a carrier epoch=1.2 ways=\"direct_only\""));
        assert!(is_sign("farm", "INFO the address changed witness=\"STUN probe\""));
        assert_eq!(words("2026-11-22T18:00:00.123456Z  INFO session"), "INFO session");
        assert_eq!(words("farm-agent ready: farm x"), "farm-agent ready: farm x");
    }
}
