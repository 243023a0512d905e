//! What the end-to-end tests, the demo and the benchmarks share: a greenhouse
//! to reach through the tunnel, and a harness that runs the real programs.
// Allowed in one module of the lab, with its reasons.
#![deny(unsafe_code)]

pub mod abuse;
pub mod bench;
pub mod cluster;
pub mod demo;
pub mod device;
pub mod greenhouse;
pub mod harness;
pub mod image;
pub mod lab;
pub mod load;
pub mod sim;
