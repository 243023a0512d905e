//! How a tunnel stands, for people and scripts.

use serde::{Deserialize, Serialize};

/// Everything that `farm-connect status` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What its owner calls the farm.
    pub name: String,
    /// The farm's id.
    pub farm: String,
    /// `live`, `connecting`, `waiting`, `not_paired` or `stopped`.
    pub state: String,
    /// Seconds in this state.
    pub since_seconds: f64,
    /// What went wrong, by its stable name, while not live.
    pub failure: Option<String>,
    /// What is done about it, by its stable name.
    pub strategy: Option<String>,
    /// Attempts since it was last live.
    pub attempt: u32,
    /// Seconds until the next attempt, if none is under way.
    pub next_attempt_seconds: Option<f64>,
    /// The broker's word on the farm; a hint.
    pub farm_present: Option<bool>,
    /// `online`, `offline`, `connecting`, `authenticating` or `stopped`.
    pub broker: String,
    /// Why the broker is not reached.
    pub broker_reason: Option<String>,
    /// `direct` or `relayed`.
    pub path: Option<String>,
    /// Smoothed round trip.
    pub rtt_ms: Option<f64>,
    /// Jitter.
    pub jitter_ms: Option<f64>,
    /// Share of pings lost, 0 to 1.
    pub loss: Option<f32>,
    /// `good`, `fair`, `poor` or `lost`.
    pub grade: Option<String>,
    /// What the farm lets this device reach, as far as known.
    pub services: Vec<String>,
    /// Open streams.
    pub streams: usize,
    /// Bytes held for sending, replay and readers.
    pub buffered_bytes: usize,
    /// Carriers since the start.
    pub carriers: u64,
}

impl Status {
    /// One line for people.
    pub fn sentence(&self) -> String {
        let mut line = match self.state.as_str() {
            "live" => {
                let path = self.path.as_deref().unwrap_or("path unknown");
                let rtt = self.rtt_ms.map_or(String::new(), |rtt| format!(" · {rtt:.1} ms"));
                let grade = self.grade.as_deref().map_or(String::new(), |grade| format!(" · {grade}"));
                format!("live · {path}{rtt}{grade}")
            }
            "not_paired" => "the farm no longer knows this device: pair again".to_owned(),
            state => {
                let mut line = state.to_owned();
                if let Some(failure) = &self.failure {
                    line += &format!(" ({})", failure.replace('_', " "));
                }
                if let Some(next) = self.next_attempt_seconds {
                    line += &format!(", next attempt in {next:.1} s");
                }
                line
            }
        };
        match (self.state.as_str(), self.broker.as_str(), self.farm_present) {
            (_, "online", Some(false)) if self.state != "live" => line += " · the farm is not at the broker",
            ("live", broker, _) if broker != "online" => line += " · broker away, tunnel fine",
            (_, broker, _) if broker != "online" => line += &format!(" · broker {broker}"),
            _ => {}
        }
        format!("{}: {line} · for {:.0} s", self.name, self.since_seconds)
    }
}
