//! The fault lab: the real programs in network namespaces, a farm behind its
//! router, a phone behind another, the broker between them; one fault a run,
//! with traffic that shows what a user would see. Needs root.
//!
//! What is measured, and how to read it: `docs/lab.md`.

mod dns;
mod echo;
mod error;
mod faults;
mod grid;
mod link;
mod meter;
mod namespace;
mod network;
mod outcome;
mod run;
mod scenario;
mod suite;
mod table;
mod timeline;
mod topology;
mod traffic;
mod world;

pub use error::LabError;
pub use grid::{Cell, GRID_NATS, GRID_ROUTES, grid, markdown as grid_markdown};
pub use link::Shape;
pub use meter::{gone, idle};
pub use namespace::missing;
pub use outcome::{Failed, Outcome};
pub use run::run;
pub use scenario::{Goal, Goals, Length, On, Run, SCENARIOS, Scenario, Streams, Traffic};
pub use suite::{Plan, perform};
pub use table::Table;
pub use topology::{Nat, Route, TOPOLOGIES, Topology};
