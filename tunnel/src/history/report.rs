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
    /// It did not.
    pub outage_seconds: f64,
    /// Not counted: this end had no network.
    pub no_uplink_seconds: f64,
    /// Not counted: this end did not look; it had no power or did not run.
    pub unobserved_seconds: f64,
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
        let is_open = |entry: &Entry| open.as_ref().is_some_and(|open| open.number == entry.number);
        let outages = spans
            .iter()
            .filter(|(entry, ago)| entry.kind == Kind::Outage && ago.saturating_sub(entry.lasted) < asked)
            .map(|(entry, _)| {
                let span = self.span(entry);
                let seconds = entry.lasted.as_secs_f64();
                let ongoing = is_open(entry);
                Outage { at: span.at, trusted: span.trusted, seconds, cause: span.cause, ongoing }
            })
            .collect();
        Report {
            clock_trusted: self.clock.trusted,
            day: window(&spans, DAY),
            month: window(&spans, MONTH),
            asked: window(&spans, asked),
            outages,
        }
    }

    /// How long ago a span began; `None` for one that began in the future, by
    /// a clock that was set back since.
    fn ago(&self, entry: &Entry, now: Instant) -> Option<Duration> {
        match entry.begin {
            Begin::This(began) => Some(now.saturating_duration_since(began)),
            Begin::Earlier { at, .. } => self.clock.of(now).checked_sub(Duration::from_secs(at)),
        }
    }
}

fn window(spans: &[(&Entry, Duration)], length: Duration) -> Window {
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
            Kind::Outage => {
                window.outage_seconds += seconds;
                window.outages += 1;
                window.longest_seconds = window.longest_seconds.max(seconds);
            }
        }
    }
    let counted = window.up_seconds + window.outage_seconds;
    window.availability = (counted > 0.0).then(|| window.up_seconds / counted);
    window.unobserved_seconds = (length.as_secs_f64() - counted - window.no_uplink_seconds).max(0.0);
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
            let _ = writeln!(
                out,
                "       not counted: {} in which {here} did not look, {} without a network here",
                duration(window.unobserved_seconds),
                duration(window.no_uplink_seconds)
            );
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
        }
        out
    }
}
