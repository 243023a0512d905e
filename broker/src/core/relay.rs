//! The relay's decisions: TURN (RFC 8656) with UDP allocations, and the
//! time-limited credentials that open it.
//!
//! Pure, like the rest of the core. Nothing is remembered about anybody who
//! has not shown a valid credential; see docs/decisions/0009-relay.md for
//! why it is our own.

mod allocation;
pub mod credentials;
pub mod flow;
pub mod issuer;
pub mod limits;
pub mod message;
mod nonce;
pub mod policy;
mod requests;
mod revoked;
pub mod turn;

#[cfg(test)]
mod tests;

pub use credentials::{Account, Secret};
pub use issuer::{Issuer, Reach};
pub use limits::RelayLimits;
pub use policy::PeerPolicy;
pub use turn::{Action, AllocationId, Client, Event, Forward, HEADROOM, Place, TAILROOM, Transport, Turn};
