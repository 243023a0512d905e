//! What a second implementation may rely on: the schema, the vectors, and
//! that no bytes whatever do harm.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hostile;
mod message;
mod notation;
mod round_trip;
mod schema;
mod strategies;
mod vectors;
