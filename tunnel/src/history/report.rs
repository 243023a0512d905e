//! The outage report.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Begin, Entry, History, Kind};
use crate::recovery::Failure;
use crate::words::{duration, utc};

/// The short window.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// The long window.
pub const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// One outage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// When it began, seconds since 1970.
    pub at: u64,
    /// Whether the clock that says so was trusted.
    pub trusted: bool,
    /// Its length.
    pub seconds: f64,
    /// How much of it the other end says that it had no power or no network.
    #[serde(default)]
    pub other_away_seconds: f64,
    /// Why the other end was away, where it says so: `no_power`, `no_network`.
    #[serde(default)]
    pub other_away: Option<String>,
    /// Why, by a stable name.
    pub cause: Option<String>,
    /// It is not over.
    pub ongoing: bool,
}

/// A window of time that ends now. Availability is `up / (up + outage)`; the
/// rest is not counted, and shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its length.
    pub seconds: u64,
    /// Share of the counted time in which it worked, 0 to 1; `None` where
    /// nothing was counted.
    pub availability: Option<f64>,
    /// It worked.
    pub up_seconds: f64,
    /// It did not, though both ends had power and a network.
    pub outage_seconds: f64,
    /// Not counted: this end had no network.
    pub no_uplink_seconds: f64,
    /// Not counted: the other end says that it had no power or no network.
    #[serde(default)]
    pub other_away_seconds: f64,
    /// Not counted: this end did not look; it had no power or did not run.
    pub unobserved_seconds: f64,
    /// Of these, as far as is known, without power.
    #[serde(default)]
    pub no_power_seconds: f64,
    /// Outages in it, whole or in part.
    pub outages: usize,
    /// The longest of them, within the window.
    pub longest_seconds: f64,
}

/// The outage report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether the clock agrees with somebody else's; else the windows may
    /// reach back too far or not far enough.
    pub clock_trusted: bool,
    /// The last 24 hours.
    pub day: Window,
    /// The last 30 days.
    pub month: Window,
    /// The asked days.
    pub asked: Window,
    /// Outages of the asked days, oldest first.
    pub outages: Vec<Outage>,
}

impl History {
    /// The report on the last `days`, as things stand now.
    pub fn report(&self, days: u32, now: Instant) -> Report {
        let asked = DAY * days.max(1);
        let open = self.open.as_ref().map(|open| self.entry(open, now));
        let spans: Vec<(&Entry, Duration)> = self
            .entries
            .iter()
            .chain(&open)
            .filter_map(|entry| Some((entry, self.ago(entry, now)?)))
            .collect();
        let away = Away::of(&spans);
        let is_open = |entry: &Entry| open.as_ref().is_some_and(|open| open.number == entry.number);
        let outages = spans
            .iter()
            .filter(|(entry, ago)| entry.kind == Kind::Outage && ago.saturating_sub(entry.lasted) < asked)
            .map(|(entry, ago)| {
                let span = self.span(entry);
                let (away_for, why) = away.within(ago.saturating_sub(entry.lasted), *ago);
                Outage {
                    at: span.at,
                    trusted: span.trusted,
                    seconds: entry.lasted.as_secs_f64(),
                    other_away_seconds: away_for.as_secs_f64(),
                    other_away: why.map(str::to_owned),
                    cause: span.cause,
                    ongoing: is_open(entry),
                }
            })
            .collect();
        Report {
            clock_trusted: self.clock.trusted,
            day: window(&spans, &away, DAY),
            month: window(&spans, &away, MONTH),
            asked: window(&spans, &away, asked),
            outages,
        }
    }

    /// How long ago a span began; `None` for one that began in the future, by
    /// a clock that was set back since.
    pub(super) fn ago(&self, entry: &Entry, now: Instant) -> Option<Duration> {
        match entry.begin {
            Begin::This(began) => Some(now.saturating_duration_since(began)),
            Begin::Earlier { at, .. } => self.clock.of(now).checked_sub(Duration::from_secs(at)),
        }
    }
}

/// When the other end was away by its own word: stretches of the past as (how
/// long ago it ended, how long ago it began, why).
struct Away<'a>(Vec<(Duration, Duration, Option<&'a str>)>);

