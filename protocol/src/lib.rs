//! Wire types of Farm Tunnel: messages, their CBOR codec, identities,
//! signatures, pairing and signed offers.
//!
//! Nothing here does I/O or reads a clock: time and randomness are arguments.
//! The schema is `schema.cddl` beside this crate's manifest, and
//! `vectors/` holds what a second implementation can be held to.
#![forbid(unsafe_code)]

pub mod base32;
pub mod base64url;
mod bounded_text;
pub mod broker;
mod byte_string;
pub mod channel;
pub mod codec;
pub mod control;
pub mod epoch;
pub mod frame;
pub mod id;
pub mod invitation;
pub mod key_pin;
pub mod keys;
pub mod pairing;
pub mod ping;
pub mod readings;
pub mod relay;
pub mod service;
pub mod signal;
pub mod stun;

/// The version of the wire that this crate speaks, first item of every message.
pub const VERSION: u8 = 1;

/// The WebSocket subprotocol between a device and the broker.
pub const SUBPROTOCOL: &str = "farm-tunnel.v1";

/// The broker's WebSocket path.
pub const CONNECT_PATH: &str = "/v1/connect";
