//! Programs that die and come back.

use std::time::Instant;

use super::super::network::End;
use super::super::scenario::{Marks, Stage};
use super::LabError;

/// The farm goes dark, with its network, and comes back.
pub(crate) fn power_cut(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    // The link first: a dead program's sockets must not say goodbye.
    stage.world.network.unplug(End::Farm)?;
    stage.world.kill_agent()?;
    stage.last(10);
    stage.world.network.plug(End::Farm)?;
    stage.world.farm.agent.daemon.start()?;
    Ok(Marks::healed(fault, Instant::now()))
}

/// Stopped in good order, and started.
pub(crate) fn agent_restart(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.stop_agent()?;
    stage.world.farm.agent.daemon.start()?;
    Ok(Marks::healed(fault, Instant::now()))
}

/// Killed, and started at once.
pub(crate) fn agent_killed(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.kill_agent()?;
    stage.world.farm.agent.daemon.start()?;
    Ok(Marks::healed(fault, Instant::now()))
}

/// The phone's programs are killed and started.
pub(crate) fn client_restart(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    let ready = stage.world.restart_client()?;
    Ok(Marks::healed(fault, ready))
}
