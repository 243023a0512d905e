//! From the table `[cluster]` to the engine.

use std::error::Error;
use std::fs;

use ring::rand::{SecureRandom, SystemRandom};

use crate::cluster::{ClusterOptions, Credentials, NatsEngine, ServerAddress};
use crate::config::ClusterSettings;
use crate::core::cluster::message::BrokerId;
use crate::core::cluster::{MAX_NAME, Membership};
use crate::core::enrollment::presentable;
use crate::register::Engine;

/// Nothing is connected before the broker runs it.
pub(super) fn engine(settings: &ClusterSettings, listen: &str) -> Result<Box<dyn Engine>, Box<dyn Error>> {
    let servers = settings.nats.iter().map(|server| server.parse::<ServerAddress>());
    let servers = servers.collect::<Result<Vec<_>, String>>()?;
    let user = match &settings.user {
        Some((user, file)) => {
            let password = fs::read_to_string(file)
                .map_err(|e| format!("can't read the password of NATS in {}: {e}", file.display()))?;
            Some((user.clone(), password.trim_end().to_owned()))
        }
        None => None,
    };
    if servers.iter().any(|server| !server.tls && !server.is_loopback()) {
        tracing::warn!(
            "NATS is called without TLS: whoever is on the way to it can read who meets whom and throw farms out"
        );
    }
    let name = settings.name.as_deref().unwrap_or(listen);
    let name: String = presentable(name).chars().take(MAX_NAME).collect();
    let own = settings.certificate.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    let credentials = Credentials::new(format!("farm-broker {name}"), user, settings.ca.as_deref(), own)?;
    let mut id = [0; 8];
    SystemRandom::new().fill(&mut id).map_err(|_| "the operating system gives no randomness")?;
    let membership = Membership { id: BrokerId(u64::from_le_bytes(id)), name };
    let (bucket, replicas) = (settings.bucket.clone(), settings.replicas);
    Ok(Box::new(NatsEngine::new(ClusterOptions { servers, credentials, bucket, replicas, membership })))
}
