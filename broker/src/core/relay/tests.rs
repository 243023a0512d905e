//! The relay under virtual time.

mod hostile;
mod issuing;
mod limits;
mod requests;
mod traffic;
mod world;
