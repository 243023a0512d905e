//! One line of the table: what was done, what came of it, and what is wrong.

use std::fmt;

use crate::bench::sample::Sample;

/// A latency, in milliseconds, at the middle and at the tail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Latency {
    pub(super) fn of(sample: &Sample) -> Self {
        Self { p50: sample.quantile(0.5), p99: sample.quantile(0.99) }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.2}/{:.1}", self.p50, self.p99)
    }
}

/// A latency before and during an attack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) before: Latency,
    pub(super) during: Latency,
}

/// What the operating system itself adds now and then on a machine with other
/// programs: a time slice of its scheduler (4 ms at 250 ticks a second).
const SLICE: f64 = 4.0;

/// Below a millisecond a factor says nothing: the way over the internet takes
/// tens of them.
const NOTHING: f64 = 1.0;

impl Change {
    /// Whether honest devices noticed: more than doubled, beyond what the
    /// machine itself does.
    pub(super) fn is_noticed(&self) -> bool {
        let more =
            |before: f64, during: f64, slack: f64| !(during <= before * 2.0 || during <= before + slack);
        more(self.before.p50, self.during.p50, NOTHING) || more(self.before.p99, self.during.p99, SLICE)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} → {}", self.before, self.during)
    }
}

/// Something measured before an attack, at its worst, and afterwards.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Course<T> {
    pub(super) before: T,
    pub(super) peak: T,
    pub(super) after: T,
}

impl<T: fmt::Display> fmt::Display for Course<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}/{}", self.before, self.peak, self.after)
    }
}

/// What came of one attack.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) sent: String,
    pub(super) counted: String,
    /// What honest devices noticed, where it was measured.
    pub(super) latency: Option<(Change, Change)>,
    /// What an honest relayed farm noticed, with packets lost of those sent.
    pub(super) relayed: Option<(Change, usize, usize)>,
    /// Of the broker: megabytes and descriptors.
    pub(super) use_of: Option<(Course<u64>, Course<u64>)>,
    /// What must not be.
    pub(super) problems: Vec<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.problems.is_empty() { "ok" } else { "NOT OK" };
        writeln!(out, "{:<18} {verdict:<7} {}", self.name, self.sent)?;
        if !self.counted.is_empty() {
            writeln!(out, "    counted {}", self.counted)?;
        }
        if let Some((heartbeats, signals)) = &self.latency {
            writeln!(out, "    heartbeat {heartbeats} ms, signal {signals} ms")?;
        }
        if let Some((packets, lost, sent)) = &self.relayed {
            writeln!(out, "    relayed {packets} ms, {lost} of {sent} packets lost")?;
        }
        if let Some((memory, files)) = &self.use_of {
            writeln!(out, "    memory {memory} MB, descriptors {files}")?;
        }
        for problem in &self.problems {
            writeln!(out, "    !! {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_long_is_noticed_where_it_means_something() {
        let change = |before: (f64, f64), during: (f64, f64)| Change {
            before: Latency { p50: before.0, p99: before.1 },
            during: Latency { p50: during.0, p99: during.1 },
        };
        assert!(!change((0.2, 1.0), (0.9, 4.5)).is_noticed());
        assert!(change((2.0, 3.0), (4.5, 5.0)).is_noticed());
        assert!(change((0.2, 10.0), (0.2, 21.0)).is_noticed());
        assert!(!change((3.0, 10.0), (6.0, 20.0)).is_noticed());
        assert!(change((0.2, 1.0), (f64::NAN, 1.0)).is_noticed(), "nothing came at all");
    }
}
