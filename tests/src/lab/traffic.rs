//! What runs through the tunnel while a fault is made: a download, an idle
//! session, and a stream of pings that shows when data flows.

mod download;
mod pings;
mod session;

pub(super) use download::Download;
pub(super) use pings::Pings;
pub(super) use session::Session;
