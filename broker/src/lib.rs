//! Farm Tunnel: the broker.
#![forbid(unsafe_code)]

pub mod core;
