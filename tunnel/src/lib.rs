//! Farm Tunnel: what both ends share.
pub mod peer;
