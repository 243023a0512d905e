//! Trouble that no traffic makes: descriptors used up, a full disk, a store
//! that was damaged. Each with a broker of its own.

use super::row::Row;
use crate::bench::trouble::Trouble;

type Scenario = fn(&'static str) -> Result<Row, Trouble>;

/// All of them, with their names.
pub(super) const SCENARIOS: [(&str, Scenario); 0] = [];
