//! The table: rows of figures with their budgets, as text and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::machine::Machine;
use super::part::Part;
use super::sample::Sample;
use super::scale::Length;

mod layout;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Unit {
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "MB/s")]
    Rate,
    /// 1,000,000 bytes.
    #[serde(rename = "MB")]
    Megabytes,
    #[serde(rename = "MB/day")]
    DailyMegabytes,
    #[serde(rename = "KB/cycle")]
    Slope,
    #[serde(rename = "threads")]
    Threads,
    #[serde(rename = "files")]
    Files,
    #[serde(rename = "wakeups/s")]
    Wakeups,
    /// Of one core.
    #[serde(rename = "% CPU")]
    Cpu,
    /// CPU time for 1,000,000,000 bytes.
    #[serde(rename = "s CPU/GB")]
    Work,
    #[serde(rename = "×")]
    Ratio,
    #[serde(rename = "cycles")]
    Cycles,
}

impl Unit {
    fn symbol(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Rate => "MB/s",
            Self::Megabytes => "MB",
            Self::DailyMegabytes => "MB/day",
            Self::Slope => "KB/cycle",
            Self::Threads => "threads",
            Self::Files => "files",
            Self::Wakeups => "wakeups/s",
            Self::Cpu => "% CPU",
            Self::Work => "s CPU/GB",
            Self::Ratio => "×",
            Self::Cycles => "cycles",
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Threads | Self::Files | Self::Cycles)
    }
}

/// One number.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    label: &'static str,
    value: f64,
    unit: Unit,
    /// The most it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<f64>,
}

impl Figure {
    pub(super) fn new(label: &'static str, value: f64, unit: Unit) -> Self {
        Self { label, value, unit, budget: None }
    }

    pub(super) fn at_most(mut self, budget: f64) -> Self {
        self.budget = Some(budget);
        self
    }

    fn is_over(&self) -> bool {
        self.budget.is_some_and(|budget| self.value > budget)
    }
}

/// Whether a row keeps its budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Over,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    name: String,
    figures: Vec<Figure>,
    /// Why there are no figures, or what to know about them.
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
}

impl Row {
    pub(super) fn new(name: impl Into<String>, figures: Vec<Figure>) -> Self {
        let budgeted = figures.iter().any(|figure| figure.budget.is_some());
        let over = figures.iter().any(Figure::is_over);
        let verdict = budgeted.then_some(if over { Verdict::Over } else { Verdict::Ok });
        Self { name: name.into(), figures, remark: None, verdict }
    }

    /// A row for what was not measured.
    pub(super) fn missing(name: impl Into<String>, reason: &str) -> Self {
        // Further lines are a program's output; the first says what happened.
        let reason = reason.lines().next().unwrap_or_default();
        Self::new(name, Vec::new()).remark(Some(format!("not measured: {reason}")))
    }

    /// Median, smallest and largest.
    pub(super) fn spread(name: impl Into<String>, sample: &Sample, unit: Unit) -> Self {
        if sample.is_empty() {
            return Self::missing(name, "nothing came of it");
        }
        let figures = [("median", sample.median()), ("min", sample.min()), ("max", sample.max())];
        Self::new(name, figures.map(|(label, value)| Figure::new(label, value, unit)).to_vec())
    }

    /// The middle, the tail given as a share, and the largest.
    pub(super) fn times(name: impl Into<String>, sample: &Sample, tail: (&'static str, f64)) -> Self {
        if sample.is_empty() {
            return Self::missing(name, "nothing came of it");
        }
        let figures =
            [("p50", sample.quantile(0.5)), (tail.0, sample.quantile(tail.1)), ("max", sample.max())];
        let figure = |(label, value)| Figure::new(label, value, Unit::Milliseconds);
        Self::new(name, figures.map(figure).to_vec())
    }

    /// Gives the first figure a budget.
    pub(super) fn at_most(mut self, budget: f64) -> Self {
        if let Some(first) = self.figures.first_mut() {
            first.budget = Some(budget);
        }
        Self { remark: self.remark, ..Self::new(self.name, self.figures) }
    }

    pub(super) fn remark(mut self, remark: Option<String>) -> Self {
        self.remark = remark;
        self
    }
}

#[derive(Serialize)]
struct Group {
    name: &'static str,
    rows: Vec<Row>,
}

/// All rows, in the order they were measured.
#[derive(Default)]
pub(super) struct Table {
    groups: Vec<Group>,
}

impl Table {
    pub(super) fn add(&mut self, part: Part) {
        self.groups.push(Group { name: part.group, rows: part.rows });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The same as JSON, with what is to know about the machine.
    pub(super) fn json(&self, machine: &Machine, length: Length, took: Duration) -> String {
        let whole = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "length": length.name(),
            "seconds": took.as_secs_f64(),
            "machine": machine,
            "groups": self.groups,
        });
        format!("{whole:#}\n")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        layout::line(out, "", "measured", "budget", "verdict")?;
        for group in &self.groups {
            writeln!(out, "{}", group.name)?;
            for row in &group.rows {
                layout::row(out, row)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_comes_from_budgets_alone() {
        let figure = |value: f64| Figure::new("RSS", value, Unit::Megabytes);
        assert_eq!(Row::new("a", vec![figure(13.0)]).verdict, None);
        assert_eq!(Row::new("a", vec![figure(12.0).at_most(12.0)]).verdict, Some(Verdict::Ok));
        let two = vec![figure(1.0).at_most(12.0), figure(12.1).at_most(12.0)];
        assert_eq!(Row::new("a", two).verdict, Some(Verdict::Over));
        let late = Row::spread("a", &Sample::default(), Unit::Rate).at_most(1.0);
        assert_eq!((late.verdict, late.remark.is_some()), (None, true));
    }

    #[test]
    fn no_line_is_wider_than_a_hundred_columns() {
        let mut part = Part::new("group");
        let mut sample = Sample::default();
        for value in [0.001, 98_765.432, 1e9] {
            sample.push(value);
        }
        part.push(Row::spread("a name that is much longer than anything the table has", &sample, Unit::Work));
        part.push(
            Row::times("a", &sample, ("p95", 0.95)).at_most(100.0).remark(Some("a remark ".repeat(30))),
        );
        part.push(Row::missing("a", &"x".repeat(500)));
        let mut table = Table::default();
        table.add(part);
        let text = table.to_string();
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 100, "{widest}:\n{text}");
        assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
    }
}
