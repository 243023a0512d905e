//! The core's rules under virtual time.

mod alerts;
mod authentication;
mod claims;
mod cleanup;
mod cluster;
mod enrollment;
mod history;
mod hostile;
mod limits;
mod presence;
mod relay;
mod routing;
mod world;
