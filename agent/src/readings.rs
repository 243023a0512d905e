//! Readings: what the farm's sensors and programs say, kept until phones have
//! it, across power cuts.
//!
//! [`log`] decides (sequence numbers, blocks, pruning; no I/O), [`writer`] is
//! the one task that makes readings durable, [`socket`] takes them from local
//! programs, [`builtin`] makes the agent's own, [`delivery`] hands them to
//! phones, [`query`] reads them back, [`rest`] decides when the memory of many is
//! given back; [`handle`] is what all of these hold.

pub mod block;
pub mod builtin;
pub mod delivery;
pub mod handle;
pub mod log;
pub mod pace;
pub mod query;
pub mod rest;
pub mod socket;
pub mod tables;
pub mod writer;
