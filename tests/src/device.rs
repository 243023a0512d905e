//! Farms and phones as the broker sees them: real keys, real TLS and the real
//! protocol, without what stands behind them. Thousands fit into one process,
//! each from a source address of its own where that is wanted.

mod broker;
mod certificate;
mod dial;
mod identity;
mod link;
pub mod turn;

pub use broker::{Broker, Figures};
pub use certificate::Certificate;
pub use dial::{Secure, Target, loopback};
pub use identity::Device;
pub(crate) use link::unexpected;
pub use link::{DeviceError, Link, Message, channel_of};
