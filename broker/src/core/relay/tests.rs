//! The relay under virtual time.

mod hostile;
mod issuing;
mod limits;
mod requests;
mod revoked;
mod traffic;
mod world;
