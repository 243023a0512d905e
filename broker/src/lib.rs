//! Farm Tunnel: the broker, a lightweight rendezvous server. It introduces
//! farms and phones to each other and is never trusted with more: what they
//! say is signed end to end, and their tunnels live on without it.
//!
//! [`core`] decides and does no I/O; [`server`] does the I/O and decides
//! nothing; [`admin`] is the operator's side of it.
#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod backup;
pub mod cli;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod config;
pub mod core;
pub mod register;
pub mod server;
pub mod store;
