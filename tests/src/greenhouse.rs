//! A small greenhouse controller, the kind of page a farm really has: live
//! readings, a vent, a drip line, a camera. It knows nothing of the tunnel, so
//! whatever works with it should work with the farmer's own equipment.
//!
//! Besides, it serves downloads and takes uploads with a known SHA-256: any
//! byte lost, doubled or moved on the way is noticed.

pub mod camera;
pub mod climate;
pub mod content;
pub mod language;
mod live;
mod page;
pub mod range;
mod routes;
mod server;
mod transfer;

pub use server::{Greenhouse, GreenhouseOptions};
