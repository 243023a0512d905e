//! The broker and the resolver go away: no tunnel may notice.

use std::time::{Duration, Instant};

use super::super::scenario::{Marks, Stage};
use super::{LabError, registered};

/// What makes the internet lose questions to the resolver.
const NO_DNS: &str = "meta l4proto { tcp, udp } th dport 53";

/// The broker is stopped, and started after a while.
pub(crate) fn broker_down(stage: &mut Stage<'_>, seconds: u64) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.farm.broker.daemon.terminate()?;
    stage.last(seconds);
    stage.world.farm.broker.daemon.start()?;
    back(stage, fault)
}

/// The same where the broker's relay carries the tunnel: it breaks, and is to be
/// there again with the broker.
pub(crate) fn relay_down(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.farm.broker.daemon.terminate()?;
    stage.last(15);
    stage.world.farm.broker.daemon.start()?;
    Ok(Marks::healed(fault, Instant::now()))
}

/// Waits until the broker's devices are back, and a little: what comes then is
/// still the fault's.
fn back(stage: &Stage<'_>, fault: Instant) -> Result<Marks, LabError> {
    let broker_back = Instant::now();
    registered(stage, fault)?;
    std::thread::sleep(Duration::from_secs(2));
    Ok(Marks { broker_back: Some(broker_back), ..Marks::lasting(fault) })
}

/// Names can't be resolved while the broker restarts.
pub(crate) fn dns_gone(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.network.drop_packets(&[NO_DNS.to_owned()])?;
    std::thread::sleep(Duration::from_secs(1));
    stage.world.farm.broker.daemon.terminate()?;
    stage.world.farm.broker.daemon.start()?;
    back(stage, fault)
}

/// Names can't be resolved, and neither side remembers anything but what is on
/// its disk.
pub(crate) fn cached_address(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.network.drop_packets(&[NO_DNS.to_owned()])?;
    stage.world.kill_agent()?;
    let ready = stage.world.restart_client()?;
    stage.world.farm.agent.daemon.start()?;
    Ok(Marks::healed(fault, Instant::now().max(ready)))
}
