//! Phones that come and go: what stays behind at the agent.

use std::time::Duration;

use farm_connect::Client;

use super::first_byte::{APART, tunnel};
use super::part::{Part, Repeat};
use super::sample::slope;
use super::scale::Scale;
use super::stop::pause;
use super::table::{Figure, Row, Unit};
use super::trouble::Trouble;
use super::world::World;
use crate::harness::farm::FARM;
use crate::harness::{HarnessError, Usage, until};

/// Connections before the first look: pools and caches fill with the first ones.
const WARM_UP: usize = 5;
/// For the agent to close what ended connections had.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// Bytes in a kilobyte.
const KILOBYTE: f64 = 1e3;

pub(super) fn measure(world: &World, scale: &Scale, part: &mut Part) -> Result<(), Trouble> {
    let client = Client::open(&world.phone_state)?;
    let farm = client.find(FARM)?;
    let cycle = || {
        smol::block_on(tunnel(&client, &farm))?;
        pause(APART)?;
        Ok::<_, Trouble>(world.agent()?.usage()?)
    };
    for _ in 0..WARM_UP {
        cycle()?;
    }
    let before = closed(world, None)?;
    let mut points = vec![(0.0, before.rss_bytes as f64 / KILOBYTE)];
    let mut runs = Repeat::new(scale.cycles as usize, scale.share);
    while runs.next() {
        let usage = cycle()?;
        points.push((points.len() as f64, usage.rss_bytes as f64 / KILOBYTE));
    }
    let after = closed(world, Some(&before))?;

    let count = points.len() as f64 - 1.0;
    part.push(Row::new("done", vec![Figure::new("", count, Unit::Cycles)]).remark(runs.remark("cycles")));
    let megabytes = |usage: &Usage| usage.rss_bytes as f64 / 1e6;
    let memory = vec![
        Figure::new("before", megabytes(&before), Unit::Megabytes),
        Figure::new("after", megabytes(&after), Unit::Megabytes),
    ];
    part.push(Row::new("agent, RSS", memory));
    let growth = vec![Figure::new("", slope(&points), Unit::Slope)];
    part.push(Row::new("agent, RSS, slope of all looks", growth));
    for (name, unit, of) in [
        ("agent, open files", Unit::Files, (|usage: &Usage| usage.files) as fn(&Usage) -> u64),
        ("agent, threads", Unit::Threads, |usage: &Usage| usage.threads),
    ] {
        let figure = |label, usage| Figure::new(label, of(usage) as f64, unit);
        part.push(Row::new(name, vec![figure("before", &before), figure("after", &after)]));
    }
    Ok(())
}

/// What the agent uses once it has no sessions, and no more files than before;
/// what it has after [`CLOSED_WITHIN`] otherwise.
fn closed(world: &World, before: Option<&Usage>) -> Result<Usage, Trouble> {
    let agent = world.agent()?;
    let rested = || {
        let status = world.agent.control.status().ok()?;
        let none = status["sessions"].as_array().is_some_and(Vec::is_empty);
        let usage = agent.usage().ok()?;
        (none && before.is_none_or(|before| usage.files <= before.files)).then_some(usage)
    };
    match until("the agent to have closed everything", CLOSED_WITHIN, rested) {
        Ok((usage, _)) => Ok(usage),
        Err(HarnessError::Timeout { .. }) => Ok(agent.usage()?),
        Err(error) => Err(error.into()),
    }
}
