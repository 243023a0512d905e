//! Every limit of the relay, with its default.

use std::time::Duration;

use super::flow::Bandwidth;
use crate::core::bucket::Rate;

/// How long credentials are good for. Half of it between two that a device is
/// sent; what it opens with them lives on.
pub const CREDENTIALS_LAST: Duration = Duration::from_secs(2 * 3600);

/// An allocation's lifetime unless it asks for more (RFC 8656 section 3.2).
pub const LIFETIME: Duration = Duration::from_secs(600);

/// Longest lifetime that one refresh gives (RFC 8656 section 7.2).
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

/// An allocation ends after this time, however often it is refreshed: what a
/// stolen credential opened ends with it.
pub const ALLOCATION_LASTS: Duration = Duration::from_secs(24 * 3600);

/// How long a permission lasts (RFC 8656 section 9).
pub const PERMISSION_LASTS: Duration = Duration::from_secs(300);

/// How long a channel lasts (RFC 8656 section 12).
pub const CHANNEL_LASTS: Duration = Duration::from_secs(600);

/// A TCP or TLS connection without an allocation is closed after this time.
/// Four round trips of the worst mobile link, with one repeated.
pub const STREAM_WITHOUT_ALLOCATION: Duration = Duration::from_secs(10);

/// The shell must have a socket for an allocation within this time.
pub const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// Largest packet, in bytes, that is relayed or read: ICE, DTLS and SCTP keep
/// below a path's 1500.
pub const MAX_PACKET: usize = 2048;

/// What devices may have relayed. `Default` gives what a small server bears.
#[derive(Debug, Clone, PartialEq)]
pub struct RelayLimits {
    /// Allocations altogether. Each has a socket and about 2 KiB.
    pub allocations: usize,
    /// Allocations that one farm pays for: 32 sessions, with one more each
    /// while they move.
    pub allocations_per_farm: usize,
    /// Allocations of one device's credentials; a carrier takes up to 3 while
    /// it begins (UDP, TCP, TLS), and a farm has many carriers.
    pub allocations_per_device: usize,
    /// Bandwidth of one allocation, both directions together.
    pub allocation: Bandwidth,
    /// Bandwidth that one farm pays for.
    pub farm: Bandwidth,
    /// Bandwidth altogether.
    pub total: Bandwidth,
    /// Peers' addresses that one allocation lets in.
    pub permissions: usize,
    /// Channels of one allocation.
    pub channels: usize,
    /// Requests from one network (IPv4 /24, IPv6 /56), whose source anyone
    /// can forge.
    pub requests: Rate,
    /// Networks that are remembered for it.
    pub networks: usize,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            allocations: 1000,
            allocations_per_farm: 64,
            allocations_per_device: 64,
            // 20 Mbit/s: one LTE modem's best.
            allocation: Bandwidth::per_second(2_500_000),
            farm: Bandwidth::per_second(5_000_000),
            // 400 Mbit/s: what a small server's link has left.
            total: Bandwidth::per_second(50_000_000),
            permissions: 64,
            channels: 64,
            requests: Rate::per_second(300, 100),
            networks: 8192,
        }
    }
}
