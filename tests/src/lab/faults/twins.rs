//! Two devices with one key, as after a restored backup.

use std::fs;
use std::time::{Duration, Instant};

use super::super::network::End;
use super::super::scenario::{Marks, Stage};
use super::super::traffic::Session;
use super::super::world::{ECHO, SOON};
use super::LabError;
use crate::harness::farm::{FARM, Phone};

/// How long both are there.
const TOGETHER: u64 = 15;

/// A copy of the phone's state is used by a second device for a while.
pub(crate) fn twins(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let world = &mut *stage.world;
    let (original, copy) = (world.farm.dir().join("phone"), world.farm.dir().join("twin"));
    let copied = || {
        fs::create_dir_all(&copy)?;
        for entry in fs::read_dir(&original)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), copy.join(entry.file_name()))?;
            }
        }
        Ok(())
    };
    copied().map_err(LabError::io("copying the phone's state"))?;
    let fault = Instant::now();
    let place = world.network.host(End::Phone).place().with("FARM_LOG", "debug");
    let twin = Phone::new(place, &copy)?.forward(FARM, ECHO)?;
    let used = Session::open(world.network.host(End::Phone), twin.address);
    let left = Duration::from_secs(TOGETHER).saturating_sub(fault.elapsed());
    std::thread::sleep(left);
    let fights = twin.process.lines().iter().filter(|line| line.text.contains("carrier attached")).count();
    let healed = Instant::now();
    // In good order: else the farm keeps its session for a while, as it should.
    twin.process.terminate(SOON)?;
    world.former_lines.push(("twin", twin.process.lines()));
    let mut marks = Marks::healed(fault, healed);
    if let Err(error) = used {
        marks.problems.push(format!("the second device could not work at all: {error}"));
    }
    if fights > 5 {
        marks
            .problems
            .push(format!("the two devices fight: {fights} carriers of the second in {TOGETHER} s"));
    }
    Ok(marks)
}
