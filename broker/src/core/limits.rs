//! Every limit of the core, with its default.

use std::time::Duration;

use super::bucket::Rate;

/// The heartbeat interval that devices are told.
pub const HEARTBEAT: Duration = Duration::from_secs(60);

/// A connection from which nothing came for this long is dead: 2.5 x the
/// heartbeat, so that one lost heartbeat and a slow hand-over are survived.
/// The kernel's keepalive usually notices a dead path long before.
pub const STALE_AFTER: Duration = HEARTBEAT.saturating_mul(5).checked_div(2).expect("2 is not 0");

/// Time for a device to answer the challenge: four round trips on the worst
/// mobile link, and little enough that silent sockets don't pile up.
pub const AUTHENTICATE_WITHIN: Duration = Duration::from_secs(5);

/// Time for the store to make an enrollment durable before the farm is told
/// to come back: twice what an SD card's worst fsync takes.
pub const ENROLL_WITHIN: Duration = Duration::from_secs(10);

/// When a farm whose enrollment could not be made durable should come back.
pub const ENROLL_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A farm may answer a phone that it does not list for this long after the
/// phone's last signal: pairing takes seconds, with a person confirming it.
pub const EXCHANGE_LASTS: Duration = Duration::from_secs(60);

/// What devices may do. `Default` gives what a small server bears.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Sockets altogether: connections, requests for pages, and devices that
    /// are just being told that the broker is full.
    pub sockets: usize,
    /// New sockets from one address, before anything is read: twice what
    /// devices may open, who are told why they are refused.
    pub sockets_per_address: Rate,
    /// Sockets that no device has yet, at most; then the oldest is closed. 2000
    /// devices a second that need half a second each are half of it, and an
    /// unfinished TLS handshake holds about 20 KB.
    pub newcomers: usize,
    /// Requests for pages over one connection: the app has about 20 files.
    pub requests: Rate,
    /// STUN requests from one network (see [`Network::of_datagram`]). A probe
    /// every 20 s of 2000 devices behind one carrier's NAT; sources can be
    /// forged, and answers are at most 2.2 times as long as requests.
    ///
    /// [`Network::of_datagram`]: super::network::Network::of_datagram
    pub stun_per_network: Rate,
    /// STUN requests altogether: ten times what 10,000 farms ask.
    pub stun: Rate,
    /// Connections altogether.
    pub connections: usize,
    /// Connections from one address (IPv6: from one /64). Phones behind one
    /// carrier-grade NAT share an address.
    pub connections_per_address: usize,
    /// New connections altogether: 10,000 farms come back within 10 s of a
    /// restart, with room for the phones.
    pub handshakes: Rate,
    /// New connections from one address.
    pub handshakes_per_address: Rate,
    /// Wrong enrollment tokens from one address. A token has 160 bits: this
    /// bounds the noise, not the odds.
    pub token_guesses: Rate,
    /// Messages of one phone. A long list costs one more per
    /// [`LIST_ITEMS_PER_TOKEN`] items, a signal per [`SIGNAL_BYTES_PER_TOKEN`].
    pub phone_messages: Rate,
    /// Messages of one farm: after a restart of the broker it answers up to
    /// 256 phones with some candidates each.
    pub farm_messages: Rate,
    /// Signals of one phone: offer and candidates for a handful of farms.
    pub phone_signals: Rate,
    /// Signals of one farm, see [`Limits::farm_messages`].
    pub farm_signals: Rate,
    /// Signals to invitations from one phone's connection.
    pub pairing_per_phone: Rate,
    /// Signals to invitations of one farm.
    pub pairing_per_farm: Rate,
    /// Signals of one phone's connection that met a limit, until it is closed: an
    /// offer with all its candidates once too often; one to an invitation counts
    /// [`GUESS_STRIKES`]. Who heeds what it is told never comes here.
    pub strikes: Rate,
    /// Changes of one farm's presence that are pushed; what comes faster is
    /// held back and only the last is sent.
    pub presence_changes: Rate,
    /// Phones in unfinished exchanges with one farm; the oldest gives way.
    pub exchanges_per_farm: usize,
    /// Watched farms over all connections.
    pub watches: usize,
    /// Farms that are offline and still shown with their last state; the one
    /// longest away gives way.
    pub offline_farms: usize,
    /// Enrolled farms: about 200 bytes each in the store's mirror of 4 MiB.
    pub farms: usize,
    /// Open enrollment tokens.
    pub tokens: usize,
    /// Addresses remembered for each limit per address.
    pub remembered_addresses: usize,
    /// Log lines on farms that come and go; what is left out is counted.
    pub log_lines: Rate,
}

/// Sockets beyond the devices' connections.
pub const SPARE_SOCKETS: usize = 1024;

/// Items of a list in a message that cost as much as one more message.
pub const LIST_ITEMS_PER_TOKEN: usize = 10;

/// Bytes of a signal that cost as much as one more message: twice what an
/// offer with all its candidates has, so that only floods pay.
pub const SIGNAL_BYTES_PER_TOKEN: usize = 4 * 1024;

/// What a signal to an invitation beyond its limit counts: nobody needs ten.
pub const GUESS_STRIKES: u32 = 2;

impl Default for Limits {
    fn default() -> Self {
        Self {
            sockets: 20_000 + SPARE_SOCKETS,
            sockets_per_address: Rate::per_second(256, 16),
            newcomers: 2048,
            requests: Rate::per_second(100, 10),
            stun_per_network: Rate::per_second(300, 100),
            stun: Rate::per_second(10_000, 5000),
            connections: 20_000,
            connections_per_address: 64,
            handshakes: Rate::per_second(4000, 2000),
            handshakes_per_address: Rate::per_second(128, 8),
            token_guesses: Rate::per_minute(5, 1),
            phone_messages: Rate::per_second(100, 50),
            farm_messages: Rate::per_second(1000, 200),
            phone_signals: Rate::per_second(60, 20),
            farm_signals: Rate::per_second(900, 150),
            // Burst and refill together: 10 and 30 in any minute.
            pairing_per_phone: Rate::per_minute(5, 5),
            pairing_per_farm: Rate::per_minute(15, 15),
            strikes: Rate::per_minute(20, 20),
            presence_changes: Rate::per_second(10, 1),
            exchanges_per_farm: 256,
            watches: 200_000,
            offline_farms: 4096,
            farms: 16_000,
            tokens: 1000,
            remembered_addresses: 8192,
            log_lines: Rate::per_minute(200, 60),
        }
    }
}
