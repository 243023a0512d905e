//! What the programs use while nobody does anything.

use std::time::Duration;

use super::part::Part;
use super::scale::Scale;
use super::stop::pause;
use super::table::{Figure, Row, Unit};
use super::trouble::Trouble;
use super::usage::{self, Quiet};
use super::world::{World, end};
use crate::harness::farm::PATIENCE;
use crate::harness::{Process, http, until};

/// The design's ceilings for the agent: memory with one session, MB.
const MEMORY: f64 = 12.0;
/// Wake-ups a second.
const WAKEUPS: f64 = 2.0;
/// Percent of one core.
const CPU: f64 = 0.1;

/// The phone's program counts as watched for 30 s after its last stream, then
/// tells the farm; a second more for both to have changed their pace.
const UNTIL_UNWATCHED: Duration = Duration::from_secs(31);

/// After a start the programs still greet, probe their address and write their
/// state; a program counts as idle after that.
const SETTLED: Duration = Duration::from_secs(2);

/// Agent and broker, and no phone.
pub(super) fn unpaired(world: &World, scale: &Scale, part: &mut Part) -> Result<(), Trouble> {
    online(world)?;
    pause(SETTLED)?;
    let programs = [("agent", world.agent()?), ("broker", world.broker()?)];
    for (name, program) in programs {
        part.push(Row::new(name, usage::figures("RSS", &program.usage()?)));
    }
    look(&programs, scale, part)
}

/// A fresh agent, as after a power cut, and one phone that has used it once.
pub(super) fn with_session(world: &mut World, scale: &Scale, part: &mut Part) -> Result<(), Trouble> {
    world.agent.daemon.terminate()?;
    world.agent.daemon.start()?;
    online(world)?;
    let forward = world.to_greenhouse()?;
    http::get(forward.address, "/api/readings")?;
    pause(SETTLED)?;
    let programs = [("agent", world.agent()?), ("connect", &forward.process), ("broker", world.broker()?)];
    for (name, program) in programs {
        let mut figures = usage::figures("RSS", &program.usage()?);
        if name == "agent" {
            figures[0] = figures[0].clone().at_most(MEMORY);
        }
        part.push(Row::new(name, figures));
    }
    if scale.unwatched {
        pause(UNTIL_UNWATCHED)?;
        look(&programs, scale, part)?;
    } else {
        let reason = "a session needs 30 s to count as unwatched: leave --quick out";
        part.push(Row::missing("unwatched", reason));
    }
    end(&forward)
}

fn look(programs: &[(&'static str, &Process)], scale: &Scale, part: &mut Part) -> Result<(), Trouble> {
    let pids: Vec<u32> = programs.iter().map(|(_, program)| program.pid()).collect();
    let seconds = scale.idle.as_secs();
    for ((name, _), Quiet { wakeups, cpu }) in programs.iter().zip(usage::quiet(&pids, scale.idle)?) {
        let mut figures = vec![Figure::new("", wakeups, Unit::Wakeups), Figure::new("", cpu, Unit::Cpu)];
        if *name == "agent" {
            figures = vec![figures[0].clone().at_most(WAKEUPS), figures[1].clone().at_most(CPU)];
        }
        part.push(Row::new(format!("{name}, {seconds} s of quiet"), figures));
    }
    Ok(())
}

/// Waits until the agent has its broker.
fn online(world: &World) -> Result<(), Trouble> {
    let online = || {
        let status = world.agent.control.status().ok()?;
        (status["broker"]["state"] == "online").then_some(())
    };
    until("the agent's link to the broker", PATIENCE, online)?;
    Ok(())
}
