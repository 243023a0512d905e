//! Power cuts and failing disks, played to the agent's real store and log.
//!
//! [`recording`]: a program works on a state directory under a recorder
//! (`shim.c`, preloaded) that writes down what it does to the disk, and when it
//! announced what. [`image`]: what a power cut at any moment of that could have
//! left. [`check`]: opens such a state with the real code and holds it to what
//! was announced. [`kill`]: the same with a real `kill -9`, over and over on
//! one state. [`faults`]: full, read-only and failing disks, flipped bits.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod check;
pub mod faults;
pub mod image;
pub mod kill;
pub mod random;
pub mod recording;
pub mod shim;
pub mod workload;

/// What went wrong, in words that let it be played again.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
