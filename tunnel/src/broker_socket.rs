//! The shell around [`crate::link`]: a device's one WebSocket to the broker.
//!
//! It dials, authenticates, reads and writes; when to do so is the link's
//! decision.

mod address;
mod conversation;
mod dial;
mod relay;
mod run;
mod tls;

pub use address::{AddressError, BrokerAddress, Brokers, MAX_BROKERS};
pub use dial::{DialError, Dialer};
pub use run::{BrokerEvent, BrokerSocket, Identity};
pub use tls::{Trust, TrustError};
