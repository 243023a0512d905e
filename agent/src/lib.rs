//! The agent that runs at the farm: meets phones through the broker, and
//! forwards them to the services of its config and to nothing else.
//!
//! [`farm`] is the loop that owns everything; around it are the shells:
//! [`config`], [`state`], [`forward`], [`control_socket`], [`watchdog`].
// But for two calls into the C library: see `memory`.
#![deny(unsafe_code)]

pub mod card;
pub mod cli;
pub mod clocks;
pub mod config;
pub mod control_socket;
pub mod counters;
pub mod farm;
pub mod forward;
pub mod logging;
pub mod memory;
pub mod readings;
pub mod run;
pub mod state;
pub mod status;
pub mod watchdog;
