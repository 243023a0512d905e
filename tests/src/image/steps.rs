//! The steps of the test, by what happens to the box.

pub(super) mod cuts;
pub(super) mod faults;
pub(super) mod first;
pub(super) mod mistakes;
