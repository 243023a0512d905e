//! What happened how often since the broker started.

use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($(#[$about:meta])* $type:ident: $(#[doc = $doc:literal] $name:ident),+ $(,)?) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $type {
            $(#[doc = $doc] pub $name: u64),+
        }

        impl $type {
            /// Every counter with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),+].into_iter()
            }

            /// Every counter with its name and what it counts.
            pub fn explained(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $doc.trim_ascii(), self.$name)),+].into_iter()
            }
        }
    };
}

counters! {
    /// Counts since the broker started; each limit has its own.
    Counters:
    /// Connections that were opened.
    opened,
    /// Devices that were let in.
    welcomed,
    /// Devices that were let in by what came with their request, without a challenge.
    claims,
    /// Requests with a claim that proved nothing: its device was asked by a challenge.
    claims_unproved,
    /// Farms that were enrolled.
    enrolled,
    /// Signals handed on.
    signals,
    /// Presence messages sent.
    presence,
    /// Connections closed because a newer one of the same device took over.
    superseded,
    /// Connections closed because no heartbeat came.
    stale_connections,
    /// Connections closed because they did not authenticate in time.
    unauthenticated,
    /// Connections closed because their device did not read.
    slow_readers,
    /// Devices forgotten after their absence.
    forgotten_devices,
    /// Enrollments that the store could not make durable.
    failed_enrollments,
    /// Refused: not enrolled.
    refused_not_enrolled,
    /// Refused: enrollment token wrong, used or expired.
    refused_bad_token,
    /// Refused: the signature does not match.
    refused_bad_signature,
    /// Refused: called by another name.
    refused_wrong_name,
    /// Refused: an older or absurd epoch.
    refused_stale_epoch,
    /// Refused: the operator revoked the farm.
    refused_revoked,
    /// Refused: broke the protocol.
    refused_protocol,
    /// Limit: connections altogether.
    limit_connections,
    /// Limit: connections from one address.
    limit_connections_per_address,
    /// Limit: handshakes a second, altogether or from one address.
    limit_handshakes,
    /// Limit: guesses at enrollment tokens from one address.
    limit_token_guesses,
    /// Limit: enrolled farms.
    limit_farms,
    /// Limit: messages a second of one connection.
    limit_messages,
    /// Limit: signals a second of one connection.
    limit_signals,
    /// Limit: the size of one signal.
    limit_signal_size,
    /// Limit: pairing signals of one phone or to one farm.
    limit_pairing,
    /// Limit: signals of one connection beyond other limits.
    limit_strikes,
    /// Limit: phones or invitations of one farm.
    limit_access,
    /// Limit: farms watched by one connection or altogether.
    limit_watches,
    /// Limit: presence of one farm changed too often and was held back.
    limit_presence,
    /// Changes of a farm that came too often to be recorded one by one.
    history_held_back,
    /// Devices that went on to another broker of the cluster.
    moved_away,
    /// Messages of other brokers.
    peer_messages,
    /// Signals handed to other brokers.
    peer_signals,
    /// Messages of other brokers that were missed: they are asked to say all again.
    peer_gaps,
    /// Other brokers that count other devices than this one knows of: asked likewise.
    peer_doubts,
    /// How often all was said again to the other brokers.
    peer_said_all,
    /// Farms claimed by another broker without the farm's own signature.
    peer_unproven,
    /// Messages of other brokers that can't be read, or are of another version.
    peer_unreadable,
    /// Records that the engine of the cluster had lost and was given again.
    restored,
    /// Messages of brokers beyond the 32 of one cluster, which are not listened to.
    peer_too_many,
    /// Signals whose receiver is not here, not known to the sender, or unknown.
    undelivered_offline,
    /// Limit: sockets altogether.
    limit_sockets,
    /// Limit: sockets from one address.
    limit_sockets_per_address,
    /// Limit: new sockets a second from one address.
    limit_sockets_rate,
    /// Limit: sockets that are no device's yet; the oldest gave way.
    limit_newcomers,
    /// Limit: requests for pages over one connection.
    limit_requests,
    /// Limit: STUN requests from one network or altogether.
    limit_stun,
    /// TLS handshakes that failed or took too long.
    tls_failed,
    /// HTTP connections ended by a head that was malformed, too large or late.
    http_failed,
    /// Refused: not the beginning of a WebSocket of this protocol.
    refused_upgrade,
    /// Refused: a WebSocket of a page that is not the app's.
    refused_origin,
    /// STUN requests answered.
    stun_answered,
    /// Datagrams that are no STUN request.
    stun_ignored,
    /// Alerts that the webhook took.
    alerts_sent,
    /// Tries to deliver an alert that failed and are made again.
    alerts_failed,
    /// Alerts given up: refused by the webhook, a day old, or too many.
    alerts_dropped,
}

counters! {
    /// What the relay did and refused since the broker started.
    RelayCounters:
    /// Bytes relayed, both directions, without TURN's own.
    relayed_bytes,
    /// Packets relayed.
    relayed_packets,
    /// Relay: allocations that were opened.
    relay_allocations,
    /// Relay: allocations that ended because nobody refreshed them.
    relay_expired,
    /// Relay: allocations for which the system had no socket.
    relay_sockets_failed,
    /// Relay: requests without credentials, or with an old nonce, that were told how to ask.
    relay_challenges,
    /// Relay: requests whose credentials are not ours.
    relay_bad_credentials,
    /// Relay: requests whose credentials have expired.
    relay_expired_credentials,
    /// Relay: allocations closed and requests refused because their farm was revoked.
    relay_revoked,
    /// Relay: packets that are neither STUN nor a channel's.
    relay_malformed,
    /// Relay: packets of clients that have no allocation, or no such channel.
    relay_unbound,
    /// Relay: packets to or from a peer without a permission.
    relay_not_permitted,
    /// Relay: peers refused because of where they are.
    relay_peer_refused,
    /// Relay: connections closed because they opened no allocation.
    relay_idle_streams,
    /// Relay: packets dropped because a client's connection did not take them.
    relay_stream_full,
    /// Limit: requests to the relay from one network.
    limit_relay_requests,
    /// Limit: allocations, permissions or channels.
    limit_relay_quota,
    /// Limit: bandwidth of one allocation; packets dropped.
    limit_relay_bandwidth_allocation,
    /// Limit: bandwidth that one farm pays for; packets dropped.
    limit_relay_bandwidth_farm,
    /// Limit: bandwidth of the relay altogether; packets dropped.
    limit_relay_bandwidth_total,
}
