//! What both ends of a tunnel share.
//!
//! Pure cores decide (no I/O, no clock, no randomness of their own): [`link`]
//! (reconnect and heartbeat), [`session`] (lifecycle), [`health`],
//! [`recovery`], [`mux`] (streams), [`ip_change`], [`history`] (the event log). Thin shells do: [`peer`]
//! (WebRTC), [`broker_socket`], [`stream`], [`pump`], on [`executor`].
#![forbid(unsafe_code)]

pub mod address_watch;
pub mod aside;
pub mod backoff;
pub mod broker_socket;
pub mod carrier;
pub mod clock;
pub mod display;
pub mod executor;
pub mod fault;
pub mod health;
pub mod history;
pub mod ip_change;
pub mod link;
pub mod mux;
pub mod peer;
pub mod progress;
pub mod pump;
pub mod recovery;
pub mod session;
pub mod stream;
pub mod words;
