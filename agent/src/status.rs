//! How the agent stands, as its commands and scripts see it.

use std::time::Instant;

use farm_tunnel::carrier::Condition;
use farm_tunnel::link;
use farm_tunnel::peer::PathKind;
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

fn milliseconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl BrokerStatus {
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
