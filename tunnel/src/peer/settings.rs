//! What every connection is built with: the engine's settings, and where its defaults hurt.

use std::time::Duration;

use rtc::{ice::mdns::MulticastDnsMode, peer_connection::configuration::setting_engine::SctpMaxMessageSize};
use webrtc::peer_connection::{
    RTCConfiguration, RTCConfigurationBuilder, RTCIceServer, RTCIceTransportPolicy, SettingEngine,
    SettingEngineBuilder,
};

use super::{IceServer, PeerConfig, relay};
use crate::recovery::Ways;

/// Largest message we declare to accept (`a=max-message-size`), in bytes: what browsers declare.
/// The engine's default of 64 KiB has no room for a frame's header; we send at most
/// [`super::MAX_MESSAGE`] and treat more as a violation.
const DECLARED_MESSAGE: u32 = 256 << 10;

/// ICE consent checks (RFC 7675): a check every `keepalive`, `disconnected` without an answer
/// until the path counts as broken, and `failed` more until the connection does. Only these
/// checks refresh the timer, data does not. They are the last resort: the answered pings of the
/// session notice sooner.
struct Consent {
    keepalive: Duration,
    disconnected: Duration,
    failed: Duration,
}

/// While somebody looks: broken after four lost checks (three is the least that survives a single
/// loss of a burst), failed 6 s after the last answer, inside the 10 s an LTE hand-over may take
/// plus the pings' own verdict at 3 s.
const WATCHED: Consent = Consent {
    keepalive: Duration::from_millis(500),
    disconnected: Duration::from_secs(2),
    failed: Duration::from_secs(4),
};

/// While nobody does: a check and its answer are 220 bytes each way, so once a minute is 0.6 MB a
/// day of the 1 MB an idle modem may use; the session's pings keep the NAT's mapping. Failed after
/// 200 s, before the 300 s after which a stale session is cleaned up.
const UNWATCHED: Consent = Consent {
    keepalive: Duration::from_secs(60),
    disconnected: Duration::from_secs(180),
    failed: Duration::from_secs(20),
};

/// Between two connectivity checks of one pair of candidates (RFC 8445, section 14.2 asks for at
/// least 50 ms for all pairs together; the engine paces nothing, our pairs are few).
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Checks per pair before it is given up: 5 s of them. The default of 7 would be 350 ms, less than
/// a peer behind a slow modem needs to receive our answer at all.
const CHECKS: u16 = 100;

/// How long a direct path is preferred to a relayed one that already works, the other side's
/// perhaps.
const RELAY_PATIENCE: Duration = relay::PATIENCE;

/// The protocol engine's settings.
pub(super) fn engine(config: &PeerConfig) -> SettingEngine {
    let relay_only = is_relay_only(config);
    let consent = if config.watched { WATCHED } else { UNWATCHED };
    let at_once = Some(Duration::ZERO);
    let builder = SettingEngineBuilder::new()
        // The default binds port 5353 and asks the network about every browser's hidden address;
        // those are learned from the browser's own checks.
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_ice_timeouts(Some(consent.disconnected), Some(consent.failed), Some(consent.keepalive))
        .with_ice_connection_attempts(Some(CHECK_INTERVAL), Some(CHECKS))
        // The default waits 1 s before it accepts an address learned from a check.
        .with_host_acceptance_min_wait(at_once)
        .with_srflx_acceptance_min_wait(at_once)
        .with_prflx_acceptance_min_wait(at_once)
        .with_relay_acceptance_min_wait(Some(if relay_only { Duration::ZERO } else { RELAY_PATIENCE }))
        // Without it an ICE restart keeps the sockets of the address that is gone.
        .with_discard_local_candidates_during_ice_restart(true)
        .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(DECLARED_MESSAGE));
    match config.tuning.receive_window {
        Some(bytes) => builder.with_sctp_max_receive_buffer_size(bytes),
        None => builder,
    }
    .build()
}

/// The connection's configuration: its servers, already resolved, and which paths it may take.
pub(super) fn configuration(config: &PeerConfig, servers: &[IceServer]) -> RTCConfiguration {
    let servers = servers
        .iter()
        .map(|server| RTCIceServer {
            urls: server.urls.clone(),
            username: server.username.clone(),
            credential: server.credential.clone(),
        })
        .collect();
    let policy =
        if is_relay_only(config) { RTCIceTransportPolicy::Relay } else { RTCIceTransportPolicy::All };
    RTCConfigurationBuilder::default().with_ice_servers(servers).with_ice_transport_policy(policy).build()
}

fn is_relay_only(config: &PeerConfig) -> bool {
    config.ways == Ways::RelayOnly && config.relay.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_survives_lost_checks_and_ends_before_the_session_does() {
        for consent in [WATCHED, UNWATCHED] {
            assert!(consent.disconnected >= 3 * consent.keepalive);
            assert!(consent.disconnected + consent.failed < Duration::from_secs(300));
        }
        assert!(WATCHED.disconnected + WATCHED.failed <= Duration::from_secs(10));
        // A pair is not given up before a peer that was told of us late has had time to answer.
        assert!(CHECK_INTERVAL * u32::from(CHECKS) >= Duration::from_secs(5));
    }
}
