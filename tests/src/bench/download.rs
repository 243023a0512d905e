//! One download far larger than any memory on the way.

use super::part::Part;
use super::scale::Scale;
use super::table::{Figure, Row, Unit};
use super::throughput::File;
use super::trouble::Trouble;
use super::usage::{self, Peak};
use super::world::{World, end};

pub(super) fn measure(world: &World, scale: &Scale, part: &mut Part) -> Result<(), Trouble> {
    if scale.large == 0 {
        part.push(Row::missing("1 GB", "only with --full"));
        return Ok(());
    }
    let file = File::of(scale.large);
    let forward = world.to_greenhouse()?;
    let peak = Peak::watch(&[world.agent()?.pid(), forward.process.pid()]);
    let result = file.download(forward.address);
    let most = peak.finish()?;
    let done = result?;
    let figures = vec![
        Figure::new("", done.megabytes_per_second(), Unit::Rate),
        Figure::new("longest gap", done.longest_gap.as_secs_f64() * 1e3, Unit::Milliseconds),
    ];
    part.push(Row::new(format!("{} MB", scale.large), figures).remark(Some("SHA-256 right".to_owned())));
    for (name, most) in ["agent", "connect"].into_iter().zip(&most) {
        part.push(Row::new(format!("{name}, meanwhile"), usage::figures("RSS at most", most)));
    }
    end(&forward)
}
