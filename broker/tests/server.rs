//! The real server over loopback, with real keys.
#![allow(clippy::unwrap_used)]

#[path = "server/alerts.rs"]
mod alerts;
#[path = "server/backup.rs"]
mod backup;
#[path = "server/claims.rs"]
mod claims;
#[path = "server/client.rs"]
mod client;
#[path = "server/commands.rs"]
mod commands;
#[path = "server/dashboard.rs"]
mod dashboard;
#[path = "server/devices.rs"]
mod devices;
#[path = "server/enrollment.rs"]
mod enrollment;
#[path = "server/front.rs"]
mod front;
#[path = "server/hostile.rs"]
mod hostile;
#[path = "server/relay.rs"]
mod relay;
#[path = "server/reload.rs"]
mod reload;
#[path = "server/tls.rs"]
mod tls;
#[path = "server/upgrade.rs"]
mod upgrade;
