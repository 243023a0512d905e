//! How a tunnel stands, for people and scripts.

use farm_tunnel::words::duration;
use serde::{Deserialize, Serialize};

/// Everything that `farm-connect status` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What its owner calls the farm.
    pub name: String,
    /// The farm's id.
    pub farm: String,
    /// `live`, `connecting`, `waiting`, `resting`, `not_paired` or `stopped`.
    pub state: String,
    /// Seconds in this state.
    pub since_seconds: f64,
    /// What went wrong, by its stable name, while not live.
    pub failure: Option<String>,
    /// The same in plain words.
    pub reason: Option<String>,
    /// What is done about it, by its stable name.
    pub strategy: Option<String>,
    /// The same in plain words.
    pub doing: Option<String>,
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
    /// Seconds since the link to the broker came or went.
    pub broker_since_seconds: f64,
    /// Seconds until the next attempt at the broker.
    pub broker_next_attempt_seconds: Option<f64>,
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
    /// Which of the programs of this device this is, 0 to 7.
    pub slot: u8,
    /// What else the user should know.
    pub notice: Option<String>,
}

impl Status {
    /// In a few words, without anything that changes all the time.
    pub fn line(&self) -> String {
        let mut words = vec![self.state_in_words().to_owned()];
        match self.state.as_str() {
            "live" => {
                words.extend(self.path.clone());
                words.extend(self.grade.clone());
            }
            _ => {
                words.extend(self.reason.clone());
                words.extend(self.doing.clone());
            }
        }
        words.push(format!("broker {}", self.broker_in_words()));
        words.extend(self.notice.clone());
        format!("{}: {}", self.name, words.join(" · "))
    }

    /// All of it, a line for each thing.
    pub fn block(&self) -> String {
        let mut lines = vec![format!("{} ({})", self.name, self.farm)];
        let mut line = |title: &str, text: String| lines.push(format!("{title:<9} {text}"));
        let mut tunnel = format!("{} for {}", self.state_in_words(), duration(self.since_seconds));
        if self.state == "resting" {
            tunnel += "; nobody looks, it connects when somebody does";
        }
        line("tunnel", tunnel);
        if self.state == "live" {
            line("path", self.path_in_words());
        }
        if let Some(reason) = &self.reason {
            line("reason", reason.clone());
        }
        if let Some(doing) = &self.doing {
            let mut text = doing.clone();
            match self.next_attempt_seconds {
                Some(next) => text += &format!("; next attempt in {}", duration(next)),
                None if self.state == "connecting" => text += "; an attempt is under way",
                None => {}
            }
            if self.attempt > 1 {
                text += &format!(" ({} failed)", self.attempt);
            }
            line("doing", text);
        }
        let mut broker = format!("{} for {}", self.broker_in_words(), duration(self.broker_since_seconds));
        if let Some(reason) = &self.broker_reason {
            broker += &format!(" ({reason})");
        }
        if let Some(next) = self.broker_next_attempt_seconds {
            broker += &format!(", next attempt in {}", duration(next));
        }
        line("broker", broker);
        if !self.services.is_empty() {
            line("services", self.services.join(", "));
        }
        if self.streams > 0 {
            line("streams", format!("{} open", self.streams));
        }
        if let Some(notice) = &self.notice {
            line("note", notice.clone());
        }
        lines.join("\n")
    }

    fn state_in_words(&self) -> &str {
        match self.state.as_str() {
            "not_paired" => "not paired",
            other => other,
        }
    }

    fn path_in_words(&self) -> String {
        let mut text = self.path.clone().unwrap_or_else(|| "not known yet".to_owned());
        if let (Some(rtt), Some(jitter), Some(loss)) = (self.rtt_ms, self.jitter_ms, self.loss) {
            let loss = loss * 100.0;
            text += &format!(", round trip {rtt:.1} ms, jitter {jitter:.1} ms, loss {loss:.0} %");
        }
        if let Some(grade) = &self.grade {
            text += &format!(": {grade}");
        }
        text
    }

    fn broker_in_words(&self) -> String {
        match (self.broker.as_str(), self.state.as_str(), self.farm_present) {
            ("online", "live" | "not_paired", _) | ("online", _, None) => "online".to_owned(),
            ("online", _, Some(true)) => "online, the farm is there".to_owned(),
            ("online", _, Some(false)) => "online, the farm is not there".to_owned(),
            (_, "live", _) => "away, tunnel fine".to_owned(),
            (state, _, _) => state.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str) -> Status {
        Status {
            name: "North field".to_owned(),
            farm: "abc".to_owned(),
            state: state.to_owned(),
            since_seconds: 125.0,
            failure: None,
            reason: None,
            strategy: None,
            doing: None,
            attempt: 0,
            next_attempt_seconds: None,
            farm_present: Some(true),
            broker: "online".to_owned(),
            broker_reason: None,
            broker_since_seconds: 60.0,
            broker_next_attempt_seconds: None,
            path: None,
            rtt_ms: None,
            jitter_ms: None,
            loss: None,
            grade: None,
            services: Vec::new(),
            streams: 0,
            buffered_bytes: 0,
            carriers: 1,
            slot: 0,
            notice: None,
        }
    }

    #[test]
    fn a_live_tunnel_without_its_broker_is_no_alarm() {
        let path = Some("direct".to_owned());
        let grade = Some("good".to_owned());
        let live = Status { path, grade, broker: "offline".to_owned(), ..status("live") };
        assert_eq!(live.line(), "North field: live · direct · good · broker away, tunnel fine");
        assert!(live.block().contains("tunnel    live for 2 min 5 s"), "{}", live.block());
    }

    #[test]
    fn a_waiting_one_says_why_what_and_when() {
        let waiting = Status {
            reason: Some("the farm is not connected".to_owned()),
            doing: Some("connecting as soon as the farm is back".to_owned()),
            next_attempt_seconds: Some(8.04),
            attempt: 3,
            farm_present: Some(false),
            ..status("waiting")
        };
        let block = waiting.block();
        for part in [
            "waiting for 2 min 5 s",
            "reason    the farm is not connected",
            "as soon as the farm is back; next attempt in 8.0 s (3 failed)",
            "the farm is not there",
        ] {
            assert!(block.contains(part), "{part:?} is missing in:\n{block}");
        }
        assert!(!waiting.line().contains("8.0"), "it would change all the time: {}", waiting.line());
    }
}