impl<'a> Away<'a> {
    fn of(spans: &[(&'a Entry, Duration)]) -> Self {
        let away = spans.iter().filter(|(entry, _)| entry.kind == Kind::OtherAway);
        let mut away: Vec<_> = away
            .map(|(entry, ago)| (ago.saturating_sub(entry.lasted), *ago, entry.cause.as_deref()))
            .collect();
        away.sort_unstable();
        Self(away)
    }

    /// How much of a stretch it was away, and why for the first part of it.
    fn within(&self, ended: Duration, ago: Duration) -> (Duration, Option<&'a str>) {
        // Stretches may overlap, where a clock was set between two words: what
        // is nearer than this has been counted.
        let (mut counted, mut sum, mut why) = (ended, Duration::ZERO, None);
        for (from, to, cause) in &self.0 {
            let (from, to) = ((*from).max(counted), (*to).min(ago));
            if let Some(part) = to.checked_sub(from).filter(|part| !part.is_zero()) {
                (counted, sum, why) = (to, sum + part, *cause);
            }
        }
        (sum, why)
    }
}

fn window(spans: &[(&Entry, Duration)], away: &Away<'_>, length: Duration) -> Window {
    let mut window = Window { seconds: length.as_secs(), ..Window::default() };
    for (entry, ago) in spans {
        let ended = ago.saturating_sub(entry.lasted);
        let Some(within) = (*ago).min(length).checked_sub(ended).filter(|within| !within.is_zero()) else {
            continue;
        };
        let seconds = within.as_secs_f64();
        match entry.kind {
            Kind::Up => window.up_seconds += seconds,
            Kind::NoUplink => window.no_uplink_seconds += seconds,
            Kind::NoPower => window.no_power_seconds += seconds,
            // Seen from here it is part of outages, or was not looked at.
            Kind::OtherAway => {}
            Kind::Outage => {
                let (away, _) = away.within(ended, (*ago).min(length));
                window.other_away_seconds += away.as_secs_f64();
                if let Some(counts) = within.checked_sub(away).filter(|counts| !counts.is_zero()) {
                    window.outage_seconds += counts.as_secs_f64();
                    window.outages += 1;
                    window.longest_seconds = window.longest_seconds.max(counts.as_secs_f64());
                }
            }
        }
    }
    let counted = window.up_seconds + window.outage_seconds;
    window.availability = (counted > 0.0).then(|| window.up_seconds / counted);
    let seen = counted + window.no_uplink_seconds + window.other_away_seconds;
    window.unobserved_seconds = (length.as_secs_f64() - seen).max(0.0);
    window
}

impl Report {
    /// For people. `here` names this end: "this computer", "this farm".
    pub fn text(&self, here: &str) -> String {
        let mut out = String::new();
        for (name, window) in [("day", &self.day), ("month", &self.month)] {
            let availability = match window.availability {
                // Never rounded up to a hundred.
                Some(share) => format!("{:.3} %", (share * 1e5).floor() / 1e3),
                None => "unknown".to_owned(),
            };
            let outages = match window.outages {
                0 => "no outage".to_owned(),
                1 => format!("1 outage, {}", duration(window.outage_seconds)),
                n => format!(
                    "{n} outages, {} in all, the longest {}",
                    duration(window.outage_seconds),
                    duration(window.longest_seconds)
                ),
            };
            // Writing to a string can't fail.
            let _ = writeln!(
                out,
                "{name:<6} available {availability} of {}; {outages}",
                duration(window.up_seconds + window.outage_seconds)
            );
            let _ = write!(
                out,
                "       not counted: {} in which {here} did not look, {} without a network here",
                duration(window.unobserved_seconds),
                duration(window.no_uplink_seconds)
            );
            for (seconds, what) in [
                (window.no_power_seconds, "without power here, of the former"),
                (window.other_away_seconds, "without power or network there, by its own word"),
            ] {
                if seconds > 0.0 {
                    let _ = write!(out, ", {} {what}", duration(seconds));
                }
            }
            let _ = writeln!(out);
        }
        if !self.clock_trusted {
            let _ = writeln!(
                out,
                "the clock of {here} is not known to be right: dates may be wrong, durations are not"
            );
        }
        if self.outages.is_empty() {
            let _ = write!(out, "no outage in the last {}", duration(self.asked.seconds as f64));
            return out;
        }
        let _ = write!(out, "{:<24} {:>12}  why", "when (UTC)", "lasted");
        for outage in &self.outages {
            let when = format!("{}{}", utc(outage.at), if outage.trusted { "" } else { " ?" });
            let cause = outage.cause.as_deref().map_or("unknown", Failure::explain);
            let ongoing = if outage.ongoing { " (not over)" } else { "" };
            let _ = write!(out, "\n{when:<24} {:>12}  {cause}{ongoing}", duration(outage.seconds));
            if let Some(why) = outage.other_away.as_deref() {
                let away = duration(outage.other_away_seconds);
                let what = if why == "no_power" { "no power" } else { "no network" };
                let _ = write!(out, "; for {away} of it there was {what} there");
            }
        }
        out
    }
}
