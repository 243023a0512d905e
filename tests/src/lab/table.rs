//! The printed table: percentiles of each scenario in each topology.

use std::fmt::Write;
use std::time::Duration;

use super::outcome::seconds;
use super::{Goal, Outcome, Scenario, Topology};

/// From this many runs on, percentiles are judged; below, each run alone.
const JUDGED: usize = 10;

/// The slack where times are only shown: past everything that a run waits for.
const UNJUDGED: f64 = 1e4;

/// Rows in the order in which they first came.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    scenario: &'static Scenario,
    topology: &'static Topology,
    noticed: Vec<Option<Duration>>,
    recovered: Vec<Option<Duration>>,
    gaps: Vec<Duration>,
    registered: Vec<Duration>,
    lost: u64,
    wrong: usize,
    problems: usize,
    failed: usize,
}

impl Table {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        let row = self.row(outcome.scenario, outcome.topology);
        row.noticed.push(outcome.noticed);
        row.recovered.push(outcome.recovered);
        row.gaps.push(outcome.gap);
        row.registered.extend(outcome.registered);
        row.lost += outcome.lost;
        row.wrong += usize::from(!outcome.checksum);
        row.problems += usize::from(!outcome.problems.is_empty());
    }

    /// Adds a run that could not be measured.
    pub fn add_failed(&mut self, scenario: &'static Scenario, topology: &'static Topology) {
        self.row(scenario, topology).failed += 1;
    }

    fn row(&mut self, scenario: &'static Scenario, topology: &'static Topology) -> &mut Row {
        let found = self
            .rows
            .iter()
            .position(|row| std::ptr::eq(row.scenario, scenario) && std::ptr::eq(row.topology, topology));
        let index = found.unwrap_or_else(|| {
            self.rows.push(Row {
                scenario,
                topology,
                noticed: Vec::new(),
                recovered: Vec::new(),
                gaps: Vec::new(),
                registered: Vec::new(),
                lost: 0,
                wrong: 0,
                problems: 0,
                failed: 0,
            });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    /// Whether every row is as it must be; times may be `slack` times the goal.
    #[must_use]
    pub fn is_good(&self, slack: f64) -> bool {
        self.rows.iter().all(|row| row.misses(slack).is_empty())
    }

    /// The table, in Markdown; times in seconds.
    #[must_use]
    pub fn markdown(&self, slack: f64) -> String {
        let mut out = "| scenario | topology | runs | noticed p50 / p95 / max | goal | \
            recovered p50 / p95 / max | goal | longest gap | bytes lost | checksum | |\n\
            |---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for row in &self.rows {
            let goals = &row.scenario.goals;
            let misses = row.misses(slack);
            let verdict =
                if misses.is_empty() { "ok".to_owned() } else { format!("**MISS**: {}", misses.join(", ")) };
            // Without an outage there is nothing to recover from.
            let recovered = goals.recovered.map_or("–".to_owned(), |_| times(&row.recovered));
            let gap_goal = goals.gap.map_or(String::new(), |goal| format!(" (goal {})", seconds(goal)));
            let gap = row.gaps.iter().max().filter(|gap| !gap.is_zero());
            // Writing to a string can't fail.
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.scenario.name,
                row.topology,
                row.gaps.len() + row.failed,
                times(&row.noticed),
                goal_text(goals.noticed),
                recovered,
                goal_text(goals.recovered),
                gap.map_or("–".to_owned(), |gap| seconds(*gap) + &gap_goal),
                row.lost,
                if row.wrong == 0 { "right".to_owned() } else { format!("{} wrong", row.wrong) },
                verdict
            );
        }
        out
    }
}

impl Row {
    fn misses(&self, slack: f64) -> Vec<String> {
        let slack = if self.topology.is_fast() { slack } else { UNJUDGED };
        let goals = &self.scenario.goals;
        let mut misses = Vec::new();
        let mut judge = |what: &str, got: &[Option<Duration>], goal: Option<Goal>| {
            let Some(goal) = goal else { return };
            // A few runs say nothing of a median.
            let p50 = (got.len() >= JUDGED).then_some((50, goal.p50));
            for (percent, limit) in p50.into_iter().chain([(95, goal.p95)]) {
                if percentile(got, percent).is_none_or(|time| time > limit.mul_f64(slack)) {
                    misses.push(format!("{what} p{percent}"));
                }
            }
        };
        if !self.gaps.is_empty() {
            judge("noticed", &self.noticed, goals.noticed);
            judge("recovered", &self.recovered, goals.recovered);
        }
        let gap = self.gaps.iter().max().copied().unwrap_or_default();
        if goals.gap.is_some_and(|goal| gap > goal.mul_f64(slack)) {
            misses.push("gap".to_owned());
        }
        let slowest = self.registered.iter().max().copied().unwrap_or_default();
        if goals.registered.is_some_and(|goal| slowest > goal.mul_f64(slack)) {
            misses.push(format!("registered {}", seconds(slowest)));
        }
        for (count, what) in [
            (self.wrong, "checksums wrong"),
            (self.problems, "runs with problems"),
            (self.failed, "runs failed"),
            (usize::from(self.lost > 0), "with bytes lost"),
        ] {
            if count > 0 {
                misses.push(format!("{count} {what}"));
            }
        }
        misses
    }
}

/// The nearest-rank percentile; None when it is a run without that time.
fn percentile(times: &[Option<Duration>], percent: usize) -> Option<Duration> {
    let mut sorted: Vec<_> = times.iter().map(|time| time.unwrap_or(Duration::MAX)).collect();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().filter(|time| *time != Duration::MAX)
}

/// `0.02 / 0.03 / 0.03`, or a dash when there is none.
fn times(times: &[Option<Duration>]) -> String {
    if times.iter().all(Option::is_none) {
        return "–".to_owned();
    }
    let text = |percent| percentile(times, percent).map_or("never".to_owned(), seconds);
    format!("{} / {} / {}", text(50), text(95), text(100))
}

fn goal_text(goal: Option<Goal>) -> String {
    goal.map_or("–".to_owned(), |goal| format!("{} / {}", seconds(goal.p50), seconds(goal.p95)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks_and_never_is_the_longest() {
        let ms = |n: u64| Some(Duration::from_millis(n));
        let twenty: Vec<_> = (1..=20).map(ms).collect();
        assert_eq!((percentile(&twenty, 50), percentile(&twenty, 95)), (ms(10), ms(19)));
        let with_never = [ms(1), None, ms(2)];
        assert_eq!((percentile(&with_never, 50), percentile(&with_never, 95)), (ms(2), None));
        assert_eq!(times(&with_never), "0.00 / never / never");
        assert_eq!(times(&[None]), "–");
    }
}
