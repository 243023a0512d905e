//! Many clients at a relay at once, each with a channel over which a message
//! went to a peer and back.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farm_broker::core::relay::credentials::{Account, Holder, Name, Secret, username};
use farm_protocol::relay::Relay as Credentials;

use super::super::trouble::Trouble;
use super::SECRET;
use crate::device::loopback;
use crate::device::turn::{Turn, channel_data};

/// Clients at once, one crowd after the other: about what the broker lets in
/// altogether unless told otherwise, and what a relay has for ten thousand farms
/// if two of five need it.
pub(super) const CROWDS: [u32; 2] = [900, 4000];

/// Their farms are others than that of the rounds before.
const FIRST_FARM: u64 = 100;

/// Allocations that one farm may have.
const PER_FARM: u32 = 64;

/// Addresses are so far apart that few clients share a network, whose requests
/// are limited.
const APART: u32 = 16;

/// The second byte of their addresses.
const NET: u8 = 30;

const CHANNEL: u16 = 0x4000;

/// For a message to come back; another is sent then.
const BACK_WITHIN: Duration = Duration::from_millis(500);

/// Messages that are sent, at most, until one comes back.
const TRIES: u32 = 10;

/// Lets those of these numbers in, one after the other. Their sockets end with
/// what is given.
pub(super) fn gather(
    relay: &'static str,
    address: SocketAddr,
    peer: SocketAddr,
    numbers: Range<u32>,
) -> Result<Vec<Turn>, Trouble> {
    numbers.map(|number| enter(relay, address, peer, number)).collect()
}

fn enter(relay: &'static str, address: SocketAddr, peer: SocketAddr, number: u32) -> Result<Turn, Trouble> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let farm = FIRST_FARM + u64::from(number / PER_FARM);
    let username = username(Name { account: Account(farm), holder: Holder(farm) }, since + 3600);
    let credential = Secret::new(SECRET.as_bytes()).password(&username);
    let (host, udp, tcp, tls) = (None, None, None, None);
    let credentials = Credentials { host, udp, tcp, tls, username, credential, seconds: 3600 };
    let wrong = |what: &str| Trouble::Wrong(format!("{relay}, client {number}: {what}"));
    let mut client = Turn::new(loopback(NET, number * APART), address, &credentials)
        .map_err(Trouble::io("opening a client of a relay"))?;
    client.allocate().map_err(|code| wrong(&format!("no allocation ({code})")))?;
    client.bind(CHANNEL, peer).map_err(|code| wrong(&format!("no channel ({code})")))?;
    let io = Trouble::io("waiting for an echo");
    client.socket().set_read_timeout(Some(BACK_WITHIN)).map_err(io)?;
    let message = [0x5a; 200];
    let echo = channel_data(CHANNEL, &message);
    let mut bytes = [0; 2048];
    for _ in 0..TRIES {
        client.send(CHANNEL, &message);
        // What else comes is an answer to a repeated request.
        if client.socket().recv(&mut bytes).is_ok_and(|length| bytes[..length] == echo[..]) {
            return Ok(client);
        }
    }
    Err(wrong("nothing came back from the peer"))
}
