//! The health monitor.

pub mod rtt;
