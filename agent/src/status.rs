//! How the agent stands, as its commands and scripts see it.

use std::time::Instant;

use farm_tunnel::carrier::Condition;
use farm_tunnel::link;
use farm_tunnel::peer::PathKind;
use farm_tunnel::words::duration;
use serde::{Deserialize, Serialize};

/// Everything that `farm-agent status` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What its owner calls the farm.
    pub name: String,
    /// The farm's id.
    pub farm: String,
    /// The program's version.
    pub version: String,
    /// Seconds since this start.
    pub uptime_seconds: u64,
    /// Starts so far.
    pub starts: u64,
    /// The link to the broker.
    pub broker: BrokerStatus,
    /// The public address that the broker's STUN sees, if it answers.
    pub public_address: Option<String>,
    /// What phones may reach.
    pub services: Vec<String>,
    /// Paired phones.
    pub phones: usize,
    /// Sessions, live or parked.
    pub sessions: Vec<SessionStatus>,
    /// What the operator should know: damaged state and the like.
    pub alarms: Vec<String>,
    /// Refusals and errors since the start, by name; zeros left out.
    pub counters: std::collections::BTreeMap<String, u64>,
}

/// The link to the broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Its URL.
    pub url: String,
    /// `online`, `offline`, `connecting`, `authenticating` or `stopped`.
    pub state: String,
    /// Why it is not online.
    pub reason: Option<String>,
    /// Seconds in this state.
    pub since_seconds: f64,
    /// Attempts since it was last up.
    pub attempt: u32,
    /// Seconds until the next attempt.
    pub next_attempt_seconds: Option<f64>,
    /// Round trip of heartbeats.
    pub rtt_ms: Option<f64>,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Session and phone, short.
    pub session: String,
    /// What the phone's owner calls it.
    pub phone: String,
    /// `live`, `connecting` or `parked`.
    pub state: String,
    /// Open streams.
    pub streams: usize,
    /// Bytes held for sending, replay and readers.
    pub buffered_bytes: usize,
    /// How its carrier is doing.
    #[serde(flatten)]
    pub path: PathStatus,
}

/// How a carrier is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
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
}

impl Status {
    /// In a few words, without anything that changes all the time.
    pub fn line(&self) -> String {
        let mut words = vec![format!("broker {}", self.broker.in_words())];
        words.extend(self.broker.reason.clone());
        match self.sessions.len() {
            0 => words.push("no phone connected".to_owned()),
            _ => words.extend(self.sessions.iter().map(SessionStatus::line)),
        }
        words.extend(self.alarms.iter().map(|alarm| format!("ALARM: {alarm}")));
        format!("{}: {}", self.name, words.join(" · "))
    }

    /// All of it, a line for each thing.
    pub fn block(&self) -> String {
        let mut lines = vec![format!("{} ({})", self.name, self.farm)];
        let mut line = |title: &str, text: String| lines.push(format!("{title:<9} {text}"));
        line("agent", format!("up for {}, start {}", duration(self.uptime_seconds as f64), self.starts));
        let broker = &self.broker;
        let mut text = format!("{} for {}", broker.in_words(), duration(broker.since_seconds));
        if let Some(rtt) = broker.rtt_ms {
            text += &format!(", round trip {rtt:.0} ms");
        }
        if let Some(reason) = &broker.reason {
            text += &format!(" ({reason})");
        }
        if let Some(next) = broker.next_attempt_seconds {
            text += &format!(", next attempt in {}", duration(next));
        }
        if broker.state != "online" && self.sessions.iter().any(|session| session.state == "live") {
            text += "; tunnels are fine";
        }
        line("broker", format!("{text}; {}", broker.url));
        if let Some(address) = &self.public_address {
            line("address", format!("{address} as the broker sees it"));
        }
        line("services", self.services.join(", "));
        line("phones", format!("{} paired, {} connected", self.phones, self.sessions.len()));
        for session in &self.sessions {
            line("session", session.block());
        }
        for alarm in &self.alarms {
            line("ALARM", alarm.clone());
        }
        lines.join("\n")
    }
}

impl SessionStatus {
    fn state_in_words(&self) -> &str {
        match self.state.as_str() {
            "parked" => "lost its phone; kept for 5 min",
            other => other,
        }
    }

    fn line(&self) -> String {
        let path = [self.path.path.as_deref(), self.path.grade.as_deref()];
        let path: String = path.into_iter().flatten().map(|word| format!(", {word}")).collect();
        format!("{} {}{path}", self.phone, self.state_in_words())
    }

    fn block(&self) -> String {
        let mut text = self.line();
        if let (Some(rtt), Some(jitter), Some(loss)) = (self.path.rtt_ms, self.path.jitter_ms, self.path.loss)
        {
            let loss = loss * 100.0;
            text += &format!(", round trip {rtt:.1} ms, jitter {jitter:.1} ms, loss {loss:.0} %");
        }
        format!("{text}; {} streams ({})", self.streams, self.session)
    }
}

fn milliseconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl BrokerStatus {
    fn in_words(&self) -> &str {
        match self.state.as_str() {
            "online" => "online",
            "offline" => "away",
            "connecting" | "authenticating" => "away, connecting",
            _ => "stopped",
        }
    }

    /// From the link's own view.
    pub fn new(url: String, snapshot: &link::Snapshot, now: Instant) -> Self {
        let online = snapshot.state == link::State::Online;
        Self {
            url,
            state: snapshot.state.name().to_owned(),
            reason: (!online).then(|| snapshot.reason.to_string()),
            since_seconds: now.saturating_duration_since(snapshot.since).as_secs_f64(),
            attempt: snapshot.attempt,
            next_attempt_seconds: snapshot
                .next_attempt
                .map(|at| at.saturating_duration_since(now).as_secs_f64()),
            rtt_ms: snapshot.rtt.map(milliseconds),
        }
    }
}

impl PathStatus {
    /// From a carrier's condition.
    pub fn new(condition: &Condition) -> Self {
        Self {
            path: condition.path.map(|p| {
                match p.kind {
                    PathKind::Direct => "direct",
                    PathKind::Relayed => "relayed",
                }
                .to_owned()
            }),
            rtt_ms: condition.health.rtt.map(milliseconds),
            jitter_ms: condition.health.rtt.map(|_| milliseconds(condition.health.jitter)),
            loss: condition.health.rtt.map(|_| condition.health.loss),
            grade: condition.health.grade.map(|g| g.name().to_owned()),
        }
    }
}
