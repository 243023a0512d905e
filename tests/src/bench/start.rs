//! From the agent's start to its word that it is ready.

use super::part::{Part, Repeat};
use super::sample::Sample;
use super::scale::Scale;
use super::table::Row;
use super::trouble::Trouble;
use super::world::World;

/// The design's ceiling, milliseconds.
const BUDGET: f64 = 100.0;

pub(super) fn measure(world: &mut World, scale: &Scale, part: &mut Part) -> Result<(), Trouble> {
    let mut times = Sample::default();
    let mut runs = Repeat::new(scale.starts, scale.share);
    while runs.next() {
        world.agent.daemon.terminate()?;
        times.push_time(world.agent.daemon.start()?);
    }
    let row = Row::times("start of the program to ready", &times, ("p95", 0.95));
    part.push(row.at_most(BUDGET).remark(runs.remark("starts")));
    Ok(())
}
