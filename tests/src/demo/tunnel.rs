//! What `farm-connect status` says of the tunnel, as far as the demo shows it.

use std::time::Duration;

use serde_json::Value;

/// The tunnel at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tunnel {
    /// The program's word for its state.
    pub(super) state: String,
    /// `direct` or `relayed`, while there is a tunnel.
    pub(super) path: Option<String>,
    /// Round-trip time.
    pub(super) round_trip: Option<Duration>,
}

impl Tunnel {
    /// Reads one status object.
    pub(super) fn of(status: &Value) -> Self {
        let text = |key: &str| status[key].as_str().map(str::to_owned);
        Self {
            state: text("state").unwrap_or_else(|| "unknown".to_owned()),
            path: text("path"),
            round_trip: status["rtt_ms"].as_f64().map(|ms| Duration::from_secs_f64(ms.max(0.0) / 1e3)),
        }
    }

    /// Whether it works.
    pub(super) fn is_up(&self) -> bool {
        self.state == "connected"
    }
}
