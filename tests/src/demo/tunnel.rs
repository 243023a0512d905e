//! What `farm-connect status` says of the tunnel, as far as the demo shows it.

use std::time::Duration;

use serde_json::Value;

/// The tunnel at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tunnel {
    /// The program's word for its state, `live` when it works.
    pub(super) state: String,
    /// Why it is down and what comes next, in words; empty while it works.
    pub(super) why: String,
    /// `direct` or `relayed`, while there is a tunnel.
    pub(super) path: Option<String>,
    /// Round-trip time.
    pub(super) round_trip: Option<Duration>,
    /// How long it has been in this state.
    pub(super) since: Duration,
}

impl Tunnel {
    /// Reads one status object.
    pub(super) fn of(status: &Value) -> Self {
        let text = |key: &str| status[key].as_str().map(str::to_owned);
        Self {
            state: text("state").unwrap_or_else(|| "unknown".to_owned()),
            why: why(status),
            path: text("path"),
            round_trip: duration(&status["rtt_ms"], 1e-3),
            since: duration(&status["since_seconds"], 1.0).unwrap_or_default(),
        }
    }

    /// Whether it works.
    pub(super) fn is_up(&self) -> bool {
        self.state == "live"
    }
}

/// `: farm offline, next attempt in 4 s`, as far as it is said.
fn why(status: &Value) -> String {
    let failure = status["failure"].as_str().map(|failure| format!(": {}", failure.replace('_', " ")));
    let next = duration(&status["next_attempt_seconds"], 1.0);
    let next = next.map(|next| format!(", next attempt in {:.0} s", next.as_secs_f64().ceil()));
    failure.unwrap_or_default() + &next.unwrap_or_default()
}

/// A number of `unit` seconds; None when it is none that makes sense.
fn duration(value: &Value, unit: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value.as_f64()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_status_says() {
        let live = json!({"state": "live", "path": "relayed", "rtt_ms": 1.5, "since_seconds": 2.25});
        let live = Tunnel::of(&live);
        assert!(live.is_up());
        assert_eq!(live.path.as_deref(), Some("relayed"));
        assert_eq!(live.round_trip, Some(Duration::from_micros(1_500)));
        assert_eq!(live.since, Duration::from_millis(2_250));
        let gone =
            Tunnel::of(&json!({"state": "waiting", "path": null, "rtt_ms": null, "since_seconds": -1}));
        assert!(!gone.is_up());
        assert_eq!((gone.path, gone.round_trip, gone.since), (None, None, Duration::ZERO));
        assert!(!Tunnel::of(&json!({})).is_up());
    }
}
