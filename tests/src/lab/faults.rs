//! The faults: what is done to the network and the programs, and when.

mod broker;
mod random;
mod restart;
mod twins;

use std::time::{Duration, Instant};

pub(super) use broker::{broker_down, cached_address, dns_gone, relay_down};
pub(super) use random::ten;
pub(super) use restart::{agent_killed, agent_restart, client_restart, power_cut};
pub(super) use twins::twins;

use super::LabError;
use super::network::End;
use super::scenario::{Length, Marks, Stage};
use super::timeline::Timeline;
use super::world::SOON;
use crate::harness::until;

/// What a long fault is cut down to in tests: longer than everything that
/// notices it (3 s) and than the first steps of every backoff.
const SHORT: Duration = Duration::from_secs(5);

/// The tunnel is watched for this long after its last stream (`LINGER` in
/// farm-connect), and then a little.
const UNWATCHED_AFTER: Duration = Duration::from_secs(33);

/// An idle user comes back so long after the fault.
const IDLE_FOR: Duration = Duration::from_secs(5);

impl Stage<'_> {
    /// Lets the fault last.
    fn last(&self, seconds: u64) {
        let full = Duration::from_secs(seconds);
        std::thread::sleep(if self.length == Length::Short { full.min(SHORT) } else { full });
    }
}

/// Both directions of the phone's uplink.
fn phone_cut() -> [String; 2] {
    ["iifname phone".to_owned(), "oifname phone".to_owned()]
}

/// The phone's uplink is lost beyond its router: nothing local changes.
pub(super) fn phone_offline(stage: &mut Stage<'_>, seconds: u64) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.network.drop_packets(&phone_cut())?;
    stage.last(seconds);
    let healed = Instant::now();
    stage.world.network.drop_packets(&[])?;
    Ok(Marks::healed(fault, healed))
}

/// The phone's own interface goes down and comes up.
pub(super) fn airplane(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.network.unplug(End::Phone)?;
    stage.last(20);
    let healed = Instant::now();
    stage.world.network.plug(End::Phone)?;
    Ok(Marks::healed(fault, healed))
}

/// A new lease at the farm.
pub(super) fn farm_address(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.network.change_local_address(End::Farm)?;
    Ok(Marks::lasting(fault))
}

/// Another public address at the farm's router.
pub(super) fn public_address(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.network.change_public_address(End::Farm)?;
    Ok(Marks::lasting(fault))
}

/// The router's mappings are gone.
pub(super) fn forgotten(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.network.forget_mappings(End::Farm)?;
    Ok(Marks::lasting(fault))
}

/// Another public address while nobody looks; when it was noticed, somebody
/// wants a stream.
pub(super) fn idle_address(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    std::thread::sleep(UNWATCHED_AFTER);
    let marks = public_address(stage)?;
    let seen = || Timeline::of(stage.world, marks.fault).noticed();
    until("somebody notices", Duration::from_secs(60), seen)?;
    ask(stage, marks)
}

/// Another public address while nobody looks; somebody wants a stream before
/// the farm can know.
pub(super) fn idle_asked(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    std::thread::sleep(UNWATCHED_AFTER);
    let marks = public_address(stage)?;
    std::thread::sleep(IDLE_FOR);
    ask(stage, marks)
}

/// How long a new stream takes to answer.
fn ask(stage: &Stage<'_>, mut marks: Marks) -> Result<Marks, LabError> {
    let asked = Instant::now();
    match stage.world.session() {
        Ok(_) => marks.recovered = Some(asked.elapsed()),
        Err(problem) => marks.problems.push(format!("no new stream: {problem}")),
    }
    Ok(marks)
}

/// One direction of the phone's uplink is lost, `oifname` (to the phone) or
/// `iifname` (from it).
pub(super) fn one_way(stage: &mut Stage<'_>, direction: &str) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.network.drop_packets(&[format!("{direction} phone")])?;
    stage.last(10);
    let healed = Instant::now();
    stage.world.network.drop_packets(&[])?;
    Ok(Marks::healed(fault, healed))
}

/// Three of ten packets are lost, each way.
fn lossy() -> [String; 2] {
    ["iifname", "oifname"].map(|direction| format!("{direction} phone numgen random mod 100 < 30"))
}

/// A bad radio.
pub(super) fn loss(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let fault = Instant::now();
    stage.world.network.drop_packets(&lossy())?;
    let seconds = if stage.length == Length::Short { 15 } else { 60 };
    std::thread::sleep(Duration::from_secs(seconds));
    let healed = Instant::now();
    stage.world.network.drop_packets(&[])?;
    Ok(Marks::healed(fault, healed))
}

/// Waits until the agent has the broker again after `fault`.
fn registered(stage: &Stage<'_>, fault: Instant) -> Result<Instant, LabError> {
    let (at, _) =
        until("the farm is at the broker again", SOON, || Timeline::of(stage.world, fault).registered())?;
    Ok(at)
}
