//! Which attacks there are, and what the broker must have counted after each.

/// One attack by traffic.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// Counters that must have grown, see the broker's `/metrics`.
    pub(super) counted: &'static [&'static str],
    /// Whether the attackers have an enrolled farm of their own.
    pub(super) has_farm: bool,
    /// Descriptors that nobody gives back before their time: allocations at the
    /// relay, which end after 10 min.
    pub(super) leaves: u64,
}

const fn stranger(name: &'static str, counted: &'static [&'static str]) -> Attack {
    Attack { name, counted, has_farm: false, leaves: 0 }
}

const fn insider(name: &'static str, counted: &'static [&'static str]) -> Attack {
    Attack { name, counted, has_farm: true, leaves: 0 }
}

/// By a farm that opens as many allocations at the relay as it may.
const fn at_relay(name: &'static str, counted: &'static [&'static str]) -> Attack {
    Attack { name, counted, has_farm: true, leaves: 64 }
}

/// All of them, in the order in which a connection comes to life.
pub(super) const ATTACKS: [Attack; 27] = [
    stranger("stun-flood", &["limit_stun_total", "stun_ignored_total"]),
    at_relay(
        "turn-floods",
        &["limit_relay_requests_total", "limit_relay_quota_total", "relay_allocations_total"],
    ),
    stranger(
        "turn-credentials",
        &["relay_challenges_total", "relay_bad_credentials_total", "limit_relay_requests_total"],
    ),
    at_relay("turn-peers-inside", &["relay_peer_refused_total"]),
    at_relay("turn-unbound", &["relay_unbound_total", "relay_not_permitted_total"]),
    stranger("turn-reflection", &["relay_challenges_total", "limit_relay_requests_total"]),
    stranger("tls-garbage", &["tls_failed_total"]),
    stranger("tls-half-open", &["limit_newcomers_total", "limit_sockets_per_address_total"]),
    stranger("tls-handshakes", &["limit_sockets_rate_total"]),
    stranger("http-heads", &["http_failed_total"]),
    stranger("websocket-heads", &["refused_upgrade_total"]),
    stranger("slow-loris", &["limit_sockets_per_address_total"]),
    stranger("requests", &["limit_requests_total"]),
    stranger("origins", &["refused_origin_total"]),
    stranger("frames", &["refused_protocol_total"]),
    stranger("states", &["refused_protocol_total", "refused_bad_signature_total", "claims_unproved_total"]),
    stranger("vanishing", &["opened_total", "welcomed_total"]),
    stranger("flood-heartbeats", &["limit_messages_total"]),
    stranger("flood-signals", &["limit_signals_total", "limit_messages_total"]),
    stranger("flood-watches", &["limit_messages_total"]),
    stranger("flood-pings", &["refused_protocol_total"]),
    insider("flood-access", &["limit_messages_total"]),
    insider("never-reading", &["slow_readers_total"]),
    insider("flapping", &["superseded_total", "limit_presence_total"]),
    stranger("pairing-guesses", &["limit_pairing_total", "limit_strikes_total", "undelivered_offline_total"]),
    stranger("token-guesses", &["refused_bad_token_total", "limit_token_guesses_total"]),
    stranger("enumeration", &["undelivered_offline_total", "presence_total"]),
];
