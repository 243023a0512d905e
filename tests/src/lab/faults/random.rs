//! Many faults in a row, from a seed.

use std::time::{Duration, Instant};

use super::super::network::End;
use super::super::scenario::{Length, Marks, Stage};
use super::{LabError, lossy, phone_cut};

/// SplitMix64 (Steele, Lea, Flood 2014): plenty for choosing faults.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// Ten faults that no stream may suffer from, with pauses too short to settle.
pub(crate) fn ten(stage: &mut Stage<'_>) -> Result<Marks, LabError> {
    let mut random = Random(stage.seed);
    let fault = Instant::now();
    let mut healed = fault;
    let mut story = Vec::new();
    let count = if stage.length == Length::Short { 5 } else { 10 };
    for _ in 0..count {
        let lasts = random.milliseconds(200, 4_000);
        let network = &mut stage.world.network;
        let name = match random.below(8) {
            0 => {
                network.drop_packets(&phone_cut())?;
                "the phone offline"
            }
            1 => {
                network.drop_packets(&["iifname phone".to_owned()])?;
                "nothing from the phone"
            }
            2 => {
                network.drop_packets(&["oifname phone".to_owned()])?;
                "nothing to the phone"
            }
            3 => {
                network.drop_packets(&lossy())?;
                "30 % loss"
            }
            4 => {
                network.change_local_address(End::Farm)?;
                "another address at the farm"
            }
            5 => {
                network.change_public_address(End::Phone)?;
                "another public address at the phone's router"
            }
            6 => {
                network.forget_mappings(End::Phone)?;
                network.forget_mappings(End::Farm)?;
                "forgotten mappings on both routers"
            }
            _ => {
                stage.world.farm.broker.daemon.terminate()?;
                stage.world.farm.broker.daemon.start()?;
                "the broker restarts"
            }
        };
        story.push(format!(
            "+{:.1} s {name} for {:.1} s",
            fault.elapsed().as_secs_f64(),
            lasts.as_secs_f64()
        ));
        std::thread::sleep(lasts);
        healed = Instant::now();
        stage.world.network.drop_packets(&[])?;
        std::thread::sleep(random.milliseconds(500, 4_000));
    }
    let mut marks = Marks::healed(fault, healed);
    marks.story = story;
    Ok(marks)
}
