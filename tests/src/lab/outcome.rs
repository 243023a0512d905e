//! What one run showed.

use std::time::Duration;

use serde_json::{Value, json};

use super::{LabError, Scenario, Topology};

/// One run of a scenario.
pub struct Outcome {
    /// Which.
    pub scenario: &'static Scenario,
    /// Where.
    pub topology: &'static Topology,
    /// What chance was seeded with.
    pub seed: u64,
    /// From the fault to the first sign of it.
    pub noticed: Option<Duration>,
    /// The words of that sign.
    pub sign: Option<String>,
    /// See [`super::Goals::recovered`].
    pub recovered: Option<Duration>,
    /// The longest time without an answer.
    pub gap: Duration,
    /// From the broker's return to the farm's registration.
    pub registered: Option<Duration>,
    /// Bytes that were lost or altered.
    pub lost: u64,
    /// Whether the download's checksum was right.
    pub checksum: bool,
    /// What must not be, in words.
    pub problems: Vec<String>,
    /// What the programs said, with the time since the fault.
    pub timeline: Vec<String>,
}

/// A run in which nothing could be measured.
pub struct Failed {
    /// Which.
    pub scenario: &'static Scenario,
    /// Where.
    pub topology: &'static Topology,
    /// Why.
    pub error: LabError,
}

impl Outcome {
    /// What is wrong with it: its problems, and the goals that it misses by
    /// more than the factor `slack` (the 95th percentile's, for one run).
    #[must_use]
    pub fn misses(&self, slack: f64) -> Vec<String> {
        let mut misses = self.problems.clone();
        let goals = &self.scenario.goals;
        let mut judge = |what: &str, got: Option<Duration>, goal: Option<Duration>| {
            let Some(goal) = goal else { return };
            match got {
                Some(got) if got <= goal.mul_f64(slack) || !self.topology.is_fast() => {}
                Some(got) => misses.push(format!("{what} {} > {}", seconds(got), seconds(goal))),
                None => misses.push(format!("never {what}")),
            }
        };
        judge("noticed", self.noticed, goals.noticed.map(|goal| goal.p95));
        judge("recovered", self.recovered, goals.recovered.map(|goal| goal.p95));
        judge("gap", Some(self.gap), goals.gap);
        judge("registered", self.registered, goals.registered);
        if self.lost > 0 {
            misses.push(format!("{} bytes lost", self.lost));
        }
        if !self.checksum {
            misses.push("wrong checksum".to_owned());
        }
        misses
    }

    /// For scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        let ms = |time: Option<Duration>| time.map(|time| (time.as_secs_f64() * 1e4).round() / 10.0);
        json!({
            "scenario": self.scenario.name,
            "topology": self.topology.name,
            "seed": self.seed,
            "noticed_ms": ms(self.noticed),
            "sign": self.sign,
            "recovered_ms": ms(self.recovered),
            "gap_ms": ms(Some(self.gap)),
            "registered_ms": ms(self.registered),
            "bytes_lost": self.lost,
            "checksum": self.checksum,
            "problems": self.problems,
        })
    }
}

/// A time in seconds, as tables show it.
pub(super) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.2}") } else { format!("{seconds:.1}") }
}
